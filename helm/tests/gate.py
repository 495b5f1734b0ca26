"""Simulated canaries, judged by the chart's rendered queries in a real Prometheus. `make canary-table` prints the table of docs/kubernetes.md.

A canary is simulated minute by minute: requests come at random, the rule of the gate, written down here once more in plain Python,
moves it from step to step. What the pods would have exposed goes into the storage of a Prometheus, and each query of the chart, as it
is rendered but for the two hashes, is asked at every minute. Where it says something else than the rule, that is a fault.

Of four scrapes a minute the storage has the last, because no query looks at the others.
"""

import collections
import contextlib
import functools
import http.client
import json
import math
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
import urllib.parse

import promql
import queries

START = 1767225600 + 600  # of each canary: a whole minute, ten minutes after midnight, so that all fits into one block of two hours
LAST = 100  # minutes; who is not through by then is stuck
WINDOW, PAUSE, COUNT = 5, 5, 5  # minutes, minutes, measurements: the chart's defaults
STEPS = [0.05, 0.25, 0.5]
EDGES = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, math.inf]  # of the host's, those from the floor up that the durations below reach
BUCKETS = [("taffrail_http_request_duration_seconds_bucket", f'le="{"+Inf" if edge == math.inf else edge}"') for edge in EDGES]
OUTCOMES = [("taffrail_http_requests_total", f'code="{code}",reason="{reason}"')
            for code, reason in ((500, "guest_trapped"), (403, "ok"), (200, "ok"))]
QUIET = (0.010, 0.030)  # a service whose median takes 10 ms and whose slowest 1 % take 30 ms

# What happens to the requests of stable and of the canary: share of failures, of 403, of slow ones, median and p99 in seconds.
Behaviour = collections.namedtuple("Behaviour", "failing forbidden slow median p99", defaults=[0, 0, 0, *QUIET])
SAME = {
    "no errors": Behaviour(),
    **{f"{share} % of errors": Behaviour(failing=share / 100) for share in (0.3, 0.5, 0.8, 1)},
    **{f"{share} % slow": Behaviour(slow=share / 100) for share in (0.5, 0.8)},
    **{f"{share} % of 403": Behaviour(forbidden=share / 100) for share in (20, 40)},
}
WORSE = {
    "errors from 0.5 to 2.5 %": (Behaviour(failing=0.005), Behaviour(failing=0.025)),
    "errors from 0.5 to 5.5 %": (Behaviour(failing=0.005), Behaviour(failing=0.055)),
    "slow from 1 to 4 %": (Behaviour(slow=0.01), Behaviour(slow=0.04)),
    "p99 from 0.15 to 0.45 s": (Behaviour(median=0.04, p99=0.15), Behaviour(median=0.12, p99=0.45)),
}
RATES, CANARIES = [8, 20, 50, 200], 300


def poisson(chance, mean):
    if mean > 100:
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    count, product, limit = -1, 1.0, math.exp(-mean)
    while product > limit:
        product *= chance.random()
        count += 1
    return max(count, 0)


def binomial(chance, trials, share):
    """How many of `trials`."""
    if share <= 0 or trials <= 0:
        return 0
    if trials * share * (1 - share) > 100:
        return min(trials, max(0, round(chance.gauss(trials * share, math.sqrt(trials * share * (1 - share))))))
    if share >= 1:
        return trials
    count, at, log = 0, 0, math.log1p(-share)
    while True:  # jumps from one to the next
        at += int(math.log(1 - chance.random()) / log) + 1
        if at > trials:
            return count
        count += 1


def above(behaviour, edge):
    """Share of the requests that take longer than `edge`. Slow ones take 0.1 to 2 s, each order of magnitude as often."""
    if edge == math.inf:
        return 0
    spread = math.log(behaviour.p99 / behaviour.median) / statistics.NormalDist().inv_cdf(0.99)
    usual = 1 - statistics.NormalDist().cdf(math.log(edge / behaviour.median) / spread)
    slow = min(1, max(0, math.log(2 / edge) / math.log(20)))
    return behaviour.slow * slow + (1 - behaviour.slow) * usual


@functools.cache
def shares(behaviour):
    """From the last edge down: of the requests within the edge before, the share that is above this one."""
    beyond = [0, *(above(behaviour, edge) for edge in reversed(EDGES))]
    return [(larger - smaller) / (1 - smaller) for smaller, larger in zip(beyond, beyond[1:])]


