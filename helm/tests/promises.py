"""What the chart promises beyond valid objects: each function is one promise, and yields its subject and its fault, if any."""

import base64
import copy
import re

import yaml

import watching
from cases import BASE, FEATURES, NEXT_TOKEN, TOKEN


def one(documents, kind, name="hello"):
    found = [document for document in documents if document["kind"] == kind and document["metadata"]["name"] == name]
    return found[0] if len(found) == 1 else None


def workload(documents):
    return next(document for document in documents if document["kind"] in ("Deployment", "Rollout"))


def environment_of(document):
    return {entry["name"]: entry["value"] for entry in document["spec"]["template"]["spec"]["containers"][0]["env"]}


def grace_period_covers_the_drain(renders, **_):
    for name, documents in renders.items():
        pods = workload(documents)
        variables = environment_of(pods)
        drain = sum(int(variables[f"TAFFRAIL_DRAIN_{part}"].removesuffix("s")) for part in ("DELAY", "TIMEOUT"))
        grace = pods["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        yield name, None if grace == drain + 5 else f"{grace} s for a drain of {drain} s"


def variables_and_probes_are_the_hosts(renders, root, **_):
    known = set(re.findall(r'"(TAFFRAIL_\w+)"', watching.source(root, "cli") + watching.source(root, "config")))
    paths = set(re.findall(r'const \w+: &str = "(/\w+)";', watching.source(root, "admin")))
    used = set().union(*(environment_of(workload(documents)) for documents in renders.values()))
    yield "variables", ", ".join(sorted(used - known))
    listed = re.findall(r'\$ours.*', (root / "helm/hello/templates/checks.yaml").read_text())
    ours = {f"TAFFRAIL_{name}" for line in listed for name in re.findall(r'"([A-Z_]+)"', line)}
    more = set(FEATURES["every host flag"][0]["taffrail"]["more"])
    yield "variables that taffrail.more may not name", ", ".join(sorted(ours ^ (used - more)))
    for name, documents in renders.items():
        container = workload(documents)["spec"]["template"]["spec"]["containers"][0]
        probes = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "readiness", "liveness")}
        unknown = [probe["path"] for probe in probes.values() if probe["path"] not in paths or probe["port"] != "admin"]
        right = [probes[probe]["path"] for probe in ("startup", "readiness", "liveness")] == ["/readyz", "/readyz", "/livez"]
        yield name, unknown or (None if right else f"probes {probes}")


def deployment_and_rollout_share_the_pod_template(render, **_):
    templates = []
    for values in ({}, {"rollout": {"enabled": True, "steps": [50]}}):
        pod = copy.deepcopy(workload(render(values))["spec"]["template"])
        for constraint in pod["spec"]["topologySpreadConstraints"]:
            del constraint["matchLabelKeys"]  # each names the label of its own controller
        templates.append(pod)
    yield "all but the pod hash label", None if templates[0] == templates[1] else "they differ"


def autoscaler_owns_the_number_of_pods(renders, **_):
    for name, documents in renders.items():
        pods, scaler = workload(documents), one(documents, "HorizontalPodAutoscaler")
        if scaler:
            target = scaler["spec"]["scaleTargetRef"]
            same = (target["apiVersion"], target["kind"], target["name"]) == (pods["apiVersion"], pods["kind"], "hello")
            yield name, None if same and "replicas" not in pods["spec"] else f"scales {target}"
        else:
            yield name, None if pods["spec"].get("replicas") else "nobody says how many pods"


