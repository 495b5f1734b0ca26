"""Reads queries: where the renders have them, what names they use, and what the conditions of an analysis say of a result."""

import json
import math
import operator
import re

LABELS_OF_PROMETHEUS = {"le", "namespace", "service", "pod"}  # le is that of buckets; the others the operator gives to every target
WORDS = {"and", "or", "unless", "bool", "offset", "NaN", "Inf"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
CONDITION = re.compile(r"len\(result\) > 0 && !isNaN\(result\[0\]\) && result\[0\] (>=|<=|>|<) ([0-9.]+)")


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def metrics_of_analysis(documents):
    """Template and metric, each."""
    for template in of_kind(documents, "AnalysisTemplate"):
        for metric in template["spec"]["metrics"]:
            yield template["metadata"]["name"], metric


def gates(documents):
    """Those of them that judge; the others tell people what is."""
    return ((template, metric) for template, metric in metrics_of_analysis(documents) if "failureCondition" in metric)


def rules(documents):
    for document in of_kind(documents, "PrometheusRule"):
        for group in document["spec"]["groups"]:
            yield from group["rules"]


def dashboards(documents):
    for document in of_kind(documents, "ConfigMap"):
        yield from (json.loads(text) for name, text in document["data"].items() if name.endswith(".json"))


def panel_queries(documents):
    """Title and query, each."""
    for dashboard in dashboards(documents):
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{panel['title']} ({target['legendFormat']})", target["expr"]


def all_queries(documents):
    """What a query is for, and the query."""
    for template, metric in metrics_of_analysis(documents):
        yield f"{template}, {metric['name']}", metric["provider"]["prometheus"]["query"]
    for rule in rules(documents):
        yield rule.get("alert") or rule["record"], rule["expr"]
    yield from panel_queries(documents)


def names(query):
    """The metrics that a query reads, and its label matchers and groupings: {metric}, {(label, operator, value)}."""
    tokens = re.findall(r'"(?:\\.|[^"\\])*"|\[[^]]*\]|[A-Za-z_:][\w:]*|=~|!~|!=|[=(){},]|[0-9][\w.]*|\S', query)
    metrics, labels, place = set(), set(), None
    for i, token in enumerate(tokens):
        following = tokens[i + 1] if i + 1 < len(tokens) else ""
        if token in "{}":
            place = "matchers" if token == "{" else None
        elif token == ")" and place == "grouping":
            place = None
        elif not re.match(r"[A-Za-z_:]", token):
            continue
        elif place == "matchers":
            labels.add((token, following, tokens[i + 2].strip('"')))
        elif place == "grouping":
            labels.add((token, "", ""))
        elif token in GROUPING:
            place = "grouping"
        elif token not in WORDS and following not in ("(", "by", "without"):
            metrics.add(token)
    return metrics, labels


def phase(metric, result):
    """What Argo Rollouts makes of a result, a list of numbers. Only conditions of the chart's own form are understood."""
    if "successCondition" not in metric and "failureCondition" not in metric:
        return "Successful"  # it judges nothing
    said = []
    for condition in (metric["successCondition"], metric["failureCondition"]):
        form = CONDITION.fullmatch(condition)
        if not form:
            raise ValueError(f"a condition of another form: {condition}")
        guarded = len(result) > 0 and not math.isnan(result[0])
        said.append(guarded and OPERATORS[form[1]](result[0], float(form[2])))
    success, failure = said
    return "Failed" if failure else "Successful" if success else "Inconclusive"
