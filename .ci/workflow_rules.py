"""The repository's own rules for its workflows. Without arguments: lists them. RULE FILE…: prints what breaks the rule.
RULE --bad-sample: succeeds when the rule objects to its bad sample, so that no rule is an empty promise."""

import os
import pathlib
import re
import sys

from ruamel.yaml import YAML

SECRETS = {"DOCKER_REGISTRY", "DOCKER_USER", "DOCKER_PASS", "CI_GITHUB_TOKEN", "GITHUB_TOKEN"}


def jobs(workflow):
    return (workflow.get("jobs") or {}).items()


def runs(workflow):
    for name, job in jobs(workflow):
        for step in job.get("steps") or []:
            yield name, step.get("run") or ""


def actions_are_pinned(text, workflow):
    """By commit, with the version beside, and the same one everywhere."""
    for line in re.findall(r"^\s*(?:- )?uses:\s*(.+)$", text, re.MULTILINE):
        if not line.startswith("$/") and not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line):
            yield f"`{line}` is not NAME@COMMIT # vX.Y.Z"


def jobs_end(text, workflow):
    for name, job in jobs(workflow):
        if "uses" not in job and not isinstance(job.get("timeout-minutes"), int):
            yield f"job {name} has no timeout-minutes"


def permissions_are_read_only(text, workflow):
    """For the whole workflow; a job asks for what it writes."""
    permissions = workflow.get("permissions", "nothing")
    if not isinstance(permissions, dict) or not set(permissions.values()) <= {"read", "none"}:
        yield f"the workflow's permissions are {permissions}: give {{}} or read, and write to single jobs"


def secrets_are_the_four(text, workflow):
    named = set(re.findall(r"secrets\.(\w+)", text))
    if workflow.get("on", {}).get("workflow_call"):
        named |= set(workflow["on"]["workflow_call"].get("secrets") or {})
    for name in sorted(named - SECRETS):
        yield f"the secret {name} does not exist"
    if re.search(r"secrets:\s*inherit|secrets\[|toJSON\(secrets", text):
        yield "it hands on secrets without naming them"


def commands_exist(text, workflow):
    targets = set(re.findall(r"^([\w-]+):", pathlib.Path("Makefile").read_text(), re.MULTILINE))
    for name, run in runs(workflow):
        for target in re.findall(r"\bmake ([\w-]+)", run):
            if target not in targets:
                yield f"job {name} calls `make {target}`, which the Makefile does not have"
        for script in re.findall(r"(?<![\w/])\.ci/[\w-]+", run):
            if not os.access(script, os.X_OK):
                yield f"job {name} calls {script}, which is not there or not executable"


def runs_are_short(text, workflow):
    """The logic is in Make targets and scripts, which run anywhere."""
    for name, run in runs(workflow):
        if len(run.splitlines()) > 6:
            yield f"a step of job {name} has {len(run.splitlines())} lines: move them to a script"


def runs_do_not_pile_up(text, workflow):
    if "concurrency" not in workflow:
        yield "there is no concurrency group"


def ci_leaves_nothing_out(text, workflow):
    """What must hold before a change lands, by .ci/run, must hold on GitHub too."""
    if workflow.get("name") == "CI":
        for target in re.findall(r"^step make (\S+)", pathlib.Path(".ci/run").read_text(), re.MULTILINE):
            if not re.search(rf"\bmake {target}( [A-Z]+=\S+)*$", text, re.MULTILINE):
                yield f"it does not call `make {target}`, which .ci/run does"


def all_green_waits_for_all(text, workflow):
    names = [name for name, _ in jobs(workflow)]
    if "all-green" in names:
        for name in sorted(set(names) - {"all-green"} - set(workflow["jobs"]["all-green"].get("needs") or [])):
            yield f"all-green does not wait for {name}"


BAD = {
    actions_are_pinned: "jobs:\n  a:\n    steps:\n      - uses: actions/checkout@v7\n",
    jobs_end: "jobs: {a: {steps: []}}",
    permissions_are_read_only: "permissions: {contents: write}",
    secrets_are_the_four: "env: {A: '${{ secrets.OTHER }}'}",
    commands_exist: "jobs: {a: {steps: [{run: make nothing-of-the-kind}]}}",
    runs_are_short: 'jobs: {a: {steps: [{run: "1\\n2\\n3\\n4\\n5\\n6\\n7"}]}}',
    runs_do_not_pile_up: "jobs: {}",
    ci_leaves_nothing_out: "name: CI",
    all_green_waits_for_all: "jobs: {a: {}, all-green: {}}",
}
RULES = {rule.__name__: rule for rule in BAD}


def faults(rule, text):
    return list(rule(text, YAML(typ="safe").load(text) or {}))


def main():
    if len(sys.argv) == 1:
        print(*RULES, sep="\n")
        return 0
    rule, *files = RULES[sys.argv[1]], *sys.argv[2:]
    if files == ["--bad-sample"]:
        return 0 if faults(rule, BAD[rule]) else "it does not object to its bad sample"
    found = [f"{file}: {fault}" for file in files for fault in faults(rule, pathlib.Path(file).read_text())]
    return "\n".join(found) or 0


if __name__ == "__main__":
    sys.exit(main())
