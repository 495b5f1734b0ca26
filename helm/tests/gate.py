"""The chart's rendered queries, asked of a real Prometheus about canaries that are made up. `make canary-table` prints the table of
docs/kubernetes.md.

What the pods would have exposed goes into the storage of a Prometheus, and each query, as it is rendered but for the two hashes, is
asked at every minute. Where it says something else than the rule in plain Python (canaries.py) or the cases (gate_cases.py), that is a fault.
"""

import collections
import contextlib
import http.client
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
import urllib.parse

import promql
import queries
from canaries import BUSY, CANARIES, RATES, SAME, START, WORSE, Canary
from gate_cases import CASES, SLOWER, SLOWER_THAN_1_S, judged_otherwise, lines_of_cases, unnoticed


class Storage(queries.Process):
    """A Prometheus that has what the pods exposed, and scrapes nobody."""

    def __init__(self, folder, lines):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with (folder / "metrics").open("w") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.write("# EOF\n")
        subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", "--quiet", folder / "metrics", folder / "data"],
                       check=True, capture_output=True)
        (folder / "prometheus.yaml").write_text("{}")
        super().__init__("prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
                         "--storage.tsdb.retention.time=100y", "--web.listen-address=127.0.0.1:0")
        self.connection = http.client.HTTPConnection(self.find(r'Listening on"? address=(\S+)')[1], timeout=queries.PATIENCE)
        queries.until(self.ready, "Prometheus is ready")

    close = queries.Process.end

    def ready(self):
        with contextlib.suppress(OSError):
            self.connection.request("GET", "/-/ready")
            answer = self.connection.getresponse()
            answer.read()
            return answer.status == 200
        return False

    def minutes(self, query, hashes, last):
        """Value at each minute from the first to the last, a second after it; NaN where there is none, None where it is no query."""
        query = query.replace("{{args.canary-hash}}", hashes[0]).replace("{{args.stable-hash}}", hashes[1])
        body = urllib.parse.urlencode({"query": query, "start": START + 61, "end": START + 60 * last + 1, "step": 60})
        self.connection.request("POST", "/api/v1/query_range", body, {"Content-Type": "application/x-www-form-urlencoded"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            return None
        series = json.loads(text)["data"]["result"]
        found = {}
        for one in series:
            found.update({round((at - START - 1) / 60): float(value) for at, value in one["values"] if not math.isnan(float(value))})
        return {minute: found.get(minute, math.nan) for minute in range(1, last + 1)}


def gates(documents, by_value):
    """The measurements of a step, and that of what is slow by a value."""
    by_default, slow = ({metric["name"]: metric for template, metric in promql.gates(those) if template == "hello-step"}
                        for those in (documents, by_value))
    return {**by_default, SLOWER_THAN_1_S: slow[SLOWER]}


def differs(storage, metrics, canary):
    """The first minute at which a query says something else than the rule."""
    for name in canary.metrics:
        metric = metrics[name]
        values = storage.minutes(metric["provider"]["prometheus"]["query"], canary.hashes, canary.end)
        for minute, phase in canary.phases[name].items():
            said = promql.phase(metric, [values[minute]]) if values else "no query"
            if said != phase:
                return f"{name} of {canary.hashes[0]} in minute {minute} is {said}, and by the rule {phase}"
    return None


def cell(folder, metrics, name, number, rate, stable, canary):
    """How many canaries of a kind end, what differs from the rule, and their minutes."""
    canaries = [Canary(f"{name}-{i}", f"{name} {i}", rate, stable, canary) for i in range(number)]
    storage = Storage(folder, (line for one in canaries for pod in one.pods for line in pod.lines(one.end)))
    try:
        faults = [fault for one in canaries if (fault := differs(storage, metrics, one))]
    finally:
        storage.end()
        shutil.rmtree(folder)
    return [one.outcome for one in canaries], faults, [one.end for one in canaries]


def check(report, documents, by_value, tools):
    """The cases, one change of each kind, and a few canaries. What is not here is reported, and is a failure in CI."""
    row = "the gate: cases, by a real Prometheus"
    for tool in ("prometheus", "promtool"):
        if not shutil.which(tool):
            report.missing(row, f"{tool}: apt-get install prometheus")
            return
    metrics = gates(documents, by_value)
    with contextlib.closing(Storage(tools / "gate", lines_of_cases())) as storage:
        otherwise = list(judged_otherwise(storage, metrics))
        for name in CASES:
            report.check(row, name, next((fault for fault in otherwise if fault.startswith(f"{name}: ")), None))
        _, missed = unnoticed(storage, metrics, lambda all_: all_[::6])
        report.check("the gate: a changed query is noticed", "a sixth of the changes", "; ".join(missed))
    for name, rate, stable, canary, expected in (
            ("the same at 8/s", 8, SAME["0.5 % of errors"], SAME["0.5 % of errors"], "promoted"),
            ("errors at 50/s", 50, *WORSE["errors from 0.5 to 2.5 %"], "aborted"), ("slow at 50/s", 50, *WORSE["slow from 1 to 4 %"], "aborted")):
        outcomes, faults, _ = cell(tools / "gate", metrics, "short", 8, rate, stable, canary)
        faults += [] if {outcome for outcome, _ in outcomes} == {expected} else [f"{outcomes}"]
        report.check("the gate: simulated canaries", name, "; ".join(faults))


def table(documents, by_value, tools):
    """All of it, as Markdown. Whether everything is as it should be."""
    metrics, faults = gates(documents, by_value), []

    def share(number):
        return f"{100 * number / CANARIES:.1f} %".replace(".0 %", " %")

    def simulated(name, rate, stable, canary):
        began, hashes = time.monotonic(), f"{name} {rate}".replace(" ", "-").replace("%", "percent")
        outcomes, differences, minutes = cell(tools / "canary-table", metrics, hashes, CANARIES, rate, stable, canary)
        faults.extend(differences)
        print(f"{name}, {rate} requests a second: {dict(collections.Counter(outcomes))}, {len(differences)} differ from the rule, "
              f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        return outcomes, statistics.median(minutes)

    print(f"| the same in both versions: taken back, of {CANARIES} | " + " | ".join(f"{rate}/s" for rate in RATES) + " |")
    print("|---|" + "---|" * len(RATES))
    for name, behaviour in SAME.items():
        cells = []
        for rate in RATES:
            outcomes, minutes = simulated(name, rate, behaviour, behaviour)
            aborted, stuck = (sum(end == how for end, _ in outcomes) for how in ("aborted", "stuck"))
            faults += [f"{name}, {rate}/s: {aborted} of {CANARIES} taken back, {stuck} stuck"] * (aborted > 0.01 * CANARIES or stuck > 0)
            cells.append(f"{share(aborted)}, {minutes:.0f} min")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print()
    print(f"| worse: taken back before the second step, of {CANARIES} | " + " | ".join(f"{rate}/s" for rate in BUSY) + " |")
    print("|---|" + "---|" * len(BUSY))
    for name, (stable, canary) in WORSE.items():
        cells = []
        for rate in BUSY:
            outcomes, minutes = simulated(name, rate, stable, canary)
            found = sum(outcome == ("aborted", 0) for outcome in outcomes)
            faults += [f"{name}, {rate}/s: {found} of {CANARIES} taken back before the second step"] * (found < 0.99 * CANARIES)
            cells.append(f"{share(found)}, {minutes:.0f} min")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    with contextlib.closing(Storage(tools / "canary-table", lines_of_cases())) as storage:
        faults += judged_otherwise(storage, metrics)
        count, missed = unnoticed(storage, metrics)
    print(f"\n{len(CASES)} cases; {count - len(missed)} of {count} changes of a query are noticed", file=sys.stderr)
    faults += [f"nobody notices {what}" for what in missed]
    for fault in faults:
        print(f"FAILED  {fault}", file=sys.stderr)
    return not faults