class Pod:
    """What a pod has counted, by the minute: series by name and labels, each with its value at every minute since its first event."""

    def __init__(self, version, name, started, since=0):
        self.labels = f'namespace="hello",service="hello-metrics",pod="{name}",rollouts_pod_template_hash="{version}"'
        self.started, self.since, self.series = started, since, {}

    def counts(self, minute, metric, labels, more):
        if values := self.series.get((metric, labels)):
            values[minute] = values[minute - 1] + more
        elif more or metric.endswith("_bucket"):
            self.series[metric, labels] = {minute: more}

    def gained(self, minute, *series):
        """What is not there is none yet."""
        values = self.series.get(series, {})
        return values.get(minute, 0) - values.get(minute - WINDOW, 0)

    def serves(self, chance, minute, requests, behaviour):
        failed = binomial(chance, requests, behaviour.failing)
        refused = binomial(chance, requests - failed, behaviour.forbidden)
        for outcome, count in zip(OUTCOMES, (failed, refused, requests - failed - refused)):
            self.counts(minute, *outcome, count)
        within = requests
        for bucket, share in zip(reversed(BUCKETS), shares(behaviour)):
            within -= binomial(chance, within, share)
            self.counts(minute, *bucket, within)

    def lines(self, until):
        """As a scrape shows it, 3 seconds before each minute."""
        for minute in range(self.since, until + 1):
            yield f"process_start_time_seconds{{{self.labels}}} {self.started} {START + 60 * minute - 3}"
        for (metric, labels), values in self.series.items():
            head = f"{metric}{{{self.labels},{labels}}}"
            yield from (f"{head} {value} {START + 60 * minute - 3}" for minute, value in values.items() if minute <= until)


class Rule:
    """The gate in plain Python. `canary` and `stable` are lists of pods that neither come nor go nor start anew."""

    def __init__(self, canary, stable):
        self.canary, self.stable = canary, stable

    @staticmethod
    def requests(pods, minute):
        """All, and those that succeeded."""
        _, forbidden, fine = counts = [sum(pod.gained(minute, *outcome) for pod in pods) for outcome in OUTCOMES]
        return sum(counts), forbidden + fine

    @staticmethod
    def within(pods, minute):
        return [sum(pod.gained(minute, *bucket) for pod in pods) for bucket in BUCKETS]

    @staticmethod
    def worse(all_, good, stable_all, stable_good):
        if not all_ or stable_all < 100 or all_ - good < 10:
            return False
        share = (good + stable_good) / (all_ + stable_all)
        error = math.sqrt(share * (1 - share) * (1 / all_ + 1 / stable_all))
        return stable_good / stable_all - good / all_ > max(4 * error, 0.005)

    def fails(self, minute):
        (all_, good), (stable_all, stable_good) = (self.requests(pods, minute) for pods in (self.canary, self.stable))
        alone = stable_all < 100 and all_ - good >= 10 and 1 - good / all_ > 0.05
        return alone or self.worse(all_, good, stable_all, stable_good), all_ >= 100

    def slow(self, minute):
        canary, stable = (self.within(pods, minute) for pods in (self.canary, self.stable))
        bound = next(i for i, count in enumerate(stable) if count >= 0.99 * stable[-1])
        (all_, good), (stable_all, stable_good) = (self.requests(pods, minute) for pods in (self.canary, self.stable))
        mends = all_ and stable_all and good / all_ - stable_good / stable_all > 0.05
        slow = self.worse(canary[-1], canary[bound], stable[-1], stable[bound]) and not mends
        return slow, canary[-1] >= 100 and stable[-1] >= 100

    def say(self, of, minute, said):
        """What `of` (fails or slow) is in a minute; `said` keeps the minutes before."""
        said[minute] = of(minute)
        twice = said[minute][0] + said.get(minute - 1, (False,))[0]
        return {2: "Failed", 1: "Inconclusive"}.get(twice) or ("Successful" if said[minute][1] else "Inconclusive")


