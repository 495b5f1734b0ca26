"""What is rendered, and what is refused: values on top of BASE, which is the least that can be installed."""

TOKEN, NEXT_TOKEN = "0123456789abcdef", "fedcba9876543210"
DIGEST = "sha256:" + "0123456789abcdef" * 4
BASE = {"auth": {"tokens": [TOKEN]}}

INGRESS = {"ingress": {"enabled": True}}
ROUTE = {"httpRoute": {"enabled": True}}
ROLLOUT = {"rollout": {"enabled": True, "trafficRouting": "gateway"}, **ROUTE}
MONITOR = {"serviceMonitor": {"enabled": True}}
ANALYSIS = {**MONITOR, **ROLLOUT, "rollout": {**ROLLOUT["rollout"], "analysis": {"enabled": True, "prometheus": "http://prometheus.example.com:9090"}}}
VOLUME = {"component": {"source": "imageVolume", "volume": {"repository": "registry.example.com/hello-component", "digest": DIGEST}}}

VERSIONS = ["1.33", "1.35", "1.37"]

# name: (values, first Kubernetes version that takes them)
FEATURES = {
    name: (values, since)
    for since, group in {
        "1.33": {
            "defaults": {},
            "existing secret": {"auth": {"existingSecret": "mine", "tokens": []}},
            "two tokens": {"auth": {"tokens": [TOKEN, NEXT_TOKEN]}},
            "digest, pull secret": {"image": {"tag": "1.2.3", "digest": DIGEST, "pullPolicy": "Always", "pullSecrets": ["pull"]}},
            "every host flag": {"taffrail": {"drainDelaySeconds": 10, "drainTimeoutSeconds": 60, "log": "info,guest=warn",
                "healthPath": "", "application": "other", "maxInFlight": 1000000, "maxBody": "64KiB",
                "more": {"TAFFRAIL_DEADLINE": "10s"}}},
            "names": {"fullnameOverride": "another-name", "serviceAccount": {"name": "given"},
                "pod": {"labels": {"team": "a"}, "annotations": {"note": "b"}}, "service": {"port": 8000, "annotations": {"c": "d"}}},
            "ingress": INGRESS,
            "ingress, issuer": {"ingress": {"enabled": True, "className": "traefik", "annotations": {"a": "b"},
                "tls": {"enabled": True, "clusterIssuer": "letsencrypt"}}},
            "ingress, own certificate": {"ingress": {"enabled": True, "tls": {"enabled": True, "secretName": "certificate"}}},
            "route": ROUTE,
            "route, prefixes": {**ROUTE, "traffic": {"hostname": "a.example.com", "paths": ["/"], "pathType": "Prefix"}},
            "autoscaler": {"autoscaling": {"enabled": True}},
            "surge by number": {"update": {"maxSurge": 1, "progressDeadlineSeconds": 60}, "replicas": 1},
            "rollout by pods": {"rollout": {"enabled": True}, "replicas": 20},
            "rollout by pods, autoscaler, ingress": {**INGRESS, "rollout": {"enabled": True, "steps": [25, 50]},
                "autoscaling": {"enabled": True, "minReplicas": 4}},
            "rollout by pods, route": {**ROUTE, "rollout": {"enabled": True, "steps": [50]}},
            "rollout by nginx": {**INGRESS, "rollout": {"enabled": True, "trafficRouting": "nginx"}},
            "rollout by gateway": ROLLOUT,
            "rollout by gateway, autoscaler": {**ROLLOUT, "autoscaling": {"enabled": True}},
            "monitor": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
            "rollout, monitor": {**ROLLOUT, "serviceMonitor": {"enabled": True}},
            "analysis": ANALYSIS,
            "analysis, what is slow by a value": {**ANALYSIS, "rollout": {**ANALYSIS["rollout"], "analysis": {**ANALYSIS["rollout"]["analysis"], "slowSeconds": 1}}},
            "analysis by pods, every value": {**MONITOR, "replicas": 4, "rollout": {"enabled": True, "steps": [25, 50], "pause": "10m",
                "analysis": {"enabled": True, "prometheus": "https://prometheus.example.com/base", "window": "10m", "interval": "30s",
                    "prometheusAwaySeconds": 95, "count": 1, "minRequests": 1000000, "minFailures": 7, "leastDifference": 0.02,
                    "standardErrors": 3.5, "failureCeiling": 0.15, "slowSeconds": 0.25, "slowFloorSeconds": 0.1, "saturationRatio": 1}}},
            "rules and dashboard": {**MONITOR, "prometheusRule": {"enabled": True}, "grafanaDashboard": {"enabled": True}},
            "rules and dashboard, every value": {**MONITOR, "grafanaDashboard": {"enabled": True, "labels": {"grafana": "yes"}},
                "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "guestFailureRatio": 0.1,
                    "hostFailureRatio": 0.001, "forbiddenDifference": 0.25, "p99Seconds": 0.25, "saturationRatio": 0.5}},
            "autoscaler on saturation": {**MONITOR, "autoscaling": {"enabled": True, "saturation": 60}},
            "network peers": {"networkPolicy": {"trafficFrom": [{"namespaceSelector": {}}],
                "egress": [{"to": [{"podSelector": {}}], "ports": [{"port": 5432, "protocol": "TCP"}]}]}},
            "bare": {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}, "tests": {"enabled": False},
                "scheduling": {"spreadOver": [], "antiAffinity": False}},
            "budget by share": {"podDisruptionBudget": {"maxUnavailable": "25%"}},
            "spot and on-demand": {"scheduling": {
                "spreadOver": ["karpenter.sh/capacity-type", "topology.kubernetes.io/zone", "kubernetes.io/hostname"],
                "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}], "nodeSelector": {"pool": "web"},
                "priorityClassName": "high", "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1,
                    "preference": {"matchExpressions": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}]}}]}}},
        },
        "1.35": {
            "image volume": VOLUME,
            "image volume, rollout": {**VOLUME, **ROLLOUT},
        },
    }.items()
    for name, values in group.items()
}

