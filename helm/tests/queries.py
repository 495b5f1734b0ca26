"""Every query of the chart, asked of a real Prometheus that scrapes real hosts under load, as the ServiceMonitor says.

TAFFRAIL_BINARY is the host, TAFFRAIL_COMPONENT the hello component, TAFFRAIL_BAD_COMPONENT the guest `menace` of the host's tests.
"""

import collections
import concurrent.futures
import contextlib
import http.client
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

import promql

PATIENCE = 60  # seconds; what takes longer has failed
TOKEN, OTHER_TOKEN = "the-right-token-1", "another-token-12"
TOO_LONG = "x" * 33_000  # for a header: 431, which is the client's fault
FULL = 20  # requests in flight that the failing pod may have
SLEEPERS = 17
INTERVAL = 5  # seconds between two measurements
METRICS = ["fails-more-than-stable", "slower-than-stable", "saturated"]

# What the analysis says of a canary beside a stable version. "nobody" has no pods.
VERDICTS = {
    ("good", "stable"): ["Successful", "Successful", "Successful"],
    ("failing", "stable"): ["Failed", "Successful", "Failed"],
    ("slow", "stable"): ["Failed", "Failed", "Successful"],
    ("unwell", "stable"): ["Failed", "Successful", "Successful"],  # answers 503 itself
    ("burst", "stable"): ["Failed", "Successful", "Successful"],  # all of it before the first scrape
    ("chance", "stable"): ["Successful", "Successful", "Successful"],  # 3 % of 400 beside none of 150: 2.2 standard errors
    ("refusing", "stable"): ["Successful", "Successful", "Successful"],  # 403: an alert, and no verdict
    ("stable", "refusing"): ["Successful", "Successful", "Successful"],
    ("quiet", "stable"): ["Inconclusive", "Inconclusive", "Successful"],  # a third of three requests fails
    ("good", "quiet"): ["Successful", "Inconclusive", "Successful"],
    ("failing", "quiet"): ["Failed", "Inconclusive", "Failed"],  # more than half, with nothing to compare
    ("chance", "quiet"): ["Successful", "Inconclusive", "Successful"],  # 3 % are below the ceiling
    ("nobody", "stable"): ["Inconclusive", "Inconclusive", "Inconclusive"],
}
ALERTS = {"TaffrailComponentFails", "TaffrailForbiddenShare", "TaffrailSaturated", "TaffrailTwoVersions"}


def until(condition, what):
    """Its first true answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise TimeoutError(f"{PATIENCE} s were not enough: {what}")


class Process:
    """A program that says on stderr where it listens. It ends with the test."""

    def __init__(self, *command):
        self.child = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.child.stderr), daemon=True).start()

    def find(self, pattern):
        """Waits for a line of the log; without it the program is of no use, and ends."""
        def found():
            ended, lines = self.child.poll() is not None, "".join(self.log)
            if ended and not re.search(pattern, lines):
                raise ChildProcessError(f"{self.child.args[0]} ended: {lines[-2000:]}")
            return re.search(pattern, lines)
        try:
            return until(found, f"{self.child.args[0]} never said {pattern}")
        except OSError:  # that it ended, or the time is over
            self.end()
            raise

    def end(self):
        self.child.kill()
        self.child.wait()


class Pod(Process):
    """A host, and a client that counts what it gets from it."""

    def __init__(self, binary, component, *flags):
        super().__init__(binary, "serve", component, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json",
                         "--access-log", "off", *flags)
        ready = json.loads(self.find(r'.*"message":"ready".*')[0])
        self.address, self.admin, self.digest = ready["listen"], ready["admin"], ready["digest"]
        self.got = collections.Counter()

    def ask(self, path, token=None, times=1):
        """The last status."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        with contextlib.closing(connection):
            for _ in range(times):
                connection.request("GET", path, headers={"x-auth-token": token} if token else {})
                response = connection.getresponse()
                response.read()
                self.got[response.status] += 1
        return response.status

    def ask_at_once(self, path, times, together):
        with concurrent.futures.ThreadPoolExecutor(together) as pool:
            list(pool.map(lambda _: self.ask(path), range(times)))