class Canary:
    """One canary from its start to its end, by the rule. `phases` has what each measurement said at each minute."""

    metrics = ("fails-more-than-stable", "slower-than-stable")

    def __init__(self, name, seed, rate, stable, canary):
        self.hashes, chance = (f"c{name}", f"s{name}"), random.Random(seed)
        old = [Pod(self.hashes[1], f"s{name}-{i}", START - 86400, since=-WINDOW - 2) for i in range(2)]
        new = Pod(self.hashes[0], f"c{name}", START - 10)
        self.pods, rule = [new, *old], Rule([new], old)
        for minute in range(-WINDOW - 1, 1):
            for pod in old:
                pod.serves(chance, minute, poisson(chance, rate * 60 / 2), stable)
        self.phases = {metric: {} for metric in self.metrics}
        said, walk = {metric: {} for metric in self.metrics}, Walk()
        for minute in range(1, LAST + 1):
            new.serves(chance, minute, poisson(chance, rate * 60 * walk.weight), canary)
            for pod in old:
                pod.serves(chance, minute, poisson(chance, rate * 60 * (1 - walk.weight) / 2), stable)
            for metric, of in zip(self.metrics, (rule.fails, rule.slow)):
                self.phases[metric][minute] = rule.say(of, minute, said[metric])
            if walk.goes(minute, {metric: phases[minute] for metric, phases in self.phases.items()}):
                break
        self.end, self.outcome = minute, walk.outcome


class Walk:
    """How Argo Rollouts goes through the steps: what fails aborts, so many good ones in a row end a step."""

    def __init__(self):
        self.step, self.since, self.rows, self.outcome = 0, 0, {}, ("stuck", 0)

    @property
    def weight(self):
        return STEPS[self.step]

    def goes(self, minute, phases):
        """Whether it is over."""
        if "Failed" in phases.values():
            self.outcome = ("aborted", self.step)
            return True
        if minute >= self.since + PAUSE:
            for metric, phase in phases.items():
                if self.rows.get(metric, 0) < COUNT:  # else it has ended
                    self.rows[metric] = self.rows.get(metric, 0) + 1 if phase == "Successful" else 0
        if len(self.rows) == len(phases) and min(self.rows.values()) >= COUNT:
            self.step, self.since, self.rows = self.step + 1, minute, {}
        if self.step == len(STEPS):
            self.outcome = ("promoted", self.step)
        return self.step == len(STEPS)


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


def gates(documents):
    return {metric["name"]: metric for template, metric in promql.gates(documents) if template == "hello-step"}


def differs(storage, metrics, canary, spoil=lambda query: query):
    """The first minute at which a query says something else than the rule."""
    for name in canary.metrics:
        metric = metrics[name]
        values = storage.minutes(spoil(metric["provider"]["prometheus"]["query"]), canary.hashes, canary.end)
        for minute, phase in canary.phases[name].items():
            said = promql.phase(metric, [values[minute]]) if values else "no query"
            if said != phase:
                return f"{name} of {canary.hashes[0]} in minute {minute} is {said}, and by the rule {phase}"
    return None


def cell(folder, metrics, name, number, rate, stable, canary):
    """Their outcomes, and what differs from the rule."""
    canaries = [Canary(f"{name}-{i}", f"{name} {i}", rate, stable, canary) for i in range(number)]
    storage = Storage(folder, (line for one in canaries for pod in one.pods for line in pod.lines(one.end)))
    try:
        faults = [fault for one in canaries if (fault := differs(storage, metrics, one))]
    finally:
        storage.end()
        shutil.rmtree(folder)
    return [one.outcome for one in canaries], faults, [one.end for one in canaries]


class Given(Pod):
    """A pod that counts the same every minute: `counts` has how often each series counts, `at` what it has counted before."""

    def __init__(self, version, name, counts, first=-WINDOW - 2, last=LAST, age=86400, at=0, anew=None):
        super().__init__(version, name, START + 60 * first - age, first)
        self.last = last
        for (metric, labels), each in counts.items():
            minutes = range(first, last + 1)
            self.series[metric, labels] = {minute: at * each + (minute - first + 1) * each for minute in minutes}
            if anew is not None:  # the process has started again
                self.series[metric, labels].update({minute: (minute - anew + 1) * each for minute in minutes if minute >= anew})

    def lines(self, until):
        return super().lines(min(until, self.last))


def outcome(code, reason, each):
    return {("taffrail_http_requests_total", f'code="{code}",reason="{reason}"'): each}


def answered(fine, failed=0):
    return {**outcome(200, "ok", fine), **(outcome(500, "guest_trapped", failed) if failed else {})}


