"""The operators' pages, docs/kubernetes.md and the chart's README: every command is run as it stands, in a copy of helm/, page by page.

What a block marks with `# needs a cluster` meets a stand-in: kubectl an API server that keeps objects and runs nothing, helm its own
memory, and of the plugin of Argo Rollouts only its command lines are there. Every other block has to do without.
"""

import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import yaml

import queries
from cases import DIGEST
from stand_in import StandIn

TESTS = pathlib.Path(__file__).resolve().parent
MARK = "# needs a cluster"
PRODUCTION = "helm/environments/production.yaml"
KUBERNETES = "docs/kubernetes.md"
# What the page of Kubernetes has to explain, and the command that this takes.
OPERATIONS = {
    "Install": "helm install", "Upgrade": "helm upgrade", "Watch": "kubectl argo rollouts get rollout .*--watch",
    "Abort": "kubectl argo rollouts abort", "Roll back": "helm rollback", "Rotate the token": "helm upgrade .*auth.existingSecret="}
# What a page may leave to its reader.
VARIABLES = {"COMMIT": "HEAD", "DIGEST": DIGEST}

# Blocks that have to fail.
BROKEN = {
    "no mark, kubectl": "kubectl get pods --namespace hello",
    "no mark, helm": f"helm install hello helm/hello --namespace hello --values {PRODUCTION}",
    "no mark, plugin": "kubectl argo rollouts abort hello --namespace hello",
    "fails before its end": "false\ntrue",
    "fails within a pipe": "helm template hello helm/hello | cat",
    "variable that nobody sets": "echo $TAG",
    **{what: f"{MARK}\n{command}" for what, command in {
        "flag of helm": f"helm upgrade hello helm/hello --namespace hello --values {PRODUCTION} --wiat",
        "value of the chart": f"helm upgrade hello helm/hello --namespace hello --values {PRODUCTION} --set imag.tag=1.2.3",
        "file of values": "helm upgrade hello helm/hello --namespace hello --values helm/environments/producton.yaml",
        "release": "helm rollback other --namespace hello",
        "flag of kubectl": "kubectl create secret generic a --namespace hello --from-fil=auth-tokens=/dev/null",
        "kind": "kubectl get rolouts --namespace hello",
        "deployment": "kubectl rollout status deployment/other --namespace hello",
        "namespace": "kubectl get pods --namespace helo",
        "metric": "kubectl get --raw '/apis/custom.metrics.k8s.io/v1beta1/namespaces/hello/pods/*/taffrail_saturation'",
        "rollout": "kubectl argo rollouts abort other --namespace hello",
        "command of the plugin": "kubectl argo rollouts stop hello --namespace hello",
        "flag of the plugin": "kubectl argo rollouts abort hello --namespace hello --watch",
    }.items()},
}


def pages(root):
    for name in (KUBERNETES, "helm/hello/README.md"):
        yield name, (root / name).read_text()


def mentioning(root):
    """Every page of the documents, in one text, but for the decisions: those on other tools name the flags of these."""
    pages = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return "\n".join(page.read_text() for page in pages if page.parent.name != "decisions")


def blocks(text):
    """Language and text of every block of code."""
    return re.findall(r"^```(\S*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def missing_operations(text):
    for heading, command in OPERATIONS.items():
        section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text + "\n", re.MULTILINE | re.DOTALL)
        scripts = [script for language, script in blocks(section[1]) if language == "sh"] if section else []
        if not any(re.search(f"^{command}", script, re.MULTILINE) for script in scripts):
            yield f"{heading}: {command}"


def hidden_commands(text):
    """What is not in a block is not run, so it must not look as if it could be."""
    yield from (f"a block of {language or 'no language'}" for language, _ in blocks(text) if language not in ("sh", "yaml", "json"))
    yield from (span for span in re.findall(r"`([^`\n]+)`", prose(text)) if re.match(r"(kubectl|helm|git|argocd) \S+ \S", span))


