"""What the chart promises about watching: analysis, rules, dashboard. Promises as in promises.py."""

import json
import math
import re

import promql
from cases import FEATURES, MONITOR


def source(root, module):
    """What the host's sources say in a module, be it a file or a folder; without its tests."""
    folder = root / "host/src"
    files = [*folder.glob(f"{module}.rs"), *sorted(folder.glob(f"{module}/*.rs"))]
    return "\n".join(path.read_text().split("#[cfg(test)]\nmod tests")[0] for path in files)


def named(documents, kind, name):
    return next((document for document in promql.of_kind(documents, kind) if document["metadata"]["name"] == name), None)


def a_canary_is_judged_at_every_step_and_in_between(renders, **_):
    hashes = [{"name": f"{name}-hash", "valueFrom": {"podTemplateHashValue": value}}
              for name, value in (("canary", "Latest"), ("stable", "Stable"))]
    for name, documents in renders.items():
        for rollout in promql.of_kind(documents, "Rollout"):
            canary = rollout["spec"]["strategy"]["canary"]
            kinds = [next(iter(step)) for step in canary["steps"]]
            judged = bool(promql.of_kind(documents, "AnalysisTemplate"))
            expected = ["setWeight", "analysis" if judged else "pause"] * (len(kinds) // 2)
            yield name, None if kinds == expected and ("analysis" in canary) == judged else f"steps {kinds}"
            if not judged:
                continue
            used = {"step": [step["analysis"] for step in canary["steps"] if "analysis" in step], "background": [canary["analysis"]]}
            yield name, None if canary["analysis"]["startingStep"] == 1 else "begins before there is a canary"
            for purpose, analyses in used.items():
                templates = [{"templateName": f"hello-{purpose}"}]
                sound = all(analysis["templates"] == templates and analysis["args"] == hashes for analysis in analyses)
                template = named(documents, "AnalysisTemplate", f"hello-{purpose}")
                arguments = template and [argument["name"] for argument in template["spec"]["args"]]
                yield name, None if sound and arguments == ["canary-hash", "stable-hash"] else f"{purpose}: {analyses}"
    weights = [step["setWeight"] for step in promql.of_kind(renders["production"], "Rollout")[0]["spec"]["strategy"]["canary"]["steps"][::2]]
    yield "production", None if weights == [5, 25, 50] else f"weights {weights}"
    yield "production", None if promql.of_kind(renders["production"], "AnalysisTemplate") else "nothing is judged"


def without_data_a_canary_waits(renders, **_):
    """It stays in its step and armed: nothing pauses it, and nothing passes it either."""
    for name, documents in renders.items():
        for template, metric in promql.gates(documents):
            subject = f"{name}, {template}, {metric['name']}"
            phases = {str(result): promql.phase(metric, result) for result in ([], [math.nan], [0.5], [0.0], [1.0])}
            wanted = {"[]": "Inconclusive", "[nan]": "Inconclusive", "[0.5]": "Inconclusive", "[0.0]": "Successful", "[1.0]": "Failed"}
            yield subject, None if phases == wanted else f"{phases}"
            query = metric["provider"]["prometheus"]["query"]
            yield subject, None if query.rstrip().endswith("or vector(NaN)") else "has no answer without data"
            yield subject, None if metric["inconclusiveLimit"] > 100_000 else "pauses without data"
            yield subject, None if metric["failureLimit"] == 0 else "a verdict is not the end"
            # As Rollouts 1.9.1 validates: a step has a count, which is no less than either limit; the background needs none.
            ends, count = metric.get("consecutiveSuccessLimit", 0), metric.get("count", 0)
            taken = 0 < ends <= metric["inconclusiveLimit"] <= count if template == "hello-step" else ends == count == 0
            yield subject, None if taken else "a step has to end by good measurements, and the background must not"
        for template, metric in promql.metrics_of_analysis(documents):
            if "failureCondition" not in metric:
                sound = template == "hello-background" and not {"successCondition", "count", "consecutiveSuccessLimit"} & set(metric)
                yield f"{name}, {template}, {metric['name']}", None if sound else "judges, or keeps a step from its end"


def canary_and_stable_are_told_apart(renders, **_):
    for name, documents in renders.items():
        monitors = promql.of_kind(documents, "ServiceMonitor")
        for template, metric in promql.metrics_of_analysis(documents):
            _, labels = promql.names(metric["provider"]["prometheus"]["query"])
            [relabeled] = [rule["targetLabel"] for rule in monitors[0]["spec"]["endpoints"][0]["relabelings"]]
            hashes = {value for label, _, value in labels if label == relabeled}
            canary, stable = "{{args.canary-hash}}", "{{args.stable-hash}}"
            alone = {"saturated": {canary}, "saturation-percent-canary": {canary}, "failed-percent-canary": {canary},
                     "slow-percent-canary": {canary, stable}, "failed-percent-stable": {stable}, "slow-percent-stable": {stable}}
            if name.endswith("value"):  # the bound is given, and not stable's
                alone["slow-percent-canary"] = {canary}
            expected = alone.get(metric["name"], {canary, stable, f"{canary}|{stable}"})
            yield f"{name}, {template}, {metric['name']}", None if hashes == expected else f"asks for {hashes}"


def the_edges_are_those_of_the_host(root, **_):
    [listed] = re.findall(r'define "hello.edges" -}}\n(.*)\n', (root / "helm/hello/templates/_queries.tpl").read_text())
    [host] = re.findall(r"^const SECONDS: \[f64; \d+\] =\s*\[(.*?)\];", source(root, "telemetry/metrics"), re.MULTILINE | re.DOTALL)
    ours, theirs = ([float(edge) for edge in re.split(r"[, ]+", edges.strip())] for edges in (listed, host))
    yield "the chart's list", None if ours == theirs else f"{ours}, and the host has {theirs}"


def the_bound_of_what_is_slow_is_an_edge(render, **_):
    analysis = FEATURES["analysis"][0]
    def edges(**given):
        rollout = {**analysis["rollout"], "analysis": {**analysis["rollout"]["analysis"], **given}}
        query = next(metric for _, metric in promql.gates(render({**analysis, "rollout": rollout})) if metric["name"] == "slower-than-stable")
        _, labels = promql.names(query["provider"]["prometheus"]["query"])
        return {value for label, sign, value in labels if (label, sign) == ("le", "=~")}
    wanted = "0[.]05|0[.]1|0[.]25|0[.]5|1([.]0)?|2[.]5|5([.]0)?|10([.]0)?|20([.]0)?|30([.]0)?|[+]Inf"
    yield "by default", None if edges() == {wanted} else f"{edges()}"
    yield "from 3 s", None if edges(slowFloorSeconds=3) == {wanted[wanted.index("5([") :]} else f"{edges(slowFloorSeconds=3)}"
    yield "given", None if edges(slowSeconds=1) == {"1([.]0)?"} else f"{edges(slowSeconds=1)}"


def queries_ask_for_what_the_host_has(renders, root, **_):
    metrics = source(root, "telemetry/metrics")
    known = set(re.findall(r'"([a-z][a-z_]+)"', metrics))
    sets = re.findall(r"EncodeLabelSet\)\]\n(?:pub(?:\(crate\))? )?struct \w+ \{(.*?)\n\}", metrics, re.DOTALL)
    labels = set(re.findall(r"^ +(?:pub(?:\(crate\))? )?(\w+):", "\n".join(sets), re.MULTILINE))
    labels |= set(re.findall(r'sub_registry_with_label\(\("(\w+)"', metrics))
    reasons = {"ok", *re.findall(r'"((?:client|guest|host)_\w+)"', source(root, "error"))}
    read = {"taffrail_http_requests_total": "http_requests" in known, "label code": "code" in labels, "label component": "component" in labels,
            "reason": "guest_trapped" in reasons}
    yield "the sources are read", ", ".join(name for name, found in read.items() if not found)
    for name, documents in renders.items():
        recorded = {rule["record"] for rule in promql.rules(documents) if "record" in rule}
        relabeled = {rule["targetLabel"] for monitor in promql.of_kind(documents, "ServiceMonitor")
                     for rule in monitor["spec"]["endpoints"][0]["relabelings"]}
        scope = [{("namespace", "=", "hello"), ("service", "=", "hello-metrics")},
                 {("namespace", "=", "$namespace"), ("service", "=", "${release}-metrics")}]
        for subject, query in promql.all_queries(documents):
            used, matched = promql.names(query)
            bases = {metric: re.sub(r"_(total|bucket|count|sum)$", "", metric.removeprefix("taffrail_")) for metric in used}
            unknown = {metric for metric, base in bases.items() if not (
                metric in recorded | {"up"} or base in known and metric.startswith(("taffrail_", "process_")))}
            unknown |= {label for label, _, _ in matched} - labels - relabeled - promql.LABELS_OF_PROMETHEUS
            unknown |= {value for label, sign, value in matched if label == "reason" and not any(re.fullmatch(value, reason) for reason in reasons)}
            yield f"{name}, {subject}", ", ".join(sorted(unknown))
            yield f"{name}, {subject}", None if used and any(pods <= matched for pods in scope) else "is about other releases too"


def every_alert_says_what_to_do(renders, **_):
    for name, documents in renders.items():
        alerts = [rule for rule in promql.rules(documents) if "alert" in rule]
        yield name, None if len({rule["alert"] for rule in alerts}) == len(alerts) else "two have the same name"
        for rule in alerts:
            said = rule["annotations"]
            sound = said["summary"] and said["runbook"].endswith(".") and rule["labels"]["severity"] in ("critical", "warning")
            yield f"{name}, {rule['alert']}", None if sound else f"{rule}"
            named_labels = set(re.findall(r"\$labels\.(\w+)", str(said)))
            kept = {"pod"} if "by (" not in rule["expr"] else set()
            yield f"{name}, {rule['alert']}", None if named_labels <= kept else f"speaks of {named_labels}, which it has not"
    changed = FEATURES["rules and dashboard, every value"][0]["prometheusRule"]
    text = " ".join(rule["expr"] for rule in promql.rules(renders["rules and dashboard, every value"]))
    for limit in ("guestFailureRatio", "hostFailureRatio", "p99Seconds", "saturationRatio", "forbiddenDifference"):
        yield limit, None if f"> {changed[limit]}\n" in text else "changes nothing"


def every_limit_of_the_analysis_counts(renders, **_):
    given = FEATURES["analysis by pods, every value"][0]["rollout"]
    values = given["analysis"]
    fewest = [f">= {values['minRequests']}", f"clamp_min({values['standardErrors']} * sqrt(", f"), {values['leastDifference']})", f">= {values['minFailures']}\n"]
    wanted = {"fails-more-than-stable": [*fewest, f"> {values['failureCeiling']}\n", f"< {values['minRequests']}\n"],
              "slower-than-stable": [*fewest, f"> {values['failureCeiling']}\n", f'le=~"{values["slowSeconds"]}"'.replace(".", "[.]")], "saturated": [f"> {values['saturationRatio']}\n"]}
    for template, metric in promql.metrics_of_analysis(renders["analysis by pods, every value"]):
        subject = f"{template}, {metric['name']}"
        asks, query = metric["provider"]["prometheus"], metric["provider"]["prometheus"]["query"]
        pace = (metric["initialDelay"], metric["interval"], metric.get("consecutiveSuccessLimit"))
        step = (given["pause"], values["interval"], values["count"])
        yield subject, None if pace == (step if template == "hello-step" else (values["interval"], values["interval"], None)) else f"pace {pace}"
        # The controller asks again after 10 s.
        away = (metric["consecutiveErrorLimit"] - 1) * 10 < values["prometheusAwaySeconds"] <= metric["consecutiveErrorLimit"] * 10
        yield subject, None if away and 0 < asks["timeout"] <= 10 and asks["address"] == values["prometheus"] else f"{asks}"
        windows = set(re.findall(r"offset (\w+)|\[(\w+)\]", query))
        yield subject, None if {one or other for one, other in windows} == {values["window"]} else f"looks back {windows}"
        twice = set(re.findall(r"\[(\w+:\w+)\]", query))
        yield subject, None if twice == ({"60s:30s"} if "failureCondition" in metric else set()) else f"not twice in a row: {twice}"
        yield subject, ", ".join(text for text in wanted.get(metric["name"], []) if text not in query)


def the_dashboard_is_whole(renders, render, **_):
    [board] = promql.dashboards(renders["rules and dashboard"])
    variables = [variable["name"] for variable in board["templating"]["list"]]
    yield "variables", None if variables == ["datasource", "namespace", "release"] else f"{variables}"
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - {"__rate_interval"}
    yield "variables used", ", ".join(used - set(variables))
    places, ids = set(), set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        places.add((at["x"], at["y"]))
        ids.add(panel["id"])
        sound = at["x"] + at["w"] <= 24 and panel["datasource"]["uid"] == "${datasource}" and panel["targets"]
        yield panel["title"], None if sound and panel["fieldConfig"]["defaults"]["unit"] else f"{panel}"
    count = len(board["panels"])
    yield "places and ids", None if len(places) == len(ids) == count >= 10 else "two panels are one"
    for name, label in (("rules and dashboard", ("grafana_dashboard", "1")), ("rules and dashboard, every value", ("grafana", "yes"))):
        holder = named(renders[name], "ConfigMap", "hello-dashboard")
        yield name, None if label in holder["metadata"]["labels"].items() else "the sidecar does not find it"
    other = {**MONITOR, "grafanaDashboard": {"enabled": True}, "fullnameOverride": "other"}
    [second] = promql.dashboards(render(other))
    yield "another release", None if second["uid"] != board["uid"] and len(board["uid"]) <= 40 else "has the same uid"


def the_autoscaler_knows_saturation(renders, **_):
    for name in ("autoscaler", "autoscaler on saturation"):
        [scaler] = promql.of_kind(renders[name], "HorizontalPodAutoscaler")
        pods = [metric["pods"] for metric in scaler["spec"]["metrics"] if metric["type"] == "Pods"]
        share = {"metric": {"name": "taffrail_saturation_ratio"}, "target": {"type": "AverageValue", "averageValue": "600m"}}
        kinds = [metric["type"] for metric in scaler["spec"]["metrics"]]
        yield name, None if kinds[0] == "Resource" and pods == ([share] if "saturation" in name else []) else f"{kinds}"


PROMISES = [
    a_canary_is_judged_at_every_step_and_in_between, without_data_a_canary_waits, canary_and_stable_are_told_apart,
    queries_ask_for_what_the_host_has, every_alert_says_what_to_do, every_limit_of_the_analysis_counts, the_edges_are_those_of_the_host,
    the_bound_of_what_is_slow_is_an_edge, the_dashboard_is_whole, the_autoscaler_knows_saturation,
]
