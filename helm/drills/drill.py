"""Drills of the chart on the cluster of .ci/cluster: a version rolled out, judged, taken back, while clients go on.

    drill.py [--short] [NAME…]      all of them, the three that CI runs, or those of these names
"""

import os
import pathlib
import subprocess
import sys
import time
import traceback

import cluster
from cluster import ROOT, SPACE, get, helm, kubectl, run, until

RATE = 60  # requests a second: enough for a verdict in a window of 30 s
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BINARY = pathlib.Path(os.environ.get("TAFFRAIL_BINARY", TARGET / "release/taffrail"))
WASM = TARGET / "wasm32-wasip2/release"
VERSION = WASM / "examples/version.wasm"

# Tag: what its variable VERSION says (host/tests/guests/examples/version.rs).
VERSIONS = {
    "one": "good", "two": "good", "three": "good", "half-percent-1": "fails 5", "half-percent-2": "fails 5", "five-percent": "fails 50",
    "traps": "traps", "slow-base": "slow 500 60", "slow-three": "slow 500 180", "refuses": "refuses",
    "crashes": None,  # the host does not start
}


def images():
    own = ["TAFFRAIL_COMPONENT=/component.wasm", "TAFFRAIL_LISTEN=0.0.0.0:8080", "TAFFRAIL_ADMIN_LISTEN=0.0.0.0:9090"]
    for tag, version in VERSIONS.items():
        given = f"TAFFRAIL_ENV=VERSION={version}" if version else "TAFFRAIL_DEADLINE=never"
        subprocess.run([ROOT / ".ci/cluster", "image", f"hello:{tag}", f"{BINARY}=/taffrail", f"{VERSION}=/component.wasm"], check=True,
                       env={**os.environ, "IMAGE_USER": "65532:65532", "IMAGE_ENV": "\n".join([*own, given])})


def space():
    """A namespace of its own, as strict as production's."""
    run("kubectl", "create", "namespace", SPACE, check=False)
    run("kubectl", "label", "--overwrite", "namespace", SPACE, "pod-security.kubernetes.io/enforce=restricted")
    token(1, "a-token-of-the-drills")


def token(number, *lines):
    text = "\n".join(lines)
    kubectl("create", "secret", "generic", f"tokens-{number}", f"--from-literal=auth-tokens={text}", check=False)


class Drill:
    """One drill: its moments, its clients, what it must come to."""

    def __init__(self, name):
        self.name, self.began, self.clients, self.notes = name, time.time(), None, []

    def watch(self, service="hello", host=None, rate=RATE):
        self.clients = cluster.Clients(cluster.service_address(service), rate, host)
        until(15, "the first answers", lambda: self.clients.since(self.began)[0] > 0)

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
        until(60, "the canary is there", lambda: (cluster.state() or [None, 0])[1] == 1)
        disturb()
        self.comes_to("Healthy")
        self.lost_nothing()

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
    until(60, f"{tag} serves alone", lambda: set(cluster.tags_of(service)) == {tag})


def install(drill):
    """Helm 4 as it is: install, upgrade, rollback, upgrade; and its tests by the product's own image."""
    run("helm", "uninstall", "hello", "--namespace", SPACE, "--wait", check=False)  # what another drill has left
    helm("one")
    until(120, "one is healthy", lambda: (cluster.state() or [None])[0] == "Healthy")
    drill.watch()
    run("helm", "test", "hello", "--namespace", SPACE)
    drill.to("two", "Healthy")
    run("helm", "rollback", "hello", "--namespace", SPACE)
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
        until(60, "one serves alone again", lambda: set(cluster.tags_of("hello")) == {"one"})
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


def missing_image(drill):
    ensure("one")
    drill.watch()
    drill.to("no-such-tag", "Degraded", {"update": {"progressDeadlineSeconds": 30}})
    drill.lost_nothing()


def crashes(drill):
    ensure("one")
    drill.watch()
    drill.to("crashes", "Degraded", {"update": {"progressDeadlineSeconds": 30}})
    drill.lost_nothing()


