"""The dashboard and the alert rules in docker/ ask for metrics and labels that there are."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

import inference.engine.metrics
import saas.observability.metrics

DOCKER = Path(__file__).parents[3] / "docker"
PROMETHEUS_LABELS = {"le", "instance", "job", "replica"}  # the last one on the page of a cluster


def known():
    """Names as Prometheus stores them, with their labels."""
    for module in (saas.observability.metrics, inference.engine.metrics):
        for metric in vars(module).values():
            if isinstance(metric, Counter | Gauge | Histogram):
                (family,) = metric.describe()
                suffixes = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[family.type]
                for suffix in suffixes:
                    yield family.name + suffix, set(metric._labelnames)


KNOWN = dict(known())


def panels():
    for file in sorted((DOCKER / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield panel["title"], target["expr"], target["legendFormat"]


def alerts():
    for group in yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert rule["labels"]["severity"] in ("warning", "critical")
            yield rule["alert"], rule["expr"], rule["annotations"]["summary"]


ASKED = [*panels(), *alerts()]


@pytest.mark.parametrize(("name", "expression", "words"), ASKED, ids=[name for name, *_ in ASKED])
def test_what_is_asked_for_is_there(name, expression, words):  # noqa: ARG001 - the name is the test's
    metrics = re.findall(r"fishserve_[a-z_]+", expression)
    assert metrics
    assert set(metrics) <= set(KNOWN)
    labels = set().union(*(KNOWN[metric] for metric in metrics)) | PROMETHEUS_LABELS
    used = re.findall(r"(\w+)\s*(?:=~|!=|!~|=)\s*\"", expression)
    used += [label.strip() for listed in re.findall(r"\bby \(([^)]*)\)", expression) for label in listed.split(",")]
    used += re.findall(r"{{ ?\$?(?:labels\.)?(\w+) ?}}", words.replace("$value", ""))
    assert set(used) <= labels


def test_each_alert_and_each_panel_has_its_own_name():
    names = [name for name, *_ in alerts()]
    assert len(names) == len(set(names)) >= 10


def test_no_panel_shows_half_a_request():
    """A quantile lies somewhere between the edges of its bucket, so that the median of steps of one request each would be 0.5."""
    asked = [expression for _, expression, _ in ASKED if "fishserve_batch_size_bucket" in expression]
    assert asked
    assert all(expression.startswith("ceil(histogram_quantile(") for expression in asked)


def test_what_the_saas_api_measures_is_on_the_dashboard_or_has_an_alert():
    asked = " ".join(expression for _, expression, _ in ASKED)
    ours = {re.sub("_(total|bucket|sum|count)$", "", name) for name in KNOWN if name.startswith("fishserve_saas_")}
    assert sorted(name for name in ours if name not in asked) == []
