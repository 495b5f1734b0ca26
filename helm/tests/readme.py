"""The table of values in the chart's README, made from values.yaml, where each key has its comment above it."""

import json
import re

import yaml

BEGIN = "<!-- values: written by helm/tests/run --update from the comments of values.yaml -->\n"
END = "<!-- end of values -->\n"

# These are passed on as a whole; the names below them are the user's.
WHOLE = {"resources.requests", "resources.limits", "networkPolicy.metricsFrom", "grafanaDashboard.labels"}


def comments(text):
    """Comment of every key, by its path."""
    found, above, parents = {}, [], []
    for line in text.splitlines():
        if comment := re.fullmatch(r"\s*# ?(.*)", line):
            above.append(comment[1])
        elif key := re.match(r"( *)([A-Za-z]\w*):", line):
            depth = len(key[1]) // 2
            parents[depth:] = [key[2]]
            found[".".join(parents)] = " ".join(above)
            above = []
        else:
            above = []
    return found


def leaves(values, prefix=""):
    """Path and default of every value."""
    for name, value in values.items():
        path = prefix + name
        if isinstance(value, dict) and value and path not in WHOLE:
            yield from leaves(value, path + ".")
        else:
            yield path, value


def groups(values, prefix=""):
    """Path of everything that holds values."""
    for name, value in values.items():
        path = prefix + name
        if isinstance(value, dict) and value and path not in WHOLE:
            yield path
            yield from groups(value, path + ".")


def undocumented(text):
    values, said = yaml.safe_load(text), comments(text)
    paths = [path for path, _ in leaves(values)] + list(groups(values))
    return [path for path in paths if not said.get(path)]


def table(text):
    values, said = yaml.safe_load(text), comments(text)
    lines, group = [], None
    for path, default in leaves(values):
        top = path.split(".")[0] if "." in path else None
        if top != group or not lines:
            if top:
                lines += ["", f"### {top}", "", said[top]]
            lines += ["", "| value | default | |", "|---|---|---|"]
            group = top
        middle = path.rsplit(".", 1)[0] if path.count(".") > 1 else None
        if middle and f"| `{middle}` | | {said[middle]} |" not in lines:
            lines.append(f"| `{middle}` | | {said[middle]} |")
        shown = "" if default is None or default == "" else f"`{json.dumps(default)}`"
        lines.append(f"| `{path}` | {shown} | {said.get(path, '')} |")
    return "\n".join(lines).strip() + "\n"


def render(readme, text):
    """The README with its table made anew."""
    head, rest = readme.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{table(text)}\n{END}{tail}"
