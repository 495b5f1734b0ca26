"""The Pod Security Standard "restricted", as of Kubernetes 1.37, and what this project asks on top of it."""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret"}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}


def faults(spec):
    """Everything in a pod spec that the standard, or this project, objects to."""
    found = []
    pod = spec.get("securityContext", {})
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            found.append(f"{key} is set")
    for volume in spec.get("volumes", []):
        if kinds := set(volume) - {"name"} - VOLUMES:
            found.append(f"volume {volume['name']} is of the kind {', '.join(sorted(kinds))}")
    for sysctl in pod.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            found.append(f"sysctl {sysctl['name']}")
    # Ours: nothing in a pod may speak to the API server.
    if spec.get("automountServiceAccountToken") is not False:
        found.append("a service account token is mounted")
    for container in spec.get("initContainers", []) + spec.get("containers", []):
        found += [f"container {container['name']}: {fault}" for fault in container_faults(container, pod)]
    return found


def container_faults(container, pod):
    own = container.get("securityContext", {})
    setting = lambda key, default=None: own.get(key, pod.get(key, default))
    capabilities = own.get("capabilities", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if "ALL" not in capabilities.get("drop", []):
        yield "does not drop ALL capabilities"
    if added := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"adds {', '.join(sorted(added))}"
    if setting("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if setting("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    if setting("procMount", "Default") != "Default":
        yield "procMount is not Default"
    for port in container.get("ports", []):
        if port.get("hostPort"):
            yield f"hostPort {port['hostPort']}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if container.get(probe, {}).get("httpGet", {}).get("host"):
            yield f"{probe} names a host"
    # Ours: the kubelet proves runAsNonRoot by a number alone, and nothing writes into the image.
    if not isinstance(setting("runAsUser"), int) or setting("runAsUser") == 0:
        yield "runAsUser is no number, or 0"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "can write to its root file system"


# Each is a way to break a sound pod spec; the check proves itself on them.
BREAKS = {
    "host network": lambda spec: spec.update(hostNetwork=True),
    "host path": lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "token": lambda spec: spec.update(automountServiceAccountToken=True),
    "sysctl": lambda spec: spec["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
    "root": lambda spec: spec["securityContext"].update(runAsUser=0),
    "no number": lambda spec: spec["securityContext"].pop("runAsUser"),
    "maybe root": lambda spec: spec["securityContext"].pop("runAsNonRoot"),
    "no seccomp": lambda spec: spec["securityContext"].pop("seccompProfile"),
    "privileged": lambda spec: spec["containers"][0]["securityContext"].update(privileged=True),
    "escalation": lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
    "added capability": lambda spec: spec["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "writable root": lambda spec: spec["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
    "host port": lambda spec: spec["containers"][0]["ports"][0].update(hostPort=80),
    "init container": lambda spec: spec.update(initContainers=[{"name": "init", "image": "x"}]),
}
