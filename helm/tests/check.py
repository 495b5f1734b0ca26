"""Every check of the chart. `run` starts it, after the tools are there: check.py TOOLS [--update | --canary-table]."""

import copy
import difflib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import kubernetes_validate
import kubernetes_validate.utils
import yaml

import gate
import operator_pages
import promises
import promql
import queries
import readme
import restricted
from cases import BASE, DIGEST, FEATURES, REFUSED, REFUSED_BY, VERSIONS, VOLUME

TESTS = pathlib.Path(__file__).resolve().parent
HELM = TESTS.parent
CHART = HELM / "hello"
TOOLS = pathlib.Path(sys.argv[1])
UPDATE = "--update" in sys.argv[2:]
ENVIRONMENTS = ["dev", "staging", "production"]
GATES = ["analysis", "analysis, what is slow by a value"]
CRD_GROUPS = ("argoproj.io/", "gateway.networking.k8s.io/", "monitoring.coreos.com/")

# Policies of checkov that do not fit a kind, and why. One that no longer fails is an error too.
CHECKOV_SKIPS = {
    ("Pod", "CKV_K8S_8"): "a test runs to its end, there is no life to probe",
    ("Pod", "CKV_K8S_9"): "a test serves nobody, there is nothing to be ready for",
    ("Pod", "CKV2_K8S_6"): "a test listens on nothing, and must reach the Service from wherever clients may",
}


class Report:
    """Counts what was checked, row by row."""

    def __init__(self):
        self.rows, self.failures = {}, []

    def check(self, row, subject, fault=None):
        self.rows.setdefault(row, [0, 0])[1 if fault else 0] += 1
        if fault:
            self.failures.append(f"{row}: {subject}: {fault}")

    def missing(self, row, tool):
        """A tool is not here: that may be on somebody's machine, and must not be where it decides."""
        if os.environ.get("CI") == "true":
            self.check(row, tool, "is missing")
        else:
            self.rows.setdefault(f"{row} (NOT RUN: no {tool})", [0, 0])
            print(f"NOT RUN: {row}: no {tool}", file=sys.stderr)

    def print(self):
        for failure in self.failures:
            print(f"FAILED  {failure}\n")
        width = max(map(len, self.rows))
        print(f"{'checked':{width}}  passed  failed")
        for row, (passed, failed) in self.rows.items():
            print(f"{row:{width}}  {passed:6}  {failed:6}")
        passed, failed = (sum(row[i] for row in self.rows.values()) for i in (0, 1))
        print(f"\n{passed} passed, {failed} failed")
        return failed


report = Report()