PRODUCTION = {"environment": "production"}

# Where it takes another version than the newest for something to be wrong.
REFUSED_BY = {"image volume before 1.35": "1.33", "Kubernetes too old": "1.32"}

# what is wrong: (values, what the message has to say)
REFUSED = {
    # combinations, each with a sentence of ours
    "no token": ({"auth": {"tokens": []}}, "No token is configured: set auth.existingSecret to a Secret with the key auth-tokens, or auth.tokens to a list of tokens."),
    "two sources of tokens": ({"auth": {"existingSecret": "mine"}}, "auth.existingSecret and auth.tokens are both set: keep the one that should count."),
    "production without a tag": (PRODUCTION, 'image.tag is "", which can change its meaning: in production set the tag of a release.'),
    "production with latest": ({**PRODUCTION, "image": {"tag": "latest"}}, 'image.tag is "latest", which can change its meaning: in production set the tag of a release.'),
    "image volume without digest": ({"component": {"source": "imageVolume", "volume": {"repository": "a/b"}}}, "component.source imageVolume names no exact image: set component.volume.repository and component.volume.digest."),
    "image volume before 1.35": (VOLUME, "component.source imageVolume needs Kubernetes 1.35, and this is v1.33: use component.source image."),
    "two exposures": ({**INGRESS, **ROUTE}, "ingress and httpRoute are both enabled: keep the one through which clients should come."),
    "budget that blocks": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "podDisruptionBudget.maxUnavailable 0 would block every node drain: set it to 1 or more."),
    "budget that blocks, as share": ({"podDisruptionBudget": {"maxUnavailable": "0%"}}, "podDisruptionBudget.maxUnavailable 0 would block every node drain: set it to 1 or more."),
    "no surge": ({"update": {"maxSurge": 0}}, "update.maxSurge 0 would let no update begin, because no pod may be missing either: set it to 1 or more."),
    "replicas and autoscaler": ({"replicas": 3, "autoscaling": {"enabled": True}}, "replicas and autoscaling are both set: remove replicas, or set autoscaling.minReplicas instead."),
    "autoscaler upside down": ({"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}, "autoscaling.minReplicas is larger than autoscaling.maxReplicas: swap them."),
    "autoscaler without request": ({"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}, "autoscaling measures against resources.requests.cpu, which is not set: set it."),
    "slow between two edges": ({**ANALYSIS, "rollout": {**ANALYSIS["rollout"], "analysis": {**ANALYSIS["rollout"]["analysis"], "slowSeconds": 0.2}}}, "rollout.analysis.slowSeconds 0.2 is between the edges that the host counts by: take one of 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 20 30."),
    "routing without rollout": ({"rollout": {"trafficRouting": "nginx"}}, "rollout.trafficRouting nginx does nothing without a Rollout: set rollout.enabled."),
    "gateway without route": ({"rollout": ROLLOUT["rollout"]}, "rollout.trafficRouting gateway has no HTTPRoute to weigh: set httpRoute.enabled."),
    "nginx without ingress": ({"rollout": {"enabled": True, "trafficRouting": "nginx"}}, "rollout.trafficRouting nginx has no Ingress to follow: set ingress.enabled."),
    "analysis without Prometheus": ({**ANALYSIS, "rollout": {**ROLLOUT["rollout"], "analysis": {"enabled": True}}}, "rollout.analysis has nobody to ask: set rollout.analysis.prometheus to the address of Prometheus, such as http://prometheus-operated.monitoring.svc:9090."),
    "analysis without rollout": ({**MONITOR, "rollout": {"analysis": ANALYSIS["rollout"]["analysis"]}}, "rollout.analysis has no canary to judge: set rollout.enabled."),
    "analysis without metrics": ({**ROLLOUT, "rollout": ANALYSIS["rollout"]}, "No metrics are collected for rollout.analysis: set serviceMonitor.enabled."),
    "rules without metrics": ({"prometheusRule": {"enabled": True}}, "No metrics are collected for prometheusRule: set serviceMonitor.enabled."),
    "dashboard without metrics": ({"grafanaDashboard": {"enabled": True}}, "No metrics are collected for grafanaDashboard: set serviceMonitor.enabled."),
    "saturation without metrics": ({"autoscaling": {"enabled": True, "saturation": 60}}, "No metrics are collected for autoscaling.saturation: set serviceMonitor.enabled."),
    "saturation without autoscaler": ({**MONITOR, "autoscaling": {"saturation": 60}}, "autoscaling.saturation does nothing alone: set autoscaling.enabled."),
    "steps finer than pods": ({"rollout": {"enabled": True}, "replicas": 10}, "rollout.steps go in steps of 5 %, which is less than one of 10 pods, and without traffic routing a share is a number of pods: have 20 pods or more, take coarser steps, or set rollout.trafficRouting."),
    "steps finer than the fewest pods": ({"rollout": {"enabled": True, "steps": [30, 60]}, "autoscaling": {"enabled": True, "minReplicas": 3}}, "rollout.steps go in steps of 30 %, which is less than one of 3 pods, and without traffic routing a share is a number of pods: have 4 pods or more, take coarser steps, or set rollout.trafficRouting."),
    "steps that fall": ({**ROLLOUT, "rollout": {**ROLLOUT["rollout"], "steps": [25, 5]}}, "rollout.steps do not rise: list each share once, the smallest first."),
    "flag that has a value": ({"taffrail": {"more": {"TAFFRAIL_DRAIN_DELAY": "1s"}}}, "taffrail.more names TAFFRAIL_DRAIN_DELAY, which the chart sets: use the value that is meant for it."),
    "two faults at once": ({**INGRESS, **ROUTE, "update": {"maxSurge": "0%"}}, "both enabled: keep the one through which clients should come.\n  update.maxSurge 0 would let no update begin"),
    "Kubernetes too old": ({}, "chart requires kubeVersion: >=1.33.0-0 which is incompatible with Kubernetes v1.32"),
    # single values, by the schema
    "unknown value": ({"replicaCount": 3}, "additional properties 'replicaCount' not allowed"),
    "unknown nested value": ({"image": {"name": "a"}}, "at '/image': additional properties 'name' not allowed"),
    "unknown environment": ({"environment": "prod"}, "at '/environment': value must be one of 'dev', 'staging', 'production'"),
    "zero replicas": ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
    "replicas as text": ({"replicas": "2"}, "at '/replicas': got string, want null or integer"),
    "short token": ({"auth": {"tokens": ["secret"]}}, "at '/auth/tokens/0': minLength: got 6, want 16"),
    "token of two lines": ({"auth": {"tokens": [TOKEN + "\n" + NEXT_TOKEN]}}, "at '/auth/tokens/0':"),
    "same token twice": ({"auth": {"tokens": [TOKEN, TOKEN]}}, "at '/auth/tokens': items at 0 and 1 are equal"),
    "half a digest": ({"image": {"digest": "sha256:abc"}}, "at '/image/digest': 'sha256:abc' does not match pattern"),
    "delay with unit": ({"taffrail": {"drainDelaySeconds": "5s"}}, "at '/taffrail/drainDelaySeconds': got string, want integer"),
    "size without unit": ({"taffrail": {"maxBody": "10 megabytes"}}, "at '/taffrail/maxBody': '10 megabytes' does not match pattern"),
    "no request at a time": ({"taffrail": {"maxInFlight": 0}}, "at '/taffrail/maxInFlight': minimum: got 0, want 1"),
    "flag that is none": ({"taffrail": {"more": {"RUST_LOG": "debug"}}}, "at '/taffrail/more': additional properties 'RUST_LOG' not allowed"),
    "relative health path": ({"taffrail": {"healthPath": "health"}}, "at '/taffrail/healthPath': 'health' does not match pattern"),
    "old pods leave at once": ({"rollout": {"scaleDownDelaySeconds": 30}}, "at '/rollout/scaleDownDelaySeconds': minimum: got 30, want 60"),
    "step of 100": ({"rollout": {"steps": [50, 100]}}, "at '/rollout/steps/1': maximum: got 100, want 99"),
    "no step": ({"rollout": {"steps": []}}, "at '/rollout/steps': minItems: got 0, want 1"),
    "unknown routing": ({"rollout": {"trafficRouting": "istio"}}, "at '/rollout/trafficRouting': value must be one of 'none', 'gateway', 'nginx'"),
    "pause without unit": ({"rollout": {"pause": "300"}}, "at '/rollout/pause': '300' does not match pattern"),
    "Prometheus without scheme": ({"rollout": {"analysis": {"prometheus": "prometheus:9090"}}}, "at '/rollout/analysis/prometheus': 'prometheus:9090' does not match pattern"),
    "ratio in percent": ({"rollout": {"analysis": {"failureCeiling": 5}}}, "at '/rollout/analysis/failureCeiling': maximum: got 5, want 1"),
    "any difference at all": ({"rollout": {"analysis": {"leastDifference": 0}}}, "at '/rollout/analysis/leastDifference': exclusiveMinimum: got 0, want 0"),
    "one missing answer": ({"rollout": {"analysis": {"prometheusAwaySeconds": 0}}}, "at '/rollout/analysis/prometheusAwaySeconds': minimum: got 0, want 10"),
    "nothing measured": ({"rollout": {"analysis": {"count": 0}}}, "at '/rollout/analysis/count': minimum: got 0, want 1"),
    "saturation as ratio": ({"autoscaling": {"saturation": 0.6}}, "at '/autoscaling/saturation': got number, want null or integer"),
    "alert on no failure at all": ({"prometheusRule": {"guestFailureRatio": 0}}, "at '/prometheusRule/guestFailureRatio': exclusiveMinimum: got 0, want 0"),
    "budget by minimum": ({"podDisruptionBudget": {"minAvailable": 2}}, "at '/podDisruptionBudget': additional properties 'minAvailable' not allowed"),
    "path without slash": ({"traffic": {"paths": ["app"]}}, "at '/traffic/paths/0': 'app' does not match pattern"),
}
