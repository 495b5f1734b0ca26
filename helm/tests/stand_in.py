"""A stand-in for a cluster: an API server that keeps objects and runs nothing. Enough for kubectl and helm to be taken at their word."""

import base64
import http.server
import json
import re
import threading
import urllib.parse

# Kinds of a cluster beside those of the chart: group and version, kind, whether it lives in a namespace.
OTHERS = [("v1", "Namespace", False), ("v1", "Event", True), ("v1", "Secret", True), ("apps/v1", "Deployment", True), ("argoproj.io/v1alpha1", "AnalysisRun", True)]


def plural(kind):
    return re.sub("y$", "ie", kind.lower()) + ("es" if kind.endswith("ss") else "s")


def root(version):
    return f"/api/{version}" if "/" not in version else f"/apis/{version}"


def path_of(document, namespace):
    """Where an object is, and its collection."""
    within = "" if document["kind"] == "Namespace" else f"/namespaces/{namespace}"
    collection = f"{root(document['apiVersion'])}{within}/{plural(document['kind'])}"
    return f"{collection}/{document['metadata']['name']}", collection


class StandIn:
    """Has `documents`, and knows no other namespace. Ends with its `with`."""

    def __init__(self, documents, namespace):
        self.namespace = namespace
        kinds = {(document["apiVersion"], document["kind"], True) for document in documents} | set(OTHERS)
        self.kinds = {}
        for version, kind, namespaced in sorted(kinds):
            self.kinds.setdefault(version, []).append({
                "name": plural(kind), "singularName": kind.lower(), "kind": kind, "namespaced": namespaced,
                "verbs": ["create", "get", "list", "patch", "watch"]})
        self.objects = {path_of(document, namespace)[0]: rolled_out(document) for document in documents}
        self.metrics = {
            metric["pods"]["metric"]["name"] for document in documents if document["kind"] == "HorizontalPodAutoscaler"
            for metric in document["spec"]["metrics"] if metric["type"] == "Pods"}
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"cluster": self}))
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def discovery(self, path):
        if path == "/version":
            return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [{"groupVersion": version, "version": version.split("/")[1]} for version in self.kinds if "/" in version]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": group["groupVersion"].split("/")[0], "versions": [group], "preferredVersion": group} for group in groups]}
        for version, resources in self.kinds.items():
            if path == root(version):
                return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        if (metric := re.fullmatch(r"/apis/custom\.metrics\.k8s\.io/v1beta1/namespaces/[^/]+/pods/\*/(\w+)", path)) and metric[1] in self.metrics:
            return {"kind": "MetricValueList", "items": []}
        return None

    def collection(self, path):
        """The objects of a collection, if there is one of that name."""
        for version, resources in self.kinds.items():
            for resource in resources:
                within = f"/namespaces/{self.namespace}" if resource["namespaced"] else ""
                if path == f"{root(version)}{within}/{resource['name']}":
                    items = [document for name, document in self.objects.items() if name.rpartition("/")[0] == path]
                    return {"kind": f"{resource['kind']}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items}
        return None


def rolled_out(document):
    """As its controller would leave it."""
    number = document.get("spec", {}).get("replicas", 1)
    status = {"observedGeneration": 1, "replicas": number, "updatedReplicas": number, "availableReplicas": number}
    return {**document, "metadata": {**document["metadata"], "generation": 1, "resourceVersion": "1"}, "status": status}


def fields(message):
    """Number and content of every field of a protobuf message that has a length; those that are numbers are left out."""
    def number():
        nonlocal message
        value = shift = 0
        while True:
            byte, message = message[0], message[1:]
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value
    while message:
        key, size = number(), number()
        if key & 7 == 2:
            yield key >> 3, message[:size]
            message = message[size:]


def created(body):
    """What kubectl wants to create. It says so in protobuf: k8s, then the kind (1) and the object (2); metadata are its 1, data its 2."""
    envelope = dict(fields(body[4:]))
    version, kind = (text.decode() for _, text in fields(envelope[1]))
    parts = list(fields(envelope[2]))
    metadata = dict(fields(parts[0][1]))
    data = dict(tuple(text for _, text in fields(entry)) for number, entry in parts if number == 2) if kind == "Secret" else {}
    data = {key.decode(): base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": metadata[1].decode()}, **({"data": data} if data else {})}


class Handler(http.server.BaseHTTPRequestHandler):
    cluster = None

    def log_message(self, *_):
        pass

    def answer(self, code, body=None):
        reason = {404: "NotFound", 409: "AlreadyExists"}.get(code)
        text = body or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": self.path}
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(text).encode() + b"\n")

    def do_GET(self):
        address = urllib.parse.urlsplit(urllib.parse.unquote(self.path))
        found = self.cluster.discovery(address.path) or self.cluster.objects.get(address.path)
        listed = None if found else self.cluster.collection(address.path)
        if listed and "watch" in urllib.parse.parse_qs(address.query):
            return self.answer(404)  # then the client lists
        return self.answer(200, found or listed) if found or listed else self.answer(404)

    def body(self):
        return self.rfile.read(int(self.headers["Content-Length"]))

    def do_POST(self):
        path = urllib.parse.urlsplit(self.path).path
        if not self.cluster.collection(path):
            return self.answer(404)
        document = created(self.body())
        name = f"{path}/{document['metadata']['name']}"
        if name in self.cluster.objects:
            return self.answer(409)
        self.cluster.objects[name] = document
        return self.answer(201, document)

    def do_PATCH(self):
        found = self.cluster.objects.get(urllib.parse.urlsplit(self.path).path)
        self.body()
        return self.answer(200, found) if found else self.answer(404)