def the_controller_takes_the_rollout(renders, **_):
    for name, documents in renders.items():
        if not (rollout := one(documents, "Rollout")):
            continue
        spec, canary = rollout["spec"], rollout["spec"]["strategy"]["canary"]
        routed = "trafficRouting" in canary
        yield name, None if ("scaleDownDelaySeconds" in canary) == routed else "scaleDownDelaySeconds goes with traffic routing"
        if routed:
            yield name, None if canary["scaleDownDelaySeconds"] >= 60 else "the old pods leave too early"
        yield name, None if "workloadRef" not in spec and "dynamicStableScale" not in canary else "is not for use with an autoscaler"
        yield name, None if spec["progressDeadlineAbort"] else "does not go back"
        # It judges by creation time alone: a revert would land, unjudged, on a version that was aborted.
        yield name, "a revert passes by the canary" if "rollbackWindow" in spec else None
        services = [one(documents, "Service", canary[role]) for role in ("stableService", "canaryService")]
        yield name, None if all(services) else "a Service is missing"
        ours = [service["metadata"]["name"] for service in services if "selector" in service["spec"]]
        yield name, f"server-side apply conflicts with the controller over the selector of {ours}" if ours else None
        steps, judged = [next(iter(step)) for step in canary["steps"]], "analysis" in canary
        yield name, None if steps == ["setWeight", "analysis" if judged else "pause"] * (len(steps) // 2) else f"steps {steps}"
        if backend := canary.get("trafficRouting", {}).get("nginx"):
            rule = one(documents, "Ingress", backend["stableIngress"])["spec"]["rules"][0]["http"]["paths"][0]
            yield name, None if rule["backend"]["service"]["name"] == canary["stableService"] else "the Ingress misses stable"
        if plugins := canary.get("trafficRouting", {}).get("plugins"):
            route = one(documents, "HTTPRoute", plugins["argoproj-labs/gatewayAPI"]["httpRoute"])
            weights = {backend["name"]: backend["weight"] for backend in route["spec"]["rules"][0]["backendRefs"]}
            yield name, None if weights == {canary["stableService"]: 100, canary["canaryService"]: 0} else f"weights {weights}"


def no_update_takes_a_pod_away_and_no_drain_is_blocked(renders, **_):
    for name, documents in renders.items():
        spec = workload(documents)["spec"]
        strategy = spec["strategy"].get("canary") or spec["strategy"]["rollingUpdate"]
        yield name, None if strategy["maxUnavailable"] == 0 and spec["revisionHistoryLimit"] == 5 else f"{strategy}"
        if budget := one(documents, "PodDisruptionBudget"):
            sound = str(budget["spec"]["maxUnavailable"]) not in ("0", "0%")
            yield name, None if sound and budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" else "may block a drain"


def routes_write_out_their_defaults(renders, **_):
    for name, documents in renders.items():
        if route := one(documents, "HTTPRoute"):
            parents = all({"group", "kind"} <= set(parent) for parent in route["spec"]["parentRefs"])
            backends = [backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]]
            full = all({"group", "kind", "name", "port", "weight"} <= set(backend) for backend in backends)
            yield name, None if parents and full else "leaves a default to the API server"


def no_pod_of_a_test_is_served_to_clients(renders, **_):
    for name, documents in renders.items():
        tests = [document for document in documents if document["kind"] == "Pod"]
        for selecting in (document["spec"] for document in documents if document["kind"] == "Service"):
            # Without one of ours it is the controller that says: the pods of a version, by their hash.
            wanted = selecting.get("selector", {"rollouts-pod-template-hash": "1"}).items()
            caught = [test for test in tests if wanted <= test["metadata"]["labels"].items()]
            yield name, None if not caught else f"a Service selects {caught[0]['metadata']['name']}"


def a_test_runs_the_image_under_test(renders, **_):
    for name, documents in renders.items():
        pods = workload(documents)["spec"]["template"]["spec"]
        for test in (document for document in documents if document["kind"] == "Pod"):
            subject, containers = f"{name}, {test['metadata']['name']}", test["spec"]["containers"]
            images = {container["image"] for container in containers}
            yield subject, None if images == {pods["containers"][0]["image"]} else f"runs {images}"
            same = test["spec"].get("imagePullSecrets") == pods.get("imagePullSecrets")
            yield subject, None if same else "cannot pull it"
            asks = all(container["args"][0] == "probe" and container["args"][1].startswith("http://") and "command" not in container for container in containers)
            yield subject, None if asks else "does not ask by probe"
            token = "--header-file" in str(containers)
            yield subject, None if token == bool(test["spec"].get("volumes")) else "the tokens are mounted where none is needed, or missing"