def merged(*layers):
    """Deep, the later over the earlier, as Helm does it."""
    result = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def helm(*arguments, values=None):
    """Runs helm on nothing but what is given: no configuration of the user, no cluster."""
    own = TOOLS / "helm"
    home = {name: str(TOOLS / "helm-home") for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    return subprocess.run(
        [own if own.exists() else "helm", *arguments], input=json.dumps(values or {}), text=True, capture_output=True,
        env={"PATH": os.environ["PATH"], "KUBECONFIG": "/dev/null", **home}, check=False)


def template(values, version="1.37", environment=None, release="hello", notes=False):
    files = ["--values", HELM / "environments" / f"{environment}.yaml"] if environment else []
    command = ["install", "--dry-run=client"] if notes else ["template", "--kube-version", version]
    return helm(*command, release, CHART, "--namespace", "hello", *files, "--values", "-", values=values)


def rendered(row, subject, *arguments, **options):
    """The objects of a render that has to succeed."""
    run = template(*arguments, **options)
    report.check(row, subject, run.stderr if run.returncode else None)
    return [] if run.returncode else [document for document in yaml.safe_load_all(run.stdout) if document]


def pod_specs(document):
    if document["kind"] == "Pod":
        yield document["spec"]
    elif "template" in document.get("spec", {}):
        yield document["spec"]["template"]["spec"]


def twin(document):
    """The Deployment with the pod template of a Rollout: validators and scanners know Deployments alone."""
    if document["kind"] != "Rollout":
        return document
    shared = {key: document["spec"][key] for key in ("replicas", "selector", "template") if key in document["spec"]}
    return {**document, "apiVersion": "apps/v1", "kind": "Deployment", "spec": shared}


def name_of(document):
    return f"{document['kind']}/{document['metadata']['name']}"


def check_lint():
    for environment in [None, *ENVIRONMENTS]:
        files = ["--values", HELM / "environments" / f"{environment}.yaml"] if environment else []
        base = {} if environment else BASE
        run = helm("lint", "--strict", CHART, *files, "--values", "-", values=base)
        report.check("helm lint --strict", environment or "defaults", run.stdout + run.stderr if run.returncode else None)


def check_documentation():
    text = (CHART / "values.yaml").read_text()
    for path in readme.undocumented(text):
        report.check("values documented", path, "has no comment above it in values.yaml")
    report.check("values documented", "all")

    def properties(schema, prefix=""):
        for name, inner in schema.get("properties", {}).items():
            yield prefix + name
            yield from properties(inner, prefix + name + ".")

    values = yaml.safe_load(text)
    in_values = {path for path, _ in readme.leaves(values)} | set(readme.groups(values))
    in_schema = set(properties(json.loads((CHART / "values.schema.json").read_text()))) - {"global"}
    report.check("values.schema.json has the same values", "all", ", ".join(sorted(in_values ^ in_schema)))

    path = CHART / "README.md"
    fresh = readme.render(path.read_text(), text)
    if UPDATE:
        path.write_text(fresh)
    report.check("README made from values.yaml", path.name, None if path.read_text() == fresh else "is stale: helm/tests/run --update")


def check_renders():
    """Every environment and combination for every version, by its schemas. Returns the renders of the last version."""
    renders, seen, customs = {}, set(), {}
    jobs = [(environment, {}, version, environment) for environment in ENVIRONMENTS for version in VERSIONS]
    jobs += [
        (name, merged(BASE, values), version, None)
        for name, (values, since) in FEATURES.items() for version in VERSIONS if version >= since
    ]
    for name, values, version, environment in jobs:
        subject = f"{name}, Kubernetes {version}"
        documents = rendered("renders for Kubernetes " + ", ".join(VERSIONS), subject, values, version, environment)
        renders[name] = documents
        for document in documents + [twin(document) for document in documents if document["kind"] == "Rollout"]:
            key = (version, json.dumps(document, sort_keys=True))
            if key in seen:
                continue
            seen.add(key)
            if document["apiVersion"].startswith(CRD_GROUPS):
                customs[key[1]] = (f"{subject}, {name_of(document)}", document)
            else:
                check_schema(document, version, f"{subject}, {name_of(document)}")
            for spec in pod_specs(document):
                report.check("Pod Security restricted", f"{subject}, {name_of(document)}", "; ".join(restricted.faults(spec)))
    for path in sorted((HELM / "argocd").glob("*.yaml")):
        customs[path.name] = (path.name, yaml.safe_load(path.read_text()))
    check_custom(list(customs.values()))
    check_restricted_itself(renders["defaults"])
    return renders


def check_schema(document, version, subject):
    fault = None
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        fault = f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        fault = error.message
    report.check("kubernetes-validate --strict", subject, fault)


def check_custom(subjects):
    row = "@kubernetes-models .validate(), field names"
    if not shutil.which("node") or not (TOOLS / "crds.stamp").exists():
        report.missing(row, "node and npm")
        return
    wrong = [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "spec": {"replicas": "two"}},
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "spec": {"strategy": {"canary": {"canaryservice": "a"}}}},
        {"apiVersion": "example.com/v1", "kind": "Unknown"},
    ]
    run = subprocess.run(
        ["node", TESTS / "crds.mjs", TOOLS / "npm"], input=json.dumps([document for _, document in subjects] + wrong),
        text=True, capture_output=True, check=False)
    if run.returncode:
        report.check(row, "crds.mjs", run.stderr)
        return
    answers = json.loads(run.stdout)
    for (subject, _), faults in zip(subjects, answers):
        report.check(row, subject, "; ".join(faults))
    for document, faults in zip(wrong, answers[len(subjects):]):
        report.check(row, "catches what is wrong", None if faults else f"lets pass {document}")


