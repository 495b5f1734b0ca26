"""Drills of the chart on the cluster of .ci/cluster: a version rolled out, judged, taken back, while clients go on.

    drill.py [--short] [NAME…]      all of them, the three that CI runs, or those of these names

Some run at the same time (LANES, 3), each in a namespace of its own; those that disturb the cluster run alone, after the others.
"""

import concurrent.futures
import math
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time
import traceback

import cluster
import git
from cluster import ROOT, get, kubectl, lane, merged, run, until

RATE = 60  # requests a second: enough for a verdict in a window of 30 s
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = pathlib.Path(os.environ.get("TAFFRAIL_BINARY", TARGET / "release/taffrail"))
WASM = TARGET / "wasm32-wasip2/release"
VERSION = WASM / "examples/version.wasm"

# Tag: what its variable VERSION says (host/tests/guests/examples/version.rs).
VERSIONS = {
    "one": "good one", "two": "good two", "three": "good three", "half-percent-1": "fails 5", "half-percent-2": "fails 5",
    "five-percent": "fails 50", "traps": "traps", "slow-base": "slow 500 60", "slow-three": "slow 500 180", "refuses": "refuses",
    "obeys": "obeys",
    "crashes": None,  # the host does not start
    "never-ready": None,  # it starts, and nothing answers
}
making, made = threading.Lock(), set()


def image(tag):
    """Makes the image of a version, once."""
    with making:
        if tag not in VERSIONS or tag in made:
            return
        own = ["TAFFRAIL_COMPONENT=/component.wasm", "TAFFRAIL_LISTEN=0.0.0.0:8080", "TAFFRAIL_ADMIN_LISTEN=0.0.0.0:9090"]
        version = VERSIONS[tag]
        given = f"TAFFRAIL_ENV=VERSION={version}" if version else "TAFFRAIL_DEADLINE=never"
        files = [cluster.HOME / "bin/pause"] if tag == "never-ready" else [f"{BINARY}=/taffrail", f"{VERSION}=/component.wasm"]
        subprocess.run([ROOT / ".ci/cluster", "image", f"hello:{tag}", *files], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "IMAGE_USER": "65532:65532", "IMAGE_ENV": "\n".join([*own, given])})
        made.add(tag)


def helm(tag, *layers, flags=()):
    image(tag)
    cluster.helm(tag, *layers, flags=flags)


def space():
    """The lane's namespace, as strict as production's."""
    run("kubectl", "create", "namespace", lane.space, check=False)
    run("kubectl", "label", "--overwrite", "namespace", lane.space, "pod-security.kubernetes.io/enforce=restricted")
    token(1, "a-token-of-the-drills")


def token(number, *lines):
    text = "\n".join(lines)
    kubectl("create", "secret", "generic", f"tokens-{number}", f"--from-literal=auth-tokens={text}", check=False)


class Drill:
    """One drill: its moments, its clients, what it must come to."""

    def __init__(self, name):
        self.name, self.began, self.clients, self.notes = name, time.time(), None, []

    def watch(self, address=None, host=None, rate=RATE):
        """Clients from now on, of the Service or of another address."""
        self.clients = cluster.Clients(address or cluster.service_address("hello"), rate, host)
        began = time.time()
        until(30, "the first answers", lambda: self.clients.since(began)[0] > 0)

    def to(self, tag, wanted, *layers, flags=(), says=None):
        """Upgrades to a version, which must come to this phase."""
        began = time.time()
        helm(tag, *layers, flags=flags)
        until(30, "the controller has seen it", lambda: cluster.state(), pause=0.2)
        message = self.comes_to(wanted)
        self.notes.append(f"{tag} {wanted} {time.time() - began:.0f} s")
        assert not says or says in message, f"says {message!r}, and nothing of {says!r}"

    def comes_to(self, wanted):
        """Waits for the verdict, which must be this one. Its message."""
        phase, message = cluster.verdict()
        assert phase == wanted, f"is {phase}, not {wanted}: {message}"
        return message

    def in_the_midst(self, disturb):
        """A good version passes, whatever is done to the cluster while its first step lasts, and no request is lost."""
        ensure("one")
        self.watch()
        helm("two")
        self.canary_is_there()
        disturb()
        self.comes_to("Healthy")
        self.lost_nothing()

    def canary_is_there(self):
        """Its first step has begun: it has its share of the traffic."""
        until(60, "the canary is there", lambda: (cluster.state() or [None, 0])[1] == 1)

    def failed(self):
        """(requests, failed by kind) of the whole drill."""
        time.sleep(2)  # the last second's counts
        right, wrong = self.clients.since(self.began)
        return right + sum(wrong.values()), wrong

    def lost_nothing(self):
        total, wrong = self.failed()
        assert not wrong, f"of {total} requests failed: {wrong}"

    def end(self):
        if self.clients:
            self.clients.end()


