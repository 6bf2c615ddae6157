"""Dashboards drawn from their files, without Grafana."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.dashboards import Line, Span, clock, drawing, empty, legend, unbroken
from inference.errors import RequestError

FILES = sorted((Path(__file__).parents[2] / "docker" / "grafana").glob("*.json"))
SPAN = Span(1_800_000_000, 1_800_000_240, 2)


def dashboard(unit="s", kind="timeseries"):
    place = {"x": 0, "y": 0, "w": 8, "h": 8}
    panel = {"id": 1, "type": kind, "title": "Wait & see", "gridPos": place, "fieldConfig": {"defaults": {"unit": unit}}}
    return {"title": "All of it", "panels": [panel]}


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_every_panel_of_the_dashboards_can_be_drawn(file):
    told = json.loads(file.read_text(encoding="utf-8"))
    answers = {panel["id"]: [Line("a", [(SPAN.start, 0.0), (SPAN.end, 0.25)])] for panel in told["panels"]}
    assert {panel["title"] for panel in told["panels"]} <= set(texts(drawing(told, answers, SPAN, "a run")))
    assert all("$" not in SPAN.fill(target["expr"]) for panel in told["panels"] for target in panel.get("targets", ()))


def test_the_rate_interval_is_that_of_grafana():
    assert SPAN.fill("rate(a[$__rate_interval])") == "rate(a[8s])"  # four scrapes
    assert Span(0, 6 * 3600, 15).fill("rate(a[$__rate_interval])") == "rate(a[87s])"  # a point and a scrape
    with pytest.raises(RequestError, match="only \\$__rate_interval"):
        SPAN.fill("a[$__range]")


def test_a_legend_names_a_missing_label_by_its_own_name():
    assert legend("{{ server }}: {{fault}}", {"server": "a"}) == "a: fault"


def test_a_panel_without_data_says_so():
    assert empty(dashboard(), {1: []}) == ["Wait & see"]
    assert texts(drawing(dashboard(), {1: []}, SPAN, "a run")) == ["All of it", "a run", "Wait & see", "No data"]


@pytest.mark.parametrize(
    ("unit", "top", "last"),
    [("s", 0.19, "200 ms"), ("s", 95, "2 min"), ("percentunit", 0.97, "100%"), ("bytes", 3 * 2**20, "3 MiB"), ("short", 0, "1"), ("s", 0, "1 s"),
     ("reqps", 0.4, "0.4 req/s"), ("short", 1200, "1.5 K")],
)  # fmt: skip
def test_values_are_in_the_unit_that_suits_the_largest(unit, top, last):
    written = texts(drawing(dashboard(unit), {1: [Line("a", [(SPAN.start, 0), (SPAN.end, top)])]}, SPAN, "a run"))
    values = [text for text in written[3:] if ":" not in text and text != "a"]
    assert values[-1] == last


def test_one_number():
    points = [(SPAN.start, 1.0), (SPAN.end, 3.0)]
    assert texts(drawing(dashboard("short", "stat"), {1: [Line("a", points)]}, SPAN, "a run"))[-1] == "3"


@pytest.mark.parametrize(("unit", "kind", "error"), [("joule", "timeseries", "'joule'"), ("s", "heatmap", "'heatmap'")])
def test_what_cannot_be_drawn_is_refused(unit, kind, error):
    with pytest.raises(RequestError, match=error):
        drawing(dashboard(unit, kind), {1: [Line("a", [(SPAN.start, 1.0)])]}, SPAN, "a run")


def test_a_line_breaks_where_a_point_is_missing():
    assert unbroken([(0, 1.0), (2, 1.0), (6, 2.0)], 2) == [[(0, 1.0), (2, 1.0)], [(6, 2.0)]]


def test_the_clock_shows_round_times():
    assert clock(1_800_000_005, 1_800_000_245) == [
        (1_800_000_060, "08:01"), (1_800_000_120, "08:02"), (1_800_000_180, "08:03"), (1_800_000_240, "08:04"),
    ]  # fmt: skip
