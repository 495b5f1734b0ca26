"""Canaries that are made up, and the rule of the gate in plain Python, which moves each from step to step.

A canary is simulated minute by minute: its requests come at random, and what its pods would expose is kept. Of four scrapes a minute
that is the last, because no query looks at the others.
"""

import collections
import functools
import math
import random
import statistics

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
RATES, BUSY, CANARIES = [8, 20, 50, 200], [50, 200], 300


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