def taking(*within, edges=(0.05, 0.25, "1.0", "2.5", "30.0", "+Inf")):
    """How many a minute take no longer than each edge."""
    return {("taffrail_http_request_duration_seconds_bucket", f'le="{edge}"'): each for edge, each in zip(edges, within)}


def filled(name, *shares, until=10):
    """A pod of the canary with these shares of its requests in flight in the last minutes."""
    pod = Given("c", name, {}, first=until - len(shares) + 1)
    pod.series["taffrail_saturation_ratio", 'endpoint="admin"'] = {pod.since + i: share for i, share in enumerate(shares)}
    return pod


GOOD, BAD, OPEN = "Successful", "Failed", "Inconclusive"
STABLE = [Given("s", "s", answered(1000))]
QUICK = [Given("s", "s", taking(995, 1000, 1000, 1000, 1000, 1000))]
# What is judged how in minute 10: (metric, phase, pods). The hashes are c and s.
FAILS, SLOWER, SATURATED = "fails-more-than-stable", "slower-than-stable", "saturated"
CASES = {
    "a sound version": (FAILS, GOOD, [*STABLE, Given("c", "c", answered(50))]),
    "one of ten fails": (FAILS, BAD, [*STABLE, Given("c", "c", answered(45, 5))]),
    "all fail, and none of stable's does": (FAILS, BAD, [*STABLE, Given("c", "c", outcome(500, "guest_trapped", 50))]),
    "the host fails them": (FAILS, BAD, [*STABLE, Given("c", "c", {**answered(45), **outcome(503, "host_overloaded", 5)})]),
    "the component answers 503 itself": (FAILS, BAD, [*STABLE, Given("c", "c", {**answered(45), **outcome(503, "ok", 5)})]),
    "it is the clients' fault": (FAILS, GOOD, [*STABLE, Given("c", "c", {**answered(45), **outcome(408, "client_body_timeout", 5)})]),
    "the clients' fault does not make them more": (FAILS, OPEN, [*STABLE, Given("c", "c", {**answered(10), **outcome(408, "client_body_timeout", 50)})]),
    "stable fails as much": (FAILS, GOOD, [Given("s", "s", answered(900, 100)), Given("c", "c", answered(45, 5))]),
    "stable fails more": (FAILS, GOOD, [Given("s", "s", answered(500, 500)), Given("c", "c", answered(45, 5))]),
    "stable fails less, by chance or not": (FAILS, GOOD, [Given("s", "s", answered(980, 20)), Given("c", "c", answered(97, 4))]),
    "0.4 % more, by no chance, and nobody minds": (FAILS, GOOD, [Given("s", "s", answered(100_000)), Given("c", "c", answered(9960, 40))]),
    "0.6 % more, by no chance": (FAILS, BAD, [Given("s", "s", answered(100_000)), Given("c", "c", answered(9940, 60))]),
    "3.6 standard errors": (FAILS, GOOD, [Given("s", "s", answered(1980, 20)), Given("c", "c", answered(195.5, 4.5))]),
    "4.4 standard errors": (FAILS, BAD, [Given("s", "s", answered(1980, 20)), Given("c", "c", answered(194.9, 5.1))]),
    "3.8 standard errors beside a small stable": (FAILS, GOOD, [Given("s", "s", answered(30)), Given("c", "c", answered(455, 45))]),
    "4.2 standard errors beside a small stable": (FAILS, BAD, [Given("s", "s", answered(30)), Given("c", "c", answered(447.5, 52.5))]),
    "100 requests": (FAILS, GOOD, [*STABLE, Given("c", "c", answered(20))]),
    "95 requests": (FAILS, OPEN, [*STABLE, Given("c", "c", answered(19))]),
    "10 failures": (FAILS, BAD, [*STABLE, Given("c", "c", answered(1, 2))]),
    "fewer than 10 failures": (FAILS, OPEN, [*STABLE, Given("c", "c", answered(1, 1.9))]),
    "nobody": (FAILS, OPEN, STABLE),
    "nobody, of what is slow": (SLOWER, OPEN, QUICK),
    "nobody, of what is full": (SATURATED, OPEN, STABLE),
    "6 % of failures beside no stable": (FAILS, BAD, [Given("c", "c", answered(94, 6))]),
    "4 % of failures beside no stable": (FAILS, GOOD, [Given("c", "c", answered(96, 4))]),
    "6 % of failures beside 95 requests of stable": (FAILS, BAD, [Given("s", "s", answered(19)), Given("c", "c", answered(94, 6))]),
    "6 % of failures beside 100 requests of stable": (FAILS, GOOD, [Given("s", "s", answered(20)), Given("c", "c", answered(94, 6))]),
    "22 % of failures beside 100 requests of stable": (FAILS, BAD, [Given("s", "s", answered(20)), Given("c", "c", answered(78, 22))]),
    "errors before the first scrape, then none": (FAILS, BAD, [*STABLE, Given("c", "c", answered(50), first=8, age=30),
        Given("c", "d", outcome(500, "guest_trapped", 0.001), first=8, age=30, at=40_000)]),
    "bad for the first time": (FAILS, OPEN, [*STABLE, Given("c", "c", answered(50)),
        Given("c", "d", outcome(500, "guest_trapped", 0.001), first=10, age=30, at=40_000)]),
    "bad until a minute ago": (FAILS, OPEN, [*STABLE, Given("c", "c", answered(3000)),
        Given("c", "d", outcome(500, "guest_trapped", 0.001), first=5, age=30, at=400_000)]),
    "the failures are those of an attempt before": (FAILS, GOOD, [*STABLE, Given("c", "c", answered(50), first=4, age=30),
        Given("c", "d", answered(0, 50), last=3)]),
    "the process started anew and fails": (FAILS, BAD, [*STABLE, Given("c", "c", answered(50, 10), anew=8)]),
    "Prometheus was away, stable has a past": (FAILS, OPEN, [Given("s", "s", answered(1000, 0.001), first=7, at=100_000),
        Given("c", "c", answered(45, 5), first=7, age=600)]),
    "Prometheus was away, the canary has a past": (FAILS, OPEN, [*STABLE, Given("c", "c", {**answered(50), **outcome(500, "guest_trapped", 0.001)}, first=7, age=600, at=40_000)]),
    "Prometheus was away, of what is slow": (SLOWER, OPEN, [Given("s", "s", taking(995, 1000, 1000, 1000, 1000, 1000), first=7, at=100),
        Given("c", "c", taking(90, 95, 100, 100, 100, 100), first=7, age=600, at=100)]),
    "Prometheus is back for a window": (FAILS, BAD, [Given("s", "s", answered(1000), first=4, at=100), Given("c", "c", answered(45, 5), first=4, age=600, at=100)]),
    "a pod is new": (FAILS, GOOD, [*STABLE, Given("c", "c", answered(50)), Given("c", "d", answered(50), first=6, age=90)]),
    "as quick as stable": (SLOWER, GOOD, [*QUICK, Given("c", "c", taking(99, 100, 100, 100, 100, 100))]),
    "5 % above stable's 99th percentile": (SLOWER, BAD, [*QUICK, Given("c", "c", taking(95, 100, 100, 100, 100, 100))]),
    "stable's 99th percentile is an edge up": (SLOWER, GOOD, [Given("s", "s", taking(985, 1000, 1000, 1000, 1000, 1000)), Given("c", "c", taking(90, 100, 100, 100, 100, 100))]),
    "5 % above that": (SLOWER, BAD, [Given("s", "s", taking(980, 1000, 1000, 1000, 1000, 1000)), Given("c", "c", taking(90, 95, 100, 100, 100, 100))]),
    "edges without .0": (SLOWER, BAD, [Given("s", "s", taking(900, 980, 1000, 1000, 1000, 1000, edges=(0.05, 0.25, "1", "2.5", "30", "+Inf"))),
        Given("c", "c", taking(50, 90, 95, 100, 100, 100, edges=(0.05, 0.25, "1", "2.5", "30", "+Inf")))]),
    "stable's 99th percentile is above the last edge": (SLOWER, GOOD, [Given("s", "s", taking(500, 900, 950, 960, 980, 1000)), Given("c", "c", taking(20, 20, 20, 20, 20, 100))]),
    "0.4 % more slow ones": (SLOWER, GOOD, [Given("s", "s", taking(*[100_000] * 6)), Given("c", "c", taking(9960, *[10_000] * 5))]),
    "0.6 % more slow ones": (SLOWER, BAD, [Given("s", "s", taking(*[100_000] * 6)), Given("c", "c", taking(9940, *[10_000] * 5))]),
    "slower by 3.6 standard errors": (SLOWER, GOOD, [Given("s", "s", taking(1985, *[2000] * 5)), Given("c", "c", taking(196.3, *[200] * 5))]),
    "slower by 4.7 standard errors": (SLOWER, BAD, [Given("s", "s", taking(1985, *[2000] * 5)), Given("c", "c", taking(195.6, *[200] * 5))]),
    "slower by 3.8 standard errors than a small stable": (SLOWER, GOOD, [Given("s", "s", taking(*[30] * 6)), Given("c", "c", taking(455, *[500] * 5))]),
    "slower by 4.2 standard errors than a small stable": (SLOWER, BAD, [Given("s", "s", taking(*[30] * 6)), Given("c", "c", taking(447.5, *[500] * 5))]),
    "100 requests of each": (SLOWER, GOOD, [Given("s", "s", taking(*[20] * 6)), Given("c", "c", taking(*[20] * 6))]),
    "95 requests of the canary": (SLOWER, OPEN, [Given("s", "s", taking(*[20] * 6)), Given("c", "c", taking(*[19] * 6))]),
    "95 requests of stable": (SLOWER, OPEN, [Given("s", "s", taking(*[19] * 6)), Given("c", "c", taking(0, *[20] * 5))]),
    "all slow beside 100 requests of stable": (SLOWER, BAD, [Given("s", "s", taking(*[20] * 6)), Given("c", "c", taking(0, *[20] * 5))]),
    "10 slow ones": (SLOWER, BAD, [*QUICK, Given("c", "c", taking(18, *[20] * 5))]),
    "fewer than 10 slow ones": (SLOWER, GOOD, [*QUICK, Given("c", "c", taking(18.1, *[20] * 5))]),
    "slow before the first scrape, then not": (SLOWER, BAD, [*QUICK, Given("c", "c", taking(*[50] * 6), first=8, age=30),
        Given("c", "d", taking(0, *[0.001] * 5), first=8, age=30, at=40_000)]),
    "slow for the first time": (SLOWER, OPEN, [*QUICK, Given("c", "c", taking(*[50] * 6)), Given("c", "d", taking(0, *[0.001] * 5), first=10, age=30, at=40_000)]),
    "slow for the second time": (SLOWER, BAD, [*QUICK, Given("c", "c", taking(*[50] * 6)), Given("c", "d", taking(0, *[0.001] * 5), first=9, age=30, at=40_000)]),
    "slow, Prometheus was away, the canary has a past": (SLOWER, OPEN, [*QUICK, Given("c", "c", taking(*[50] * 6)),
        Given("c", "d", taking(0, *[0.001] * 5), first=6, age=600, at=40_000)]),
    "slow, Prometheus is back for a window": (SLOWER, BAD, [Given("s", "s", taking(*[1000] * 6), first=4, at=100),
        Given("c", "c", taking(45, *[50] * 5), first=4, age=600, at=100)]),
    "slow, a pod is new": (SLOWER, GOOD, [*QUICK, Given("c", "c", taking(*[50] * 6)), Given("c", "d", taking(*[50] * 6), first=6, age=90)]),
    "slow beside new pods of stable, by 4.2 standard errors": (SLOWER, BAD, [Given("s", "s", taking(*[100] * 6), first=8, age=30), Given("c", "c", taking(459, *[500] * 5))]),
    "slow beside stable that started anew": (SLOWER, BAD, [Given("s", "s", taking(*[1000] * 6), anew=8), Given("c", "c", taking(477.5, *[500] * 5))]),
    "quick since it started anew": (SLOWER, GOOD, [*QUICK, Given("c", "c", taking(*[50] * 6), anew=8)]),
    "slow since it started anew": (SLOWER, BAD, [*QUICK, Given("c", "c", taking(40, *[50] * 5), anew=8)]),
    "beside new pods of stable that fail as much": (FAILS, GOOD, [Given("s", "s", answered(940, 60), first=8, age=30), Given("c", "c", answered(470, 30))]),
    "fails beside new pods of stable, by 4.2 standard errors": (FAILS, BAD, [Given("s", "s", answered(100), first=8, age=30), Given("c", "c", answered(459, 41))]),
    "fails beside stable that started anew": (FAILS, BAD, [Given("s", "s", answered(1000), anew=8), Given("c", "c", answered(477.5, 22.5))]),
    "sound since it started anew": (FAILS, GOOD, [*STABLE, Given("c", "c", answered(50), anew=8)]),
    "slow beside 4 % of failures of stable": (SLOWER, BAD, [Given("s", "s", {**answered(960, 40), **taking(*[1000] * 6)}), Given("c", "c", {**answered(50), **taking(40, *[50] * 5)})]),
    "slow, and puts 6 % of failures right": (SLOWER, GOOD, [Given("s", "s", {**answered(940, 60), **taking(*[1000] * 6)}), Given("c", "c", {**answered(50), **taking(40, *[50] * 5)})]),
    "slow, and puts all failures right": (SLOWER, GOOD, [Given("s", "s", {**outcome(500, "guest_trapped", 1000), **taking(*[1000] * 6)}), Given("c", "c", {**answered(50), **taking(0, *[50] * 5)})]),
    "slow, and fails as often as stable": (SLOWER, BAD, [Given("s", "s", {**answered(700, 300), **taking(*[1000] * 6)}), Given("c", "c", {**answered(35, 15), **taking(40, *[50] * 5)})]),
    "slow in new pods": (SLOWER, BAD, [Given("s", "s", {**answered(1000), **taking(*[1000] * 6)}),
        Given("c", "c", {**answered(50), **taking(40, *[50] * 5)}, first=8, age=30)]),
    "slow in new pods, and puts 6 % of failures right": (SLOWER, GOOD, [Given("s", "s", {**answered(940, 60), **taking(*[1000] * 6)}),
        Given("c", "c", {**answered(50), **taking(40, *[50] * 5)}, first=8, age=30)]),
    "slow beside new pods of stable": (SLOWER, BAD, [Given("s", "s", {**answered(1000), **taking(*[1000] * 6)}, first=8, age=30),
        Given("c", "c", {**answered(50), **taking(40, *[50] * 5)})]),
    "slow, and puts 6 % of failures of new pods right": (SLOWER, GOOD, [Given("s", "s", {**answered(940, 60), **taking(*[1000] * 6)}, first=8, age=30),
        Given("c", "c", {**answered(50), **taking(40, *[50] * 5)})]),
    "started anew, slow, and puts 6 % of failures right": (SLOWER, GOOD, [Given("s", "s", {**answered(940, 60), **taking(*[1000] * 6)}),
        Given("c", "c", {**answered(50), **taking(40, *[50] * 5)}, anew=8)]),
    "slow beside sound pods that started anew": (SLOWER, BAD, [Given("s", "s", {**answered(1000), **taking(*[1000] * 6)}, anew=8),
        Given("c", "c", {**answered(50), **taking(40, *[50] * 5)})]),
    "a full pod of two": (SATURATED, BAD, [filled("c", *[0.1] * 8), filled("d", *[0.85] * 8)]),
    "nearly full": (SATURATED, GOOD, [filled("c", *[0.75] * 8)]),
    "full for the first time": (SATURATED, OPEN, [filled("c", 0.95)]),
    "full for the second time": (SATURATED, BAD, [filled("c", 0.95, 0.95)]),
    "full until a minute ago": (SATURATED, OPEN, [filled("c", *[0.95] * 7, 0)]),
}
# Who asks for the wrong pods finds these: of other namespaces, releases and versions.
DECOYS = ['namespace="other",service="hello-metrics",pod="{}",rollouts_pod_template_hash="{}"',
          'namespace="hello",service="other-metrics",pod="{}",rollouts_pod_template_hash="{}"']