class Prometheus(Process):
    def __init__(self, folder, documents, pods):
        """Scrapes the pods with the labels that they would have in a cluster, as far as the ServiceMonitor keeps them."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        [monitor] = promql.of_kind(documents, "ServiceMonitor")
        [rule] = promql.of_kind(documents, "PrometheusRule")
        [endpoint] = monitor["spec"]["endpoints"]
        snake = lambda name: re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "hello-metrics",
                "metrics_path": endpoint["path"],
                "relabel_configs": [{snake(name): value for name, value in entry.items()} for entry in endpoint["relabelings"]],
                "static_configs": [
                    {"targets": [pod.admin], "labels": {
                        "namespace": "hello", "service": "hello-metrics", "pod": f"hello-{name}", "endpoint": "admin",
                        "__meta_kubernetes_pod_label_rollouts_pod_template_hash": name}}
                    for name, pod in pods.items()],
            }],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        (folder / "rules.yaml").write_text(yaml.safe_dump(rule["spec"]))
        super().__init__("prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
                         "--web.listen-address=127.0.0.1:0")
        self.address = self.find(r'Listening on"? address=(\S+)')[1]
        until(lambda: self.values("up"), "a first scrape")

    def get(self, path, **parameters):
        address = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            return json.load(answer)["data"]
        return None

    def values(self, query):
        """The numbers of an instant query; None if it is no query."""
        answer = self.get("query", query=query)
        return answer and [float(entry["value"][1]) for entry in answer["result"]]


def number_fault(values):
    """What is wrong with an answer that has to have a number."""
    if values is None:
        return "is no query"
    return None if any(not math.isnan(value) for value in values) else f"has no number: {values}"


def load(pods):
    """Requests that every canary gets: enough for a verdict, except where it is about few."""
    for name in ("stable", "good", "refusing"):
        pods[name].ask("/app", TOKEN, times=150)
        pods[name].ask("/app", times=5)
    pods["good"].ask("/app", TOO_LONG, times=50)
    pods["failing"].ask("/", times=75)
    pods["failing"].ask("/trap", times=75)
    pods["slow"].ask_at_once("/sleep", times=150, together=50)
    pods["unwell"].ask("/unwell", times=150)
    pods["quiet"].ask("/", times=1)
    pods["chance"].ask("/", times=387)
    pods["chance"].ask("/trap", times=11)


def check_analysis(report, prometheus, documents, pods):
    row = "analysis: verdicts of a real Prometheus"
    for (canary, stable), verdicts in VERDICTS.items():
        for template, metric in promql.metrics_of_analysis(documents):
            query = metric["provider"]["prometheus"]["query"]
            query = query.replace("{{args.canary-hash}}", canary).replace("{{args.stable-hash}}", stable)
            values, name = prometheus.values(query), metric["name"]
            subject = f"{template}, {name}: {canary} beside {stable}"
            if name not in METRICS:
                expected = expected_value(name, pods, canary, stable)
                if expected is not None:
                    fault = number_fault(values)
                    # Counts are exact; a gauge is an average of scrapes, which may have seen a request that was just there.
                    close = 1e-6 if name.startswith("failed") else 5
                    fault = fault or (None if abs(values[0] - expected) < close else f"{values[0]}, and the client counted {expected}")
                    report.check("analysis: numbers of the client", subject, fault)
                continue
            verdict = verdicts[METRICS.index(name)]
            fault = number_fault(values) if verdict != "Inconclusive" else None
            if not fault and (said := promql.phase(metric, values)) != verdict:
                fault = f"is {said}, not {verdict}: {values}"
            report.check(row, subject, fault)


def expected_value(metric, pods, canary, stable):
    """What the client's own counts say."""
    whose = {"canary": canary, "stable": stable}[metric.rpartition("-")[2]]
    if whose == "nobody":
        return None
    if metric.startswith("failed-percent"):
        got = {code: count for code, count in pods[whose].got.items() if code != 431}
        return 100 * sum(count for code, count in got.items() if code >= 500) / sum(got.values())
    if metric == "saturation-percent-canary":
        return 100 * SLEEPERS / FULL if canary == "failing" else 0
    return None


def check_rules(report, prometheus, documents, pods):
    row = "rules: each has a number"
    for rule in promql.rules(documents):
        # A comparison drops what is not so. With bool it says 0 or 1.
        query = rule.get("record") or re.sub(r"(>=|==|>) (?=[\d.])", r"\1 bool ", rule["expr"])
        report.check(row, rule.get("alert") or rule["record"], number_fault(prometheus.values(query)))
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            report.check("rules: Prometheus evaluates them", rule["name"], None if rule["health"] == "ok" else f"{rule.get('lastError')}")

    def alerts():
        return {alert["labels"]["alertname"]: alert for alert in prometheus.get("alerts")["alerts"]}

    row = "alerts: those that the load deserves"
    for expected in (ALERTS, ALERTS | {"TaffrailTargetDown"}):
        with contextlib.suppress(TimeoutError):
            until(lambda: set(alerts()) == expected, "the alerts")
        report.check(row, ", ".join(sorted(expected)), None if set(alerts()) == expected else f"are {sorted(alerts())}")
        pods["quiet"].end()
    for name, alert in alerts().items():
        said = " ".join(alert["annotations"].values())
        broken = re.search(r"<error|<no value>|\{\{|%!", said)
        report.check("alerts: what they say", name, f"{said}" if broken or alert["labels"]["namespace"] != "hello" else None)