def ensure(tag, *layers, service="hello"):
    """The version stands, whatever was before: promoted without a judgement, which would wait for traffic."""
    helm(tag, *layers)
    until(30, "the controller has seen it", lambda: cluster.state(), pause=0.2)
    promote = ["--subresource", "status", "--type", "merge", "--patch", '{"status": {"promoteFull": true}}']

    def stands():
        phase = (cluster.state() or [None])[0]
        if phase not in ("Healthy", None):
            kubectl("patch", "rollout", "hello", *promote)
        return phase == "Healthy"

    until(120, f"{tag} is healthy", stands, pause=2)
    alone(tag, service, limit=90)


def absent():
    """Nothing is there of what another drill has left."""
    run("helm", "uninstall", "hello", "--namespace", lane.space, "--wait", check=False)


def alone(tag, service="hello", limit=60):
    until(limit, f"{tag} serves alone", lambda: set(cluster.tags_of(service)) == {tag})


def install(drill):
    """Helm 4 as it is: install, upgrade, rollback, upgrade; and its tests by the product's own image."""
    absent()
    helm("one")
    until(120, "one is healthy", lambda: (cluster.state() or [None])[0] == "Healthy")
    drill.watch()
    run("helm", "test", "hello", "--namespace", lane.space)
    drill.to("two", "Healthy")
    run("helm", "rollback", "hello", "--namespace", lane.space)
    until(120, "one again", lambda: set(cluster.tags_of("hello")) == {"one"} and cluster.state()[0] == "Healthy")
    drill.to("three", "Healthy")
    drill.lost_nothing()


def helm_3(drill):
    """The way of Helm 3: a patch by the client."""
    ensure("one")
    drill.watch()
    drill.to("two", "Healthy", flags=["--server-side=false"])
    drill.to("one", "Healthy", flags=["--server-side=false"])
    drill.lost_nothing()


def good(drill):
    ensure("one")
    drill.watch()
    drill.to("two", "Healthy")
    assert set(cluster.tags_of("hello-stable")) == {"two"}
    drill.lost_nothing()


def bad(tag, says):
    def drilled(drill):
        ensure("one")
        drill.watch()
        drill.to(tag, "Degraded", says=says)
        alone("one")
    return drilled


def slow(drill):
    ensure("slow-base")
    drill.watch()
    drill.to("slow-three", "Degraded", says="slow")


def same_failures(drill):
    """Half a percent of failures in both: no abort."""
    ensure("half-percent-1")
    drill.watch()
    for turn in range(int(os.environ.get("TURNS", "10"))):
        drill.to(("half-percent-2", "half-percent-1")[turn % 2], "Healthy")


def never_serves(tag):
    """A version of which no pod gets ready is taken back, and no client sees any of it."""
    def drilled(drill):
        ensure("one")
        drill.watch()
        drill.to(tag, "Degraded", {"update": {"progressDeadlineSeconds": 30}})
        drill.lost_nothing()
    return drilled