def tokens_are_named_by_their_content(render, **_):
    names = []
    for tokens in ([TOKEN], [TOKEN, NEXT_TOKEN], [TOKEN]):
        documents = render({"auth": {"tokens": tokens}})
        volume = workload(documents)["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"]
        secret = one(documents, "Secret", volume)
        lines = base64.b64decode(secret["data"]["auth-tokens"]).decode().splitlines() if secret else None
        yield f"{len(tokens)} tokens", None if lines == tokens else f"the pods get {lines}"
        annotations = secret["metadata"]["annotations"]
        yield f"{len(tokens)} tokens", None if annotations["argocd.argoproj.io/sync-options"] == "Prune=false" else "Argo CD would take it away"
        extra = annotations["argocd.argoproj.io/compare-options"]
        yield f"{len(tokens)} tokens", None if extra == "IgnoreExtraneous" else "an old one would leave the Application out of sync"
        names.append(volume)
    yield "names", None if names[0] == names[2] != names[1] else f"{names}"
    canary = [document for document in render({"rollout": {"enabled": True, "steps": [50]}}) if document["kind"] == "Secret"]
    kept = canary[0]["metadata"]["annotations"].get("helm.sh/resource-policy")
    yield "of a Rollout", None if kept == "keep" else "Helm would take the stable pods' tokens away while a canary runs"


def a_scrape_tells_canary_from_stable(renders, **_):
    for name, documents in renders.items():
        if not (monitor := one(documents, "ServiceMonitor")):
            continue
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [document for document in documents if document["kind"] == "Service" and wanted <= document["metadata"]["labels"].items()]
        yield name, None if [service["metadata"]["name"] for service in found] == ["hello-metrics"] else "a pod is scraped twice, or never"
        [endpoint] = monitor["spec"]["endpoints"]
        label = {"sourceLabels": ["__meta_kubernetes_pod_label_rollouts_pod_template_hash"], "targetLabel": "rollouts_pod_template_hash"}
        yield name, None if any(label.items() <= rule.items() for rule in endpoint["relabelings"]) else "the pod hash is lost"
        yield name, None if endpoint["port"] in [port["name"] for port in found[0]["spec"]["ports"]] else "no such port"


def the_network_denies_what_is_not_named(renders, **_):
    for name, documents in renders.items():
        if not (policy := one(documents, "NetworkPolicy")):
            yield name, None if name == "bare" else "there is no policy"
            continue
        spec = policy["spec"]
        open_ports = {port["port"] for rule in spec["ingress"] for port in rule["ports"]}
        expected = {"http", "admin"} if one(documents, "ServiceMonitor") else {"http"}
        yield name, None if spec["policyTypes"] == ["Ingress", "Egress"] and open_ports == expected else f"opens {open_ports}"
        yield name, None if "egress" not in spec or name == "network peers" else "lets the pods call out"
        selected = workload(documents)["spec"]["template"]["metadata"]["labels"].items()
        yield name, None if spec["podSelector"]["matchLabels"].items() <= selected else "is about other pods"


def no_token_comes_with_the_chart(renders, helm, **_):
    secrets = [document for document in renders["existing secret"] if document["kind"] == "Secret"]
    yield "existing secret", None if not secrets else "a Secret is rendered"
    demo = (helm.parent / "component/demo-config/auth-tokens").read_text().strip()
    for path in sorted(path for path in helm.rglob("*") if path.is_file()):
        yield path.name, None if demo not in path.read_text() else "holds the demonstration token"


