"""The dashboard asks for metrics that there are, by labels that they have."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from serving.watch import measures

_METRIC = re.compile(r"\b(reel_\w+)(?:\{([^}]*)\})?")
_BY = re.compile(r"\bby \(([^)]*)\)")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


def exported() -> dict[str, set[str]]:
    """Every sample's name, and its labels, as Prometheus knows them after a scrape of the service."""
    found = {}
    for declared in vars(measures).values():
        if not isinstance(declared, MetricWrapperBase):
            continue
        labels = {*declared._labelnames, "replica"}
        match declared:
            case Counter():
                found[f"{declared._name}_total"] = labels
            case Gauge():
                found[declared._name] = labels
            case Histogram():
                found[f"{declared._name}_bucket"] = labels | {"le"}
                found |= dict.fromkeys((f"{declared._name}_sum", f"{declared._name}_count"), labels)
    return found


@pytest.fixture(scope="module")
def expressions(project_root: Path) -> list[str]:
    panels = json.loads((project_root / "configs/dashboards/serving.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_expression_names_metrics_and_labels_that_exist(expressions: list[str]) -> None:
    known = exported()
    for expression in expressions:
        named = _METRIC.findall(expression)
        assert named, expression
        labels = {label for _, selector in named for label in _LABEL.findall(selector)}
        labels |= {label.strip() for group in _BY.findall(expression) for label in group.split(",")}
        for metric, _ in named:
            assert metric in known, expression
        assert labels <= set.union(*(known[metric] for metric, _ in named)), expression
        assert expression.count("(") == expression.count(")"), expression


def test_every_metric_of_the_service_is_on_it(expressions: list[str]) -> None:
    stems = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in exported()}
    shown = {re.sub(r"_(total|bucket|count|sum)$", "", name) for one in expressions for name, _ in _METRIC.findall(one)}
    assert stems == shown


def test_a_panel_has_a_place_of_its_own_and_says_what_it_shows(project_root: Path) -> None:
    panels = json.loads((project_root / "configs/dashboards/serving.json").read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(panels) == len({panel["id"] for panel in panels})
    assert all(panel["description"] and panel["title"] for panel in panels)