def burst(drill):
    """Failures before Prometheus has seen the canary at all count, though all is well from then on."""
    ensure("one")
    drill.watch()
    began = time.time()
    helm("obeys")
    address = cluster.service_address("hello-canary")
    until(60, "a pod of the canary", lambda: cluster.tags_of("hello-canary") == ["obeys"], pause=0.1)
    failed = 0
    for _ in range(200):
        status = run("curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", f"http://{address}/ping?fail").stdout
        failed += status == "500"
    assert failed > 100, f"{failed} of 200 requests failed"
    drill.comes_to("Degraded")
    drill.notes.append(f"obeys Degraded {time.time() - began:.0f} s, {failed} failed in its first moments")


def no_traffic(drill):
    """Nobody asks, for five minutes: the canary waits, armed. Then the first traffic decides: good passes, bad goes back."""
    for tag, wanted, quiet in (("two", "Healthy", 300), ("traps", "Degraded", 60)):
        ensure("one" if wanted == "Healthy" else "two")
        helm(tag)
        time.sleep(quiet)  # what is drilled is that time alone decides nothing
        phase = cluster.state()[0]
        assert phase == "Progressing", f"after {quiet} s without a request {tag} is {phase}"
        drill.watch()
        began = time.time()
        drill.comes_to(wanted)
        drill.notes.append(f"{tag} after {quiet} s {wanted} {time.time() - began:.0f} s")
        drill.end()


def prometheus(replicas):
    patch = f'{{"spec": {{"replicas": {replicas}}}}}'
    run("kubectl", "--namespace", "monitoring", "patch", "prometheus", "main", "--type", "merge", "--patch", patch)


def prometheus_away(seconds):
    """A good version waits for as long as nobody can judge it, and goes on by itself."""
    def go_away():
        prometheus(0)
        time.sleep(seconds)  # how long it is away is the drill
        assert cluster.state()[0] == "Progressing", cluster.state()
        prometheus(1)

    return lambda drill: drill.in_the_midst(go_away)


def prometheus_gone(drill):
    """Past the time that the values give, the canary goes back, and says why."""
    ensure("one")
    drill.watch()
    prometheus(0)
    try:
        drill.to("two", "Degraded", {"rollout": {"analysis": {"prometheusAwaySeconds": 60}}}, says="consecutiveErrors")
        alone("one")
        drill.lost_nothing()
    finally:
        prometheus(1)
        until(90, "Prometheus is back", lambda: not run("kubectl", "wait", "--for=condition=Available", "prometheus/main", "--namespace",
                                                        "monitoring", "--timeout", "5s", check=False).returncode)


def rotation(drill):
    """A new token with a version that fails: taken back, the old token goes on; and then with a good one."""
    ensure("one")
    drill.watch()
    token(2, "a-token-of-the-drills", "another-token-of-them")
    drill.to("traps", "Degraded", {"auth": {"existingSecret": "tokens-2"}})
    drill.to("two", "Healthy", {"auth": {"existingSecret": "tokens-2"}})


def fix_forward(drill):
    """After an abort the next good version passes, and so does a revert to the one before."""
    ensure("one")
    drill.watch()
    drill.to("five-percent", "Degraded")
    drill.to("two", "Healthy")
    drill.to("one", "Healthy")


def refused_tokens(drill):
    """A version that refuses every token is promoted (its contract is what keeps it out), and the fix after it passes."""
    ensure("refuses")
    drill.watch()
    drill.to("one", "Healthy")


def node_drained(drill):
    try:
        drill.in_the_midst(lambda: run("kubectl", "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", "120s",
                                       "--pod-selector", "app.kubernetes.io/name=hello"))
    finally:
        run("kubectl", "uncordon", "node2")


def controller_restarted(drill):
    drill.in_the_midst(lambda: run("kubectl", "--namespace", "argo-rollouts", "delete", "pods", "--all", "--wait=false"))


def apiserver_restarted(drill):
    drill.in_the_midst(lambda: cluster.project("restart", "apiserver"))


