"""Stands in for the kubectl plugin of Argo Rollouts: argo_rollouts.py API-SERVER COMMAND…

Takes the command lines that its documentation names, for rollouts that are there, and does nothing.
https://argoproj.github.io/argo-rollouts/generated/kubectl-argo-rollouts/kubectl-argo-rollouts/
"""

import argparse
import sys
import urllib.error
import urllib.request

COMMANDS = {
    ("abort",): [], ("get", "rollout"): ["--watch"], ("promote",): ["--full"], ("retry", "rollout"): [], ("status",): ["--watch"],
    ("undo",): ["--to-revision"],
}

address, *words = sys.argv[1:]
command = next((command for command in COMMANDS if tuple(words[: len(command)]) == command), None)
if not command:
    sys.exit(f"the plugin has no command {' '.join(words)}")
parser = argparse.ArgumentParser(prog=f"kubectl argo rollouts {' '.join(command)}", allow_abbrev=False)
parser.add_argument("name")
parser.add_argument("--namespace", "-n", required=True)
for flag in COMMANDS[command]:
    parser.add_argument(flag, **({"type": int} if flag == "--to-revision" else {"action": "store_true"}))
asked = parser.parse_args(words[len(command) :])
try:
    urllib.request.urlopen(f"{address}/apis/argoproj.io/v1alpha1/namespaces/{asked.namespace}/rollouts/{asked.name}", timeout=10)
except urllib.error.HTTPError as error:
    sys.exit(f"rollout {asked.name} in {asked.namespace}: {error}")