def check_dashboard(report, prometheus, documents):
    [board] = promql.dashboards(documents)
    chosen = {"__rate_interval": "1m"}

    def filled(text):
        return re.sub(r"\$\{?(\w+)\}?", lambda variable: chosen[variable[1]], text)

    for variable in board["templating"]["list"][1:]:
        [match, label] = re.fullmatch(r"label_values\((.*), (\w+)\)", filled(variable["query"])).groups()
        answers = prometheus.get(f"label/{label}/values", **{"match[]": match})
        answers = [re.fullmatch(variable.get("regex", "/(.*)/").strip("/"), answer)[1] for answer in answers]
        report.check("dashboard: its variables", variable["name"], None if answers == ["hello"] else f"offers {answers}")
        chosen[variable["name"]] = "hello"
    for subject, query in promql.panel_queries(documents):
        report.check("dashboard: each query has a number", subject, number_fault(prometheus.values(filled(query))))


def check_drain(report, pod):
    """The line that the chart's README wants an alert on, because no scrape sees what a drain cuts."""
    text = (pathlib.Path(__file__).resolve().parent.parent / "hello/README.md").read_text()
    [documented] = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    documented = json.loads(documented)
    pod.child.terminate()
    said = json.loads(pod.find(r'.*"message":"drained.*')[0])
    wanted = {**documented, "timestamp": said["timestamp"], "cut": SLEEPERS}
    report.check("a drain that cuts says what is documented", "line", None if said == wanted else f"{said}, not {wanted}")
    status = pod.child.wait(PATIENCE)
    report.check("a drain that cuts says what is documented", "exit status", None if status == 1 else f"{status}")


def missing():
    for name in ("TAFFRAIL_BINARY", "TAFFRAIL_COMPONENT", "TAFFRAIL_BAD_COMPONENT"):
        if not os.environ.get(name) or not pathlib.Path(os.environ[name]).is_file():
            yield f"built file in {name}, which `make chart-test` sets"
    if not shutil.which("prometheus"):
        yield "prometheus: apt-get install prometheus"


def check(report, documents, tools):
    """`documents` is the render under test. What is not here is reported, and is a failure in CI."""
    row, absent = "queries against a real Prometheus", list(missing())
    for what in absent:
        report.missing(row, what)
    if not absent:
        try:
            ask_everything(report, documents, tools)
        except Exception as error:  # something is not there at all; the other checks still get their say
            report.check(row, "to its end", repr(error))


def ask_everything(report, documents, tools):
    binary, hello, menace = (os.environ[f"TAFFRAIL_{name}"] for name in ("BINARY", "COMPONENT", "BAD_COMPONENT"))
    with contextlib.ExitStack() as ending:
        def started(process):
            ending.callback(process.end)
            return process

        pods = {
            "stable": started(Pod(binary, hello, "--config", f"auth-tokens={TOKEN}")),
            "good": started(Pod(binary, hello, "--config", f"auth-tokens={TOKEN}")),
            "refusing": started(Pod(binary, hello, "--config", f"auth-tokens={OTHER_TOKEN}")),
            "failing": started(Pod(binary, menace, "--max-in-flight", FULL, "--deadline", "1h", "--drain-timeout", "100ms")),
            "slow": started(Pod(binary, menace, "--deadline", "500ms")),
            "unwell": started(Pod(binary, menace)),
            "quiet": started(Pod(binary, menace)),
            "burst": started(Pod(binary, menace)),
            "chance": started(Pod(binary, menace)),
        }
        pods["burst"].ask("/", times=75)
        pods["burst"].ask("/trap", times=75)
        for _ in range(SLEEPERS):
            threading.Thread(target=asleep, args=(pods["failing"].address,), daemon=True).start()
        full = f"taffrail_saturation_ratio {SLEEPERS / FULL}"
        until(lambda: full in scraped(pods["failing"]), "the failing pod is full")
        prometheus = started(Prometheus(tools / "prometheus", documents, pods))

        def seen():
            counted = sum(sum(pod.got.values()) for pod in pods.values())
            return prometheus.values("sum(taffrail_http_requests_total)") == [counted]

        # A counter begins with its first event, so that one must have been scraped before a rate can see the others.
        for name in ("stable", "good", "refusing"):
            for token in (TOKEN, None, TOO_LONG):
                pods[name].ask("/app", token)
        paths = {"failing": ["/", "/trap"], "slow": ["/", "/sleep"], "quiet": ["/", "/trap"], "unwell": ["/", "/unwell"], "chance": ["/", "/trap"]}
        for name, path in ((name, path) for name in paths for path in paths[name]):
            pods[name].ask(path)
        until(seen, "Prometheus has seen the first requests")
        load(pods)
        until(seen, "Prometheus has seen every request")
        time.sleep(2 * INTERVAL)  # what is bad has to be so twice
        check_analysis(report, prometheus, documents, pods)
        check_dashboard(report, prometheus, documents)
        check_rules(report, prometheus, documents, pods)
        check_drain(report, pods["failing"])


def asleep(address):
    """One request that does not end before its host does."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection(address)
        connection.request("GET", "/sleep")
        connection.getresponse()


def scraped(pod):
    with urllib.request.urlopen(f"http://{pod.admin}/metrics", timeout=PATIENCE) as answer:
        return answer.read().decode()