def no_traffic(drill):
    """Nobody asks: the canary waits, armed. Then the first traffic decides: good passes, bad goes back."""
    for tag, wanted in (("two", "Healthy"), ("traps", "Degraded")):
        ensure("one" if wanted == "Healthy" else "two")
        helm(tag)
        quiet = int(os.environ.get("QUIET", "60"))
        time.sleep(quiet)  # what is drilled is that time alone decides nothing
        phase = cluster.state()[0]
        assert phase == "Progressing", f"after {quiet} s without a request {tag} is {phase}"
        drill.watch()
        drill.comes_to(wanted)
        drill.end()


def prometheus_away(drill):
    """A good version waits for as long as nobody can judge it, and goes on by itself."""
    def scale(replicas):
        run("kubectl", "--namespace", "monitoring", "patch", "prometheus", "main", "--type", "merge",
            "--patch", f'{{"spec": {{"replicas": {replicas}}}}}')

    def go_away():
        scale(0)
        time.sleep(int(os.environ.get("AWAY", "60")))  # how long it is away is the drill
        assert cluster.state()[0] == "Progressing", cluster.state()
        scale(1)

    drill.in_the_midst(go_away)


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


def kinds(drill):
    """Deployment to Rollout and back."""
    ensure("one")
    drill.watch()
    helm("one", {"rollout": {"enabled": False, "analysis": {"enabled": False}}})
    until(120, "the Deployment serves", lambda: get("deployment", "hello")["status"].get("availableReplicas") == 4)
    until(60, "the Rollout is gone", lambda: kubectl("get", "rollout", "hello", check=False).returncode)
    ensure("one")
    drill.lost_nothing()


def by_weights(drill):
    """An ingress splits the traffic as the Rollout says."""
    layer = {"ingress": {"enabled": True, "className": "nginx"}, "traffic": {"hostname": "hello.test"},
             "rollout": {"trafficRouting": "nginx", "steps": [5, 25, 50], "analysis": {"minRequests": 20}}}
    ensure("one", layer, service="hello-stable")  # the old pods stay behind `hello` for scaleDownDelaySeconds
    [entry] = [run("kubectl", "--namespace", "gateways", "get", "service", "traefik", "--output", "jsonpath={.spec.clusterIP}").stdout]
    drill.clients = cluster.Clients(entry, RATE * 2, "hello.test")
    until(30, "the first answers", lambda: drill.clients.since(time.time() - 3)[0] > 0)
    drill.began = time.time()
    drill.to("two", "Healthy", layer)
    drill.lost_nothing()
    drill.to("five-percent", "Degraded", layer)


DRILLS = {
    "install": install, "good": good, "traps": bad("traps", "fail"), "helm 3": helm_3, "5 % fail": bad("five-percent", "fail"), "slow": slow,
    "missing image": missing_image, "crashes": crashes, "fix forward": fix_forward, "refused tokens": refused_tokens,
    "no traffic": no_traffic, "Prometheus away": prometheus_away, "rotation": rotation, "node drained": node_drained,
    "controller restarted": controller_restarted, "kinds": kinds, "weights": by_weights, "same failures": same_failures,
}
SHORT = ["install", "good", "traps"]


def main():
    names = [name for name in sys.argv[1:] if name != "--short"] or (SHORT if "--short" in sys.argv else list(DRILLS))
    images()
    space()
    rows, failed = [], 0
    for name in names:
        drill = Drill(name)
        print(f"=== {name}", file=sys.stderr, flush=True)
        try:
            DRILLS[name](drill)
            fault = None
        except Exception as error:  # one drill that fails is no reason to leave out the others
            fault = str(error) or traceback.format_exc(limit=2)
            failed += 1
        total, wrong = drill.failed() if drill.clients else (0, {})
        drill.end()
        said = ", ".join(f"{count} × {kind}" for kind, count in sorted(wrong.items())) or "0"
        rows.append((name, "FAILED" if fault else "right", f"{time.time() - drill.began:.0f}", "; ".join(drill.notes), str(total), said))
        print(f"    {rows[-1]} {fault or ''}", file=sys.stderr, flush=True)
    titles = ("drill", "came out", "seconds", "verdicts", "requests", "failed")
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
