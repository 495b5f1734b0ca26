"""The cluster as the drills see it: helm, kubectl, Git, what a Rollout has come to, what clients have seen. Each drill runs in a lane, a
thread with a namespace of its own."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOME = pathlib.Path(os.environ.get("TAFFRAIL_CLUSTER", ROOT / "target/cluster"))

lane = threading.local()  # .space: the namespace of this thread; .drill: the name of what runs in it

# Short steps: what takes ten minutes in production takes half a minute here. The shares and tests are the chart's own.
VALUES = {
    "environment": "staging",
    "image": {"repository": "taffrail.test/hello", "pullPolicy": "Never"},
    "replicas": 4,
    "rollout": {
        "enabled": True, "steps": [25, 50], "pause": "15s",
        "analysis": {"enabled": True, "prometheus": "http://prometheus-operated.monitoring.svc:9090", "window": "30s", "interval": "5s", "count": 3,
                     "minRequests": 50},
    },
    "auth": {"existingSecret": "tokens-1"},
    "serviceMonitor": {"enabled": True, "interval": "5s"},
    "networkPolicy": {"enabled": False},
    "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
    "tests": {"enabled": True},
}


def say(text):
    print(f"      [{getattr(lane, 'drill', '')}] {text}", file=sys.stderr, flush=True)


def environment():
    return {**os.environ, "KUBECONFIG": str(HOME / "etc/admin.conf"), "PATH": f"{HOME / 'bin'}:{os.environ['PATH']}"}


def run(*command, check=True, input=None, timeout=180):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment(), input=input, timeout=timeout, check=False)
    if check and done.returncode:
        raise ChildProcessError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def kubectl(*arguments, **options):
    return run("kubectl", "--namespace", lane.space, "--request-timeout", "20s", *arguments, **options)


def project(*arguments, **options):
    """The cluster's own script."""
    return run(ROOT / ".ci/cluster", *arguments, **options)


def get(*arguments):
    return json.loads(kubectl("get", *arguments, "--output", "json").stdout)


def merged(*layers):
    result = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


def values_of(tag, *layers):
    return merged(VALUES, {"image": {"tag": tag}}, *layers)


def helm(tag, *layers, flags=()):
    """Installs or upgrades to an image's tag."""
    command = ["helm", "upgrade", "--install", "hello", ROOT / "helm/hello", "--namespace", lane.space, "--values", "-", *flags]
    return run(*command, input=json.dumps(values_of(tag, *layers)))


def until(limit, what, condition, pause=0.5):
    """The first true answer of the condition."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if answer := condition():
                return answer
        except (ChildProcessError, subprocess.TimeoutExpired, KeyError) as error:
            say(f"(not yet: {str(error)[:150]})")
        time.sleep(pause)
    raise TimeoutError(f"{limit} s were not enough: {what() if callable(what) else what}")


def state():
    """Phase, step, message of the Rollout, once its controller has seen what was asked last."""
    rollout = get("rollout", "hello")
    status = rollout.get("status", {})
    if str(rollout["metadata"]["generation"]) != str(status.get("observedGeneration")):
        return None
    return status.get("phase"), status.get("currentStepIndex"), bool(status.get("abort")), status.get("message") or ""


def verdict(limit=240):
    """(phase, message) once the Rollout is Healthy or Degraded."""
    seen = []

    def ended():
        now = state()
        if now and now != (seen[-1] if seen else None):
            seen.append(now)
            say(f"{now[0]}, step {now[1]}: {now[3][:160]}")
        return now if now and now[0] in ("Healthy", "Degraded") else None

    phase, _, _, message = until(limit, lambda: f"a verdict; {seen[-1:]}", ended)
    return phase, message


def endpoints(service):
    """What is ready behind a Service."""
    slices = get("endpointslices", "--selector", f"kubernetes.io/service-name={service}")["items"]
    return [endpoint for each in slices for endpoint in each["endpoints"] or [] if endpoint["conditions"].get("ready")]


def addresses_of(service):
    return [address for endpoint in endpoints(service) for address in endpoint["addresses"]]


def tags_of(service):
    """The images' tags behind a Service, pod by pod."""
    names = [endpoint["targetRef"]["name"] for endpoint in endpoints(service)]
    pods = {pod["metadata"]["name"]: pod for pod in get("pods")["items"]}
    return sorted(pods[name]["spec"]["containers"][0]["image"].rpartition(":")[2] for name in names if name in pods)


def in_pod(where, namespace, *command):
    """Runs a command of this machine in the network of a pod: the first that the selector finds."""
    [address, *_] = run("kubectl", "--namespace", namespace, "get", "pods", "--selector", where, "--field-selector", "status.phase=Running",
                        "--output", "jsonpath={.items[*].status.podIP}").stdout.split()
    for network in pathlib.Path("/run/netns").glob("cni-*"):
        if f" {address}/" in run("nsenter", f"--net={network}", "ip", "-4", "-oneline", "address").stdout:
            return run("nsenter", f"--net={network}", *command, check=False)
    raise LookupError(f"no network of a pod has the address {address}")


class Clients:
    """Traffic from beside the cluster, to an address that a Service or an ingress has."""

    def __init__(self, address, rate, host=None):
        command = [sys.executable, HERE / "clients.py", address, rate, *([host] if host else [])]
        self.child = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        self.seconds = []
        threading.Thread(target=lambda: self.seconds.extend(map(json.loads, self.child.stdout)), daemon=True).start()

    def since(self, moment):
        """What came back since then: right answers, and the others by kind."""
        total = self._sum("kinds", moment, time.time())
        return total.pop("right", 0), total

    def versions(self, since, until_moment):
        """How many answers each version gave in this time."""
        return self._sum("versions", since, until_moment)

    def _sum(self, what, since, until_moment):
        total = collections.Counter()
        for second in list(self.seconds):
            if since <= second["at"] <= until_moment:
                total.update(second[what])
        return total

    def end(self):
        self.child.kill()
        self.child.wait()


def service_address(name):
    return get("service", name)["spec"]["clusterIP"]