def lines_of_cases():
    """Each case has hashes of its own: its number behind c and s."""
    for number, (_, _, pods) in enumerate(CASES.values()):
        for pod in pods:
            own = lambda text, n=number: re.sub(r'(pod|hash)="(\w+)"', rf'\1="\g<2>-{n}"', text)
            yield from map(own, pod.lines(12))
    pod = Given("x", "x", {**answered(300, 200), **taking(10, 50, 100, 200, 300, 500)}, first=-2, age=10)
    pod.series |= filled("x", *[0.95] * 8).series
    for number in range(len(CASES)):
        for version in ("c", "s"):
            for decoy in DECOYS:
                pod.labels = decoy.format(f"x-{version}-{number}", f"{version}-{number}")
                yield from pod.lines(12)
    pod.labels = 'namespace="hello",service="hello-metrics",pod="x",rollouts_pod_template_hash="another"'
    yield from pod.lines(12)


def judged_otherwise(storage, metrics, spoil=lambda query: query, only=None):
    """The cases of which a query says something else than they say."""
    for number, (name, (metric, phase, _)) in enumerate(CASES.items()):
        if only in (None, metric):
            values = storage.minutes(spoil(metrics[metric]["provider"]["prometheus"]["query"]), (f"c-{number}", f"s-{number}"), 10)
            said = promql.phase(metrics[metric], [values[10]]) if values else "no query"
            if said != phase:
                yield f"{name}: {metric} is {said}, not {phase}"


