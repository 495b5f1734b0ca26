"""The chart as Argo CD takes it: a repository of its own, and the Application of helm/argocd for it."""

import json
import pathlib
import shutil
import tempfile

import cluster
from cluster import ROOT, run, say, until

ENVIRONMENT = "helm/environments/production.yaml"


class Application:
    """The production Application in the namespace of a lane, from a repository of this drill. Ends with all that it made."""

    def __init__(self, space):
        self.space, self.name = space, "hello-production"
        self.bare = cluster.HOME / "argocd/git" / f"{space}.git"
        self.url = f"git://127.0.0.1/{space}.git"

    def __enter__(self):
        shutil.rmtree(self.bare, ignore_errors=True)
        run("git", "init", "--quiet", "--bare", "--initial-branch", "main", self.bare)
        self.folder = pathlib.Path(tempfile.mkdtemp())
        shutil.copytree(ROOT / "helm/hello", self.folder / "helm/hello")
        (self.folder / ENVIRONMENT).parent.mkdir()
        self._git("init", "--quiet", "--initial-branch", "main")
        self._git("remote", "add", "origin", self.bare)
        return self

    def __exit__(self, *_):
        self._kubectl("delete", "application", self.name, "--ignore-not-found", "--timeout", "60s", check=False)
        self._kubectl("delete", "appproject", "hello", "--ignore-not-found", check=False)
        for kind in ("rollout", "service", "ingress", "horizontalpodautoscaler", "poddisruptionbudget", "servicemonitor", "analysistemplate"):
            cluster.kubectl("delete", kind, "--all", "--ignore-not-found")
        for kind in ("secret", "serviceaccount", "networkpolicy"):
            cluster.kubectl("delete", kind, "--selector", "app.kubernetes.io/instance=hello", "--ignore-not-found")
        shutil.rmtree(self.folder)

    def _git(self, *arguments):
        who = ["-c", "user.name=drill", "-c", "user.email=drill@taffrail.test"]
        return run("git", "-C", self.folder, *who, *arguments).stdout.strip()

    def _kubectl(self, *arguments, **options):
        return run("kubectl", "--namespace", "argocd", "--request-timeout", "20s", *arguments, **options)

    def commit(self, tag, *layers):
        """A version's values, committed and pushed."""
        (self.folder / ENVIRONMENT).write_text(json.dumps(cluster.values_of(tag, *layers), indent=2))
        self._git("add", ".")
        self._git("commit", "--quiet", "--message", f"Serve {tag}")
        self._push()

    def revert(self):
        """Takes the last commit back."""
        self._git("revert", "--no-edit", "HEAD")
        self._push()

    def _push(self):
        self._git("push", "--quiet", "origin", "main")
        self.head = self._git("rev-parse", "HEAD")
        if self._kubectl("get", "application", self.name, check=False).returncode:
            for file in ("project", "production"):
                text = (ROOT / f"helm/argocd/{file}.yaml").read_text()
                text = text.replace("https://github.com/example/taffrail.git", self.url).replace("namespace: hello-production", f"namespace: {self.space}")
                self._kubectl("apply", "--filename", "-", input=text)
        # What a webhook does.
        self._kubectl("annotate", "--overwrite", "application", self.name, "argocd.argoproj.io/refresh=normal")

    def _status(self):
        return json.loads(self._kubectl("get", "application", self.name, "--output", "json").stdout).get("status", {})

    def state(self):
        """(sync, health, revision, conditions) of the Application."""
        status = self._status()
        sync, operation = status.get("sync", {}), status.get("operationState", {})
        said = "; ".join(each["message"] for each in status.get("conditions", [])) or operation.get("message", "")
        return sync.get("status"), status.get("health", {}).get("status"), sync.get("revision"), said

    def is_synced(self):
        """Whether the last commit is in the cluster."""
        status = self._status()
        done = status.get("operationState", {})
        return status.get("sync", {}).get("status") == "Synced" and done.get("syncResult", {}).get("revision") == self.head

    def comes_to(self, health, limit=300):
        """Waits until the last commit is Synced and of this health."""
        seen = []

        def ended():
            now = self.state()
            if now != (seen[-1] if seen else None):
                seen.append(now)
                say(f"{now[0]}, {now[1]}, {(now[2] or '')[:8]}: {now[3][:200]}")
            return now[:3] == ("Synced", health, self.head)

        until(limit, lambda: f"Synced and {health}; {seen[-1:]}", ended)