def check_restricted_itself(documents):
    sound = next((spec for document in documents if document["kind"] == "Deployment" for spec in pod_specs(document)), None)
    if not sound or restricted.faults(sound):
        report.check("Pod Security check catches", "anything", "there is no sound pod to spoil")
        return
    for name, spoil in restricted.BREAKS.items():
        spec = copy.deepcopy(sound)
        spoil(spec)
        report.check("Pod Security check catches", name, None if restricted.faults(spec) else "was not caught")


def check_checkov():
    """On the environments and on an image volume, with the digest that the release workflow adds."""
    folder = TOOLS / "checkov"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    scanned = {
        name: rendered("renders with a digest", name, merged(values, {"image": {"digest": DIGEST}}), environment=environment)
        for name, values, environment in (
            *((environment, {}, environment) for environment in ENVIRONMENTS), ("image-volume", merged(BASE, VOLUME), None))
    }
    for name, documents in scanned.items():
        named = [merged(twin(document), {"metadata": {"namespace": "hello"}}) for document in documents]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(named))
    run = subprocess.run(
        [sys.executable, "-m", "checkov.main", "--directory", folder, "--framework", "kubernetes", "--output", "json", "--quiet",
         "--skip-download"], text=True, capture_output=True, env={**os.environ, "LOG_LEVEL": "ERROR"}, check=False)
    row = "checkov, with the Rollout's Deployment twin"
    try:
        answer = json.loads(run.stdout)
        results, summary = answer["results"], answer["summary"]
    except (ValueError, KeyError, TypeError):
        report.check(row, "checkov", run.stdout[-2000:] + run.stderr[-2000:])
        return
    for _ in range(summary["passed"]):
        report.check(row, "")
    failing = set()
    for failed in results["failed_checks"]:
        key = (failed["resource"].split(".")[0], failed["check_id"])
        failing.add(key)
        if key not in CHECKOV_SKIPS:
            subject = f"{pathlib.Path(failed['file_path']).stem}, {failed['resource']}"
            report.check(row, subject, f"{failed['check_id']} {failed['check_name']}")
    for (kind, check), reason in CHECKOV_SKIPS.items():
        fault = None if (kind, check) in failing else "no longer fails: remove the skip"
        report.check("checkov skips with a reason, all needed", f"{kind} {check} ({reason})", fault)


def check_refusals():
    for name, (values, expected) in REFUSED.items():
        run = template(merged(BASE, values), REFUSED_BY.get(name, VERSIONS[-1]))
        fault = "was taken" if not run.returncode else f"says:\n{run.stderr}" if expected not in run.stderr else None
        report.check("wrong values refused, with the message", name, fault)
    # Every sentence of ours is among those above.
    sentences = re.findall(r'append \$faults \(?(?:printf )?"(.*?)"[ )]', (CHART / "templates" / "checks.yaml").read_text())
    said = " ".join(expected for _, expected in REFUSED.values())
    for sentence in sentences:
        opening = re.split(r"%q|%s|%d|%v", sentence)[0]
        report.check("every sentence of checks.yaml is tested", sentence, None if opening in said else "is not")


def check_rules(renders):
    """promtool on the rules, and their unit tests. These must also notice when the alerts are gone."""
    row, folder = "promtool check rules", TOOLS / "rules"
    if not shutil.which("promtool"):
        report.missing("promtool, rules and their unit tests", "promtool: apt-get install prometheus")
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def promtool(*arguments, document):
        (folder / "rendered.yaml").write_text(yaml.safe_dump(document))
        run = subprocess.run(["promtool", *arguments], cwd=folder, text=True, capture_output=True, check=False)
        return run.returncode, run.stdout + run.stderr

    for name, documents in renders.items():
        for document in promql.of_kind(documents, "PrometheusRule"):
            code, said = promtool("check", "rules", "rendered.yaml", document=document["spec"])
            report.check(row, name, said if code else None)
    row = "promtool test rules"
    shutil.copy(TESTS / "rules.yaml", folder)
    [rule] = promql.of_kind(renders["rules and dashboard"], "PrometheusRule")
    code, said = promtool("test", "rules", "rules.yaml", document=rule["spec"])
    report.check(row, "rules.yaml", said if code else None)
    alerts = [entry["alert"] for entry in promql.rules([rule]) if "alert" in entry]
    silent = copy.deepcopy(rule["spec"])
    for group in silent["groups"]:
        group["rules"] = [entry for entry in group["rules"] if "record" in entry]
    _, said = promtool("test", "rules", "rules.yaml", document=silent)
    for alert in alerts:
        report.check("unit tests miss an alert that is gone", alert, None if f'"{alert}"' in said else "nobody notices")