THRESHOLDS = {r"\b4 \* sqrt": (3.6, 4.4), r", 0\.005\)": (0.0035, 0.0065), r">= 100 ": (90, 110), r"< 100": (90,), r">= 10\b": (9, 11),
              r"> 0\.05": (0.035, 0.065), r"> 0\.8": (0.7, 0.9), r"0\.99 \*": (0.97, 0.999), r"- 420 ": (200, 1000)}


def mutations(query):
    """What is changed, and the query with it: a label or the window of one set of series, or one number, wherever it stands."""
    for series in sorted(set(re.findall(r"\w+\{[^}]*\}(?:\}[^}]*\}+)*", query.replace("{{", "<<").replace("}}", ">>")))):
        series = series.replace("<<", "{{").replace(">>", "}}")
        for label in re.findall(r'\w+(?:=~|!~|!=|=)"[^"]*"', series):
            yield f"{series} without {label}", query.replace(series, series.replace(label, ""))
        for window in ("3m", "8m"):
            yield f"{series} of {window}", query.replace(f"{series} offset 5m", f"{series} offset {window}")
        yield f"{series} not from its first value", query.replace(f" or {series})", ")")
        yield f"{series} before its process started anew", query.replace(f" >= 0 or {series})", f" or {series})")
    for range_ in ("[60s:60s]", "[180s:60s]"):
        yield f"twice in {range_}", query.replace("[120s:60s]", range_)
    yield "[5m] is [1s]", query.replace("[5m]", "[1s]")
    for number, others in THRESHOLDS.items():
        for other in others:
            yield f"{number} is {other}", re.sub(number, lambda found, other=other: re.sub(r"[\d.]+", str(other), found[0]), query)
    yield "nothing is unknown", re.sub(r"unless on \(\) \(process.*? offset \w+\)", "", query)
    yield "no 0 for what is not there", query.replace(" or vector(0))", ")")


