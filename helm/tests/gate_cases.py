"""What the gate says in single cases, each with pods that count the same every minute; and what it may not say once a query is changed."""

import re

import promql
from canaries import LAST, START, WINDOW, Pod

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
SLOWER_THAN_1_S = "slower-than-stable with slowSeconds: 1"
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
    "10 % above 1 s, as of stable": (SLOWER_THAN_1_S, GOOD, [Given("s", "s", taking(0, 0, 900, 1000, 1000, 1000)), Given("c", "c", taking(0, 0, 45, 50, 50, 50))]),
    "20 % above 1 s, and 10 % of stable's": (SLOWER_THAN_1_S, BAD, [Given("s", "s", taking(0, 0, 900, 1000, 1000, 1000)), Given("c", "c", taking(0, 0, 40, 50, 50, 50))]),
    "the same, where 1.0 is 1": (SLOWER_THAN_1_S, BAD, [Given("s", "s", taking(0, 0, 900, 1000, 1000, 1000, edges=(0.05, 0.25, "1", "2.5", "30", "+Inf"))),
        Given("c", "c", taking(0, 0, 40, 50, 50, 50, edges=(0.05, 0.25, "1", "2.5", "30", "+Inf")))]),
    "slower, and all below 1 s": (SLOWER_THAN_1_S, GOOD, [*QUICK, Given("c", "c", taking(0, 10, 50, 50, 50, 50))]),
    "no request within 1 s": (SLOWER_THAN_1_S, BAD, [*QUICK, Given("c", "c", taking(0, 0, 0, 0, 50, 50))]),
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
    for name in (FAILS, SLOWER, SATURATED):
        query = metrics[name]["provider"]["prometheus"]["query"]
        for what, changed in some([(what, changed) for what, changed in mutations(query) if changed != query]):
            count += 1
            if not any(judged_otherwise(storage, metrics, lambda _, changed=changed: changed, name)):
                missed.append(f"{name}: {what}")
    return count, missed