def check_queries():
    """On a machine that is busy with other things a sound pod may take 0.2 s as well; the slow one takes 0.5 s. Twice in a row is soon."""
    values = {"rollout": {"analysis": {"slowFloorSeconds": 0.25, "interval": f"{queries.INTERVAL}s"}}}
    queries.check(report, rendered("renders for the queries", "production", values, environment="production"), TOOLS)


def canary_table():
    """Nothing else but gate.py's table, by the chart's defaults."""
    renders = [rendered("renders", name, merged(BASE, FEATURES[name][0])) for name in GATES]
    if not all(renders) or not gate.table(*renders, TOOLS):
        sys.exit("\n".join(["the gate is not as it should be", *report.failures]))
    sys.exit()


def check_operator_pages(renders):
    """Both kinds of workload are in the stand-in, so that a page may speak of either."""
    documents = [document for name in ("existing secret", "production", "autoscaler on saturation") for document in renders[name]]
    documents = [document for document in documents if document["kind"] != "Secret"]  # a page makes its own
    operator_pages.check(report, documents, template, helm, TOOLS, HELM.parent)


def check_golden():
    for environment in ENVIRONMENTS:
        path = TESTS / "golden" / f"{environment}.yaml"
        # What is served in production changes with every release, by a pull request of its own.
        values = {"image": {"tag": "0.1.0", "digest": ""}} if environment == "production" else {}
        fresh = template(values, environment=environment).stdout
        if UPDATE:
            path.write_text(fresh)
        old = path.read_text() if path.exists() else ""
        changes = "".join(difflib.unified_diff(old.splitlines(True), fresh.splitlines(True), "golden", "now", n=2))
        report.check("golden renders", environment, changes and f"differs (helm/tests/run --update takes it over):\n{changes}")


def check_component_change():
    """A new component is a new tag and digest: the diff is the line that names them, in the workload and in the tests, and no other."""
    row = "a component-only change is the image line alone"
    other = DIGEST.replace("0", "f")
    before, after = {"image": {"tag": "1.0.0", "digest": DIGEST}}, {"image": {"tag": "1.1.0", "digest": other}}
    volume = {"component": {"volume": {"tag": "1.1.0", "digest": other}}}
    pairs = [(environment, before, after, environment) for environment in ENVIRONMENTS]
    pairs.append(("image volume", merged(BASE, VOLUME), merged(BASE, VOLUME, volume), None))
    for name, old, new, environment in pairs:
        lines = [template(values, environment=environment).stdout.splitlines() for values in (old, new)]
        changed = list({(one.strip(), two.strip()) for one, two in zip(*lines) if one != two})
        named = [re.sub(r"(:1\.[01]\.0)?@sha256:\w+$", "", line) for pair in changed for line in pair]
        sound = len(lines[0]) == len(lines[1]) and len(changed) == 1 and named[0] == named[1]
        report.check(row, name, None if sound and re.match("(image|reference): ", named[0]) else f"changes {changed}")


def main():
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without ending what was started
    if not (TOOLS / "helm").exists() and not shutil.which("helm"):
        sys.exit("helm is missing: install it (https://helm.sh), or run this on Linux on amd64")
    if "--canary-table" in sys.argv[2:]:
        canary_table()
    # It reads its largest file anew for every object.
    kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
    check_lint()
    check_documentation()
    renders = check_renders()
    check_refusals()
    check_component_change()
    promises.check(report, renders, template, merged, HELM)
    check_operator_pages(renders)
    check_rules(renders)
    check_queries()
    gate.check(report, *(renders[name] for name in GATES), TOOLS)
    check_golden()
    check_checkov()
    failed = report.print()
    print(f"({time.monotonic() - started:.0f} s)", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