def unnoticed(storage, metrics, some=lambda all_: all_):
    """How many changes there are, and those after which every case is judged as before."""
    count, missed = 0, []
    for name, metric in metrics.items():
        query = metric["provider"]["prometheus"]["query"]
        for what, changed in some([(what, changed) for what, changed in mutations(query) if changed != query]):
            count += 1
            if not any(judged_otherwise(storage, metrics, lambda _, changed=changed: changed, name)):
                missed.append(f"{name}: {what}")
    return count, missed


def check(report, documents, tools):
    """The cases, one change of each kind, and a few canaries. What is not here is reported, and is a failure in CI."""
    row = "the gate: cases, by a real Prometheus"
    for tool in ("prometheus", "promtool"):
        if not shutil.which(tool):
            report.missing(row, f"{tool}: apt-get install prometheus")
            return
    metrics = gates(documents)
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
        report.check("the gate: simulated canaries", name, "; ".join(faults) or None if {outcome for outcome, _ in outcomes} == {expected} else f"{outcomes}")


def table(documents, tools):
    """All of it, as Markdown. Whether everything is as it should be."""
    metrics, faults = gates(documents), []

    def share(number):
        return f"{100 * number / CANARIES:.1f} %".replace(".0 %", " %")

    def simulated(name, rate, stable, canary):
        began = time.monotonic()
        outcomes, differences, minutes = cell(tools / "canary-table", metrics, f"{name} {rate}".replace(" ", "-").replace("%", "percent"), CANARIES, rate, stable, canary)
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
    print(f"| worse: taken back before the second step, of {CANARIES} | " + " | ".join(f"{rate}/s" for rate in RATES) + " |")
    print("|---|" + "---|" * len(RATES))
    for name, (stable, canary) in WORSE.items():
        cells = []
        for rate in RATES:
            outcomes, minutes = simulated(name, rate, stable, canary)
            found = sum(outcome == ("aborted", 0) for outcome in outcomes)
            faults += [f"{name}, {rate}/s: {found} of {CANARIES} taken back before the second step"] * (rate >= 50 and found < 0.99 * CANARIES)
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