def argo_cd_may_deploy_what_the_chart_renders(renders, helm, **_):
    folder = helm / "argocd"
    project = yaml.safe_load((folder / "project.yaml").read_text())["spec"]
    allowed = {(entry["group"], entry["kind"]) for entry in project["namespaceResourceWhitelist"]}
    group = lambda document: document["apiVersion"].rpartition("/")[0]
    kinds = {(group(document), document["kind"]) for documents in renders.values() for document in documents}
    kinds -= {("", "Pod")}  # the pods of helm test, which Argo CD leaves out
    kinds |= {("", "Pod"), ("apps", "ReplicaSet"), ("argoproj.io", "AnalysisRun")}  # shown below what made them
    yield "every kind and no other", ", ".join(map(str, sorted(kinds ^ allowed)))
    for environment in ("dev", "staging", "production"):
        application = yaml.safe_load((folder / f"{environment}.yaml").read_text())["spec"]
        source, namespace = application["source"], application["destination"]["namespace"]
        files = [helm.parent / source["path"] / file for file in source["helm"]["valueFiles"]]
        yield environment, None if all(file.resolve().is_file() for file in files) else f"{files} are not here"
        yield environment, None if source["repoURL"] in project["sourceRepos"] else "a repository of its own"
        yield environment, None if namespace in [place["namespace"] for place in project["destinations"]] else "no such place"
        options = application["syncPolicy"]["syncOptions"]
        yield environment, None if "PruneLast=true" not in options else "a commit waits for the canary before it"
        serving = [document for document in renders[environment] if document["kind"] in ("Deployment", "Rollout", "Service")]
        early = [document["metadata"]["name"] for document in serving if "-metrics" not in document["metadata"]["name"]
                 and (document["metadata"].get("annotations") or {}).get("argocd.argoproj.io/sync-options") != "PruneLast=true"]
        yield environment, None if serving and not early else f"{early} would go before their successors serve"
        ignored = {entry["kind"] for entry in application.get("ignoreDifferences", [])}
        documents = renders[environment]
        needed = set()  # what the controller adds to Services is in no manifest, and so no difference
        if one(documents, "HTTPRoute") and "trafficRouting" in workload(documents)["spec"]["strategy"].get("canary", {}):
            needed.add("HTTPRoute")
        yield environment, None if ignored == needed else f"ignores {ignored}, and a canary changes {needed}"


def notes_fit_what_was_installed(notes, **_):
    for name in ("defaults", "ingress, issuer", "rollout by gateway", "analysis", "bare"):
        run = notes(FEATURES[name][0])
        yield name, run.stderr if run.returncode else None
        rollout = "kubectl argo rollouts" in run.stdout
        yield name, None if rollout == (name in ("rollout by gateway", "analysis")) else "the notes speak of another kind"
        judged = "kubectl get analysisruns" in run.stdout
        yield name, None if judged == (name == "analysis") else "the notes speak of an analysis"


def the_lines_of_production_are_all_there(renders, **_):
    kinds = [document["kind"] for document in renders["production"]]
    wanted = ["Rollout", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "HTTPRoute", "ServiceMonitor", "PrometheusRule",
              "AnalysisTemplate", "ConfigMap"]
    yield "kinds", ", ".join(kind for kind in wanted if kind not in kinds)
    for name in ("hello", "hello-stable", "hello-canary"):
        yield name, None if one(renders["production"], "Service", name) else "is missing"


PROMISES = [
    grace_period_covers_the_drain, variables_and_probes_are_the_hosts, deployment_and_rollout_share_the_pod_template,
    autoscaler_owns_the_number_of_pods, the_controller_takes_the_rollout, no_update_takes_a_pod_away_and_no_drain_is_blocked,
    routes_write_out_their_defaults, no_pod_of_a_test_is_served_to_clients, a_test_runs_the_image_under_test, tokens_are_named_by_their_content,
    a_scrape_tells_canary_from_stable, the_network_denies_what_is_not_named, no_token_comes_with_the_chart, argo_cd_may_deploy_what_the_chart_renders,
    notes_fit_what_was_installed, the_lines_of_production_are_all_there, *watching.PROMISES,
]


def check(report, renders, template, merged, helm):
    def render(values):
        return [document for document in yaml.safe_load_all(template(merged(BASE, values)).stdout) if document]

    def notes(values):
        return template(merged(BASE, values), notes=True)

    # The objects of "names" have other names; a render that failed has been counted.
    renamed = {name: documents for name, documents in renders.items() if documents and name != "names"}
    for promise in PROMISES:
        row = promise.__name__.replace("_", " ")
        try:
            for subject, fault in promise(renders=renamed, render=render, notes=notes, helm=helm, root=helm.parent):
                report.check(row, subject, fault)
        except Exception as error:  # something is not there at all; the other promises still get their say
            report.check(row, "cannot be checked", repr(error))