def autoscaled(drill):
    """A canary aborted by hand in the moment in which the autoscaler adds pods: stable gets them, and nobody sees it."""
    layer = {"replicas": None, "autoscaling": {"enabled": True, "minReplicas": 4, "maxReplicas": 8}}
    absent()  # who has set the number of pods keeps it, to Helm 4: here the autoscaler shall
    ensure("one", layer)
    drill.watch(rate=5)
    wanted = lambda: get("horizontalpodautoscaler", "hello")["status"].get("desiredReplicas", 0)  # noqa: E731
    until(90, "the autoscaler has measured", lambda: wanted() == 4)
    helm("two", layer)
    drill.canary_is_there()
    more = cluster.Clients(cluster.service_address("hello"), 200)
    try:
        after = until(120, "the autoscaler wants more", lambda: wanted() if wanted() > 4 else None)
        assert cluster.state()[0] == "Progressing", cluster.state()
        kubectl("patch", "rollout", "hello", "--subresource", "status", "--type", "merge", "--patch", '{"status": {"abort": true}}')
        drill.comes_to("Degraded")
        until(60, "stable has the pods", lambda: len(cluster.tags_of("hello")) == wanted() and set(cluster.tags_of("hello")) == {"one"})
        right, wrong = more.since(0)
        assert not wrong, f"of {right} requests of the load failed: {wrong}"
        drill.notes.append(f"4 to {after} pods, {right} requests more")
    finally:
        more.end()
    drill.lost_nothing()
    drill.end()
    absent()


def image_volume(drill):
    """The component has an image of its own, and a new one of these is a canary like any other."""
    def layer(wasm):
        name = f"component:{wasm.stem}"
        digest = cluster.project("image", name, f"{wasm}=/component.wasm").stdout.strip()
        volume = {"repository": "taffrail.test/component", "tag": wasm.stem, "digest": digest, "pullPolicy": "Never"}
        return {"component": {"source": "imageVolume", "volume": volume}}

    before, after = layer(WASM / "hello.wasm"), layer(VERSION)
    ensure("one", before)
    drill.watch()
    until(15, "hello answers, which names no version", lambda: drill.clients.since(drill.began)[0] > 100)
    assert not drill.clients.versions(0, time.time()), "what answers is the component of the host's own image"
    drill.to("one", "Healthy", after)
    until(60, "the other component answers alone", lambda: answered(drill, "good one") > 0.99)
    drill.lost_nothing()


def answered(drill, version):
    """The share of the last answers that a version gave."""
    now = time.time()
    right, _ = drill.clients.since(now - 4)
    return drill.clients.versions(now - 4, now)[version] / max(right, 1)


def network_policy(drill):
    """With the policy on the canary is scraped and judged and clients come in; everything else is refused, in both directions."""
    [api] = [run("kubectl", "get", "service", "kubernetes", "--output", "jsonpath={.spec.clusterIP}").stdout]
    hello, refused = "app.kubernetes.io/name=hello", (7, 28)  # curl's numbers for no connection, and none in time
    calls_out = lambda: cluster.in_pod(hello, lane.space, "curl", "--silent", "--insecure", "--max-time", "3", f"https://{api}/livez")  # noqa: E731

    def scraped_from(selector, namespace):
        [address, *_] = cluster.addresses_of("hello-metrics")
        return cluster.in_pod(selector, namespace, "curl", "--silent", "--max-time", "3", f"http://{address}:9090/metrics")

    ensure("one")
    assert not calls_out().returncode and not scraped_from("k8s-app=kube-dns", "kube-system").returncode, "without a policy nothing is refused"
    layer = {"networkPolicy": {"enabled": True}}
    ensure("one", layer)
    drill.watch()
    drill.to("two", "Healthy", layer)
    until(30, "calls out are refused", lambda: calls_out().returncode in refused)
    assert scraped_from("k8s-app=kube-dns", "kube-system").returncode in refused, "a pod of a namespace that may not reaches the admin port"
    scraped = scraped_from("app.kubernetes.io/name=prometheus", "monitoring")
    assert "taffrail_requests_in_flight" in scraped.stdout, "Prometheus does not reach the admin port"
    drill.lost_nothing()