class Place:
    """Where the commands of a page run. It is a repository in which $COMMIT changed what production runs."""

    def __init__(self, folder, root, tools, helm):
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.work = folder, folder / "work"
        for name in ("bin", "cluster", "home", "work"):
            (folder / name).mkdir(parents=True)
        for name in ("argocd", "environments", "hello"):
            shutil.copytree(root / "helm" / name, self.work / "helm" / name)
        for name in ("helm", "kubectl"):
            (folder / "bin" / name).symlink_to(tools / name if (tools / name).exists() else shutil.which(name))
        self.production = (self.work / PRODUCTION).read_text()
        self.git("init", "--quiet")
        self.commit("before")
        changed = re.sub(r'^  tag: .*\n  digest: .*$', f'  tag: "9.9.9"\n  digest: "{DIGEST}"', self.production, flags=re.MULTILINE)
        (self.work / PRODUCTION).write_text(changed)
        self.commit("what $COMMIT is")
        self.release = json.loads(helm(
            "install", "--dry-run=client", "hello", root / "helm/hello", "--namespace", "hello", "--values", root / PRODUCTION,
            "--output", "json").stdout)
        self.kubeconfig("nowhere", "http://127.0.0.1:1")

    def git(self, *arguments):
        subprocess.run(["git", *arguments], cwd=self.work, env=self.environment(), check=True, capture_output=True)

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def environment(self, marked=False):
        places = [self.folder / "cluster"] * marked + [self.folder / "bin", "/usr/local/bin", "/usr/bin", "/bin"]
        who = {f"GIT_{role}_{what}": "nobody@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {**VARIABLES, **who, "PATH": ":".join(map(str, places)), "HOME": str(self.folder / "home"), "GIT_CONFIG_NOSYSTEM": "1",
                "KUBECONFIG": str(self.folder / ("somewhere" if marked else "nowhere"))}

    def kubeconfig(self, name, server):
        named = {"clusters": [{"name": "it", "cluster": {"server": server}}], "users": [{"name": "it", "user": {}}],
                 "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}], "current-context": "it"}
        (self.folder / name).write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **named}))

    def connect(self, cluster):
        """What is marked meets `cluster`, two revisions of the release, and a plugin."""
        self.kubeconfig("somewhere", cluster.address)
        (self.folder / "none").write_text("[]")
        revisions = [{**self.release, "version": version, "info": {**self.release["info"], "status": status}}
                     for version, status in ((1, "superseded"), (2, "deployed"))]
        (self.folder / "both").write_text(json.dumps(revisions))
        scripts = {
            "helm": f'case $1 in install) had=none ;; *) had=both ;; esac\n'
                    f'HELM_DRIVER=memory HELM_MEMORY_DRIVER_DATA={self.folder}/$had exec {self.folder}/bin/helm "$@"',
            "kubectl-argo-rollouts": f'exec {sys.executable} {TESTS}/argo_rollouts.py {cluster.address} "$@"',
        }
        for name, script in scripts.items():
            (self.folder / "cluster" / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.folder / "cluster" / name).chmod(0o755)

    def fault(self, script):
        """What is wrong with a block, if anything."""
        try:
            run = subprocess.run(
                ["bash", "-euo", "pipefail"], input=script, cwd=self.work, env=self.environment(script.startswith(f"{MARK}\n")),
                text=True, capture_output=True, timeout=queries.PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return f"does not end:\n{script}"
        return f"exit status {run.returncode}:\n{script}{run.stderr[-1000:]}" if run.returncode else None


def check_page(report, name, text, place, cluster, template):
    for language, script in blocks(text):
        subject = f"{name}: {script.splitlines()[0]}"
        if language == "sh":
            report.check("operators' pages: commands run as they stand", subject, place.fault(script))
        elif language == "yaml" and isinstance(values := yaml.safe_load(script), dict):
            run = template({"auth": {"existingSecret": "mine"}, **values})
            report.check("operators' pages: values render", subject, run.stderr if run.returncode else None)
    row = "operators' pages: after all of it"
    made = {document["metadata"]["name"]: document["data"] for document in cluster.objects.values() if document["kind"] == "Secret"}
    named = set(re.findall(r"auth\.existingSecret=([\w-]+)", text))
    for file in set(re.findall(r"--values (\S+)", "".join(script for _, script in blocks(text)))):
        named.add(yaml.safe_load((place.work / file).read_text())["auth"]["existingSecret"])
    report.check(row, f"{name}: a Secret that values name is made before", ", ".join(sorted(named - set(made))))
    if "git revert" in text:
        same = (place.work / PRODUCTION).read_text() == place.production
        report.check(row, f"{name}: production runs what it ran before $COMMIT", None if same else "it does not")
    return made


def check_rotation(report, secrets, folder):
    """The Secrets that the page of Kubernetes makes, each given to a real host."""
    row = "operators' pages: the tokens of each Secret, at a real host"
    binary, hello = (os.environ.get(f"TAFFRAIL_{name}", "") for name in ("BINARY", "COMPONENT"))
    if not (os.path.isfile(binary) and os.path.isfile(hello)):
        report.missing(row, "built host and component: make chart-test")
        return
    contents = [base64.b64decode(data["auth-tokens"]).decode() for _, data in sorted(secrets.items())]
    lines = [content.splitlines() for content in contents]
    old, new = lines[0][0], lines[-1][0]
    report.check(row, "they are the old one, both, the new one", None if lines == [[old], [old, new], [new]] and old != new else f"{lines}")
    for name, content, opens in zip(sorted(secrets), contents, ((200, 403), (200, 200), (403, 200))):
        (folder / name).mkdir()
        (folder / name / "auth-tokens").write_text(content)
        with contextlib.ExitStack() as ending:
            pod = queries.Pod(binary, hello, "--config-dir", folder / name)
            ending.callback(pod.end)
            found = tuple(pod.ask("/app", token) for token in (old, new))
        report.check(row, name, None if found == opens else f"the old and the new token get {found}, not {opens}")


def check_mentions(report, text, root):
    """Flags of the host and targets of make that the documents name."""
    row = "operators' pages: flags and targets exist"
    scripts = "\n".join(script for language, script in blocks(text) if language == "sh")
    targets = set(re.findall(r"`make ([a-z-]+)", prose(text))) | set(re.findall(r"^make ([a-z-]+)", scripts, re.MULTILINE))
    there = set(re.findall(r"^([a-z-]+):.*## ", (root / "Makefile").read_text(), re.MULTILINE))
    report.check(row, "make", ", ".join(sorted(targets - there)) or None if targets else "none is named")
    binary = os.environ.get("TAFFRAIL_BINARY", "")
    if not os.path.isfile(binary):
        report.missing(row, "built host in TAFFRAIL_BINARY: make chart-test")
        return

    def flags(*command):
        run = subprocess.run([binary, *command, "--help"], text=True, capture_output=True, check=False)
        return set(re.findall(r"(--[a-z0-9-]+)", run.stdout)) if run.returncode == 0 else None

    named = set(re.findall(r"`(--[a-z0-9-]+)", prose(text)))
    report.check(row, "taffrail serve", ", ".join(sorted(named - (flags("serve") or set()))) or None if named else "none is named")
    spans = set(re.findall(r"`taffrail ([^`\n]+)`", prose(text))) | set(re.findall(r"release/taffrail ([^#\n]+)", scripts))
    for span in sorted(spans):
        command, *given = span.split()
        there = flags(command)
        given = {flag for flag in given if flag.startswith("--")}
        report.check(row, f"taffrail {span}", "is no command" if there is None else ", ".join(sorted(given - there)))


def check_itself(report, place, text):
    row = "operators' pages: the check catches"
    for what, script in BROKEN.items():
        report.check(row, what, None if place.fault(script) else f"lets pass\n{script}")
    for heading in OPERATIONS:
        spoiled = text.replace(f"## {heading}\n", "## Else\n")
        report.check(row, f"no {heading}", None if list(missing_operations(spoiled)) else "nobody notices")
    for what, hidden in {"command in a sentence": "`helm rollback hello`", "block of no language": "```\nhelm rollback hello\n```"}.items():
        report.check(row, what, None if list(hidden_commands(f"{text}\n{hidden}\n")) else "nobody notices")


def check(report, documents, template, helm, tools, root):
    """`documents` are what is installed in the stand-in."""
    row = "operators' pages: commands run as they stand"
    for tool in ("kubectl", "helm", "git"):
        if not (tools / tool).exists() and not shutil.which(tool):
            report.missing(row, tool)
            return
    for name, text in pages(root):
        report.check("operators' pages: every command is in a block", name, ", ".join(hidden_commands(text)))
        place = Place(tools / "pages", root, tools, helm)
        with StandIn(documents, "hello") as cluster:
            place.connect(cluster)
            secrets = check_page(report, name, text, place, cluster, template)
            if name == KUBERNETES:
                report.check("operators' pages: what they have to explain", name, "; ".join(missing_operations(text)))
                check_itself(report, place, text)
        if name == KUBERNETES:
            check_mentions(report, mentioning(root), root)
            check_rotation(report, secrets, place.folder)