def kinds(drill):
    """Deployment to Rollout and back."""
    ensure("one")
    drill.watch()
    helm("one", {"rollout": {"enabled": False, "analysis": {"enabled": False}}})
    until(120, "the Deployment serves", lambda: get("deployment", "hello")["status"].get("availableReplicas") == 4)
    until(60, "the Rollout is gone", lambda: kubectl("get", "rollout", "hello", check=False).returncode)
    ensure("one")
    drill.lost_nothing()


def weights():
    """The layer of values with which an ingress splits the traffic."""
    return {"ingress": {"enabled": True, "className": "nginx"}, "traffic": {"hostname": f"{lane.space}.test"},
            "rollout": {"trafficRouting": "nginx", "steps": [5, 25, 50], "analysis": {"minRequests": 20}}}


def at_ingress(drill, rate):
    [entry] = [run("kubectl", "--namespace", "gateways", "get", "service", "traefik", "--output", "jsonpath={.spec.clusterIP}").stdout]
    drill.watch(entry, f"{lane.space}.test", rate)


def by_weights(drill):
    """An ingress splits the traffic as the Rollout says, within three standard deviations of chance."""
    layer = weights()
    ensure("one", layer, service="hello-stable")  # the old pods stay behind `hello` for scaleDownDelaySeconds
    at_ingress(drill, RATE * 2)
    drill.began = time.time()
    began, shares = time.time(), []
    helm("two", layer)
    for weight in layer["rollout"]["steps"]:
        until(120, f"the weight of {weight}", lambda weight=weight: weight_of_canary() == weight, pause=0.2)
        since = time.time() + 3  # the ingress has read it, and the clients have counted by the second
        until(120, "the next step", lambda weight=weight: weight_of_canary() != weight, pause=0.2)
        seen = drill.clients.versions(since, time.time() - 2)
        total, expected = sum(seen.values()), weight / 100
        share, deviation = seen["good two"] / total, math.sqrt(expected * (1 - expected) / total)
        shares.append(f"{weight} %: {share:.1%} of {total}")
        assert abs(share - expected) <= 3 * deviation, f"at {weight} % the canary had {share:.1%} of {total} requests"
    drill.comes_to("Healthy")
    drill.notes.append(f"two Healthy {time.time() - began:.0f} s, {', '.join(shares)}")
    drill.lost_nothing()
    drill.to("five-percent", "Degraded", layer)


def weight_of_canary():
    entries = get("ingresses")["items"]
    found = [each["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/canary-weight") for each in entries
             if "nginx.ingress.kubernetes.io/canary" in each["metadata"].get("annotations", {})]
    return int(found[0]) if found else None


def argo_cd(drill):
    """By Git: a commit is a canary; a bad one is taken back, and by a revert; a new token comes while others go on; what somebody changes
    by hand in the midst of a canary is set right, and the canary's weight is not; at rest the Application is Synced and Healthy."""
    absent()
    for tag in ("one", "two", "three", "traps"):
        image(tag)
    layer = merged(weights(), {"auth": {"existingSecret": "", "tokens": ["a-token-of-the-drills"]}})
    rotated = merged(layer, {"auth": {"tokens": ["a-token-of-the-drills", "another-token-of-the-drills"]}})
    with git.Application(lane.space) as application:
        application.commit("one", layer)
        application.comes_to("Healthy")
        at_ingress(drill, RATE)
        drill.began = time.time()

        began = time.time()
        application.commit("two", layer)
        until(120, "the second step", lambda: weight_of_canary() == 25, pause=0.2)
        kubectl("patch", "poddisruptionbudget", "hello", "--type", "merge", "--patch", '{"spec": {"maxUnavailable": 3}}')
        until(60, "it is set right", lambda: get("poddisruptionbudget", "hello")["spec"]["maxUnavailable"] == 1, pause=0.2)
        weight = weight_of_canary()
        assert weight in (25, 50), f"the canary has a weight of {weight} then"
        application.comes_to("Healthy")
        drill.notes.append(f"two promoted {time.time() - began:.0f} s")
        drill.lost_nothing()

        began = time.time()
        application.commit("traps", layer)
        until(240, "traps is taken back", lambda: application.state()[1] == "Degraded")
        drill.notes.append(f"traps taken back {time.time() - began:.0f} s")
        application.revert()
        application.comes_to("Healthy")
        alone("two", "hello-stable", limit=90)

        application.commit("two", rotated)
        until(120, "the second step", lambda: weight_of_canary() == 25, pause=0.2)
        began = time.time()
        application.revert()  # and nobody waits until the canary has ended
        until(15, "the revert is there", application.is_synced)
        assert cluster.state()[0] != "Degraded", cluster.state()
        drill.notes.append(f"a commit in the midst of a rotation is there {time.time() - began:.0f} s")
        application.comes_to("Healthy")
        application.commit("three", rotated)
        application.comes_to("Healthy")
        _, wrong = drill.failed()
        drill.end()  # what follows is the end of the service
        assert all(kind.startswith("500 ") for kind in wrong), f"more failed than the requests that traps had: {wrong}"


# The longest first.
DRILLS = {
    "no traffic": no_traffic, "same failures": same_failures, "install": install, "argo cd": argo_cd, "fix forward": fix_forward,
    "weights": by_weights, "helm 3": helm_3, "rotation": rotation, "autoscaled": autoscaled, "network policy": network_policy,
    "image volume": image_volume, "good": good, "refused tokens": refused_tokens, "5 % fail": bad("five-percent", "fail"),
    "traps": bad("traps", "fail"), "burst": burst, "slow": slow, "missing image": never_serves("no-such-tag"),
    "crashes": never_serves("crashes"), "never ready": never_serves("never-ready"), "kinds": kinds,
    "Prometheus away 60 s": prometheus_away(60), "Prometheus away 180 s": prometheus_away(180), "Prometheus gone": prometheus_gone,
    "controller restarted": controller_restarted, "apiserver restarted": apiserver_restarted, "node drained": node_drained,
}
SHORT = ["install", "good", "traps"]
# What these do to the cluster every other drill would see.
ALONE = ["Prometheus away 60 s", "Prometheus away 180 s", "Prometheus gone", "controller restarted", "apiserver restarted", "node drained"]


def drilled(name):
    """A row of the table: name, how it came out, seconds, notes, requests, those that failed."""
    lane.drill, drill = name, Drill(name)
    cluster.say("begins")
    try:
        DRILLS[name](drill)
        fault = None
    except Exception as error:  # one drill that fails is no reason to leave out the others
        fault = str(error) or traceback.format_exc(limit=2)
    total, wrong = drill.failed() if drill.clients else (0, {})
    drill.end()
    said = ", ".join(f"{count} × {kind}" for kind, count in sorted(wrong.items())) or "0"
    row = (name, "FAILED" if fault else "right", f"{time.time() - drill.began:.0f}", "; ".join(drill.notes) or "–", str(total), said)
    cluster.say(f"{row[1:]} {fault or ''}")
    return row


def main():
    names = [name for name in sys.argv[1:] if name != "--short"] or (SHORT if "--short" in sys.argv else list(DRILLS))
    if unknown := [name for name in names if name not in DRILLS]:
        sys.exit(f"there is no drill called {unknown[0]}; there are: {', '.join(DRILLS)}")
    began, spaces = time.time(), queue.SimpleQueue()
    together = [name for name in names if name not in ALONE]
    lanes = min(int(os.environ.get("LANES", "3")), max(len(together), 1))
    for number in range(lanes):
        spaces.put(f"drill-{number + 1}")

    def enter():
        lane.space = spaces.get()
        space()

    with concurrent.futures.ThreadPoolExecutor(lanes, initializer=enter) as pool:
        rows = list(pool.map(drilled, together))
    spaces.put("drill-1")
    enter()
    rows += [drilled(name) for name in names if name in ALONE]
    titles = ("drill", "came out", "seconds", "verdicts", "requests", "failed")
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    failed = sum(row[1] != "right" for row in rows)
    print(f"{len(rows)} drills, {failed} failed, {time.time() - began:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
