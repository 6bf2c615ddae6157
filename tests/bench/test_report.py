import dataclasses
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import svg
from bench.load import Sample
from bench.record import facts
from bench.report import html, markdown
from bench.tables import Table, between, compared, cost, price_of_speech, tables


def sample(due, first=0.2, error=None):
    return dataclasses.asdict(Sample("short", "en", 20, due, due, [due + first, due + 0.6], [1.0, 1.0], due + 0.6, 0.05, error))


@pytest.fixture
def body():
    closed = {"loop": "closed", "clients": 2, "window": 10.0, "samples": [sample(0.4 * i) for i in range(25)]}
    opened = {"loop": "open", "rate": 1.5, "window": 10.0, "met": False, "samples": [sample(i, 0.01 + 0.1 * i) for i in range(6)]}
    own = {"clients": 2, "requests_per_second": 3000, "first_audio": [0.001, 0.002]}
    return {
        "schema": 2, "command": "throughput", "complete": True, "time": "2026-01-01T00:00:00Z", "load_average_at_end": [1, 1, 1],
        "settings": {"objective": {"first_audio": 0.35, "share": 0.95}}, **facts(None), "runs": [closed, opened], "client": own,
    }  # fmt: skip


def cells(table, row):
    return dict(zip(table.columns, next(r for r in table.rows if r[0] == row), strict=True))


def test_the_tables_hold_the_figures(body):
    latency, throughput, lengths, own = tables(body)
    assert cells(latency, "2 clients")["first audio p50, ms"] == "200"
    assert cells(latency, "2 clients")["gap p50, ms"] == "400"
    assert cells(latency, "2 clients")["times real time p50"] == "3.33"
    assert cells(latency, "1.50 requests/s")["first audio p95, ms"] == "–"
    found = cells(throughput, "2 clients")
    assert (found["audio s/s"], found["continuous"], found["waited p50, ms"], found["as promised"]) == ("4.9", "100%", "50", "100%")
    assert cells(throughput, "1.50 requests/s")["as promised"] == "67%"
    assert "which no rate tried met" in throughput.note
    assert cells(lengths, "short, 2 clients")["n"] == "25"
    assert cells(own, "2 clients")["first audio p50, ms"] == "1.50"


def test_failures_are_counted_and_are_in_no_percentile(body):
    body["runs"][0]["samples"] += [sample(1.0, 9.0, "full")] * 5
    latency, throughput, *_ = tables(body)
    assert cells(latency, "2 clients")["first audio max, ms"] == "200"
    assert cells(throughput, "2 clients")["failed"] == "5"
    assert cells(throughput, "2 clients")["as promised"] == "83%"


def test_the_page_needs_nothing_from_elsewhere_and_is_well_formed(body):
    page = html([("a.json", body), ("b <i>.json", body)])
    assert "b &lt;i&gt;.json" in page
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
    charts = [ElementTree.fromstring(s) for s in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert len(charts) == 8
    words = {t.text for chart in charts for t in chart.iter("text")}
    assert {"time to first audio, s", "share of requests", "clients", "audio, seconds each second", "requests offered, 1/s"} <= words
    used = set(re.findall(r"var\(--(\w+)\)", page))
    for colours in re.findall(r":root \{(.*?)\}", page, re.DOTALL):
        assert used <= set(re.findall(r"--(\w+):", colours))


def test_a_report_of_two_runs_of_the_same_thing_finds_no_difference(body):
    assert "a → b" in markdown([("a", body), ("b", body)])
    table = between(body, body)
    assert {r[0] for r in table.rows} == {
        f"{level}: {what}" for level in ("2 clients", "1.50 requests/s") for what in ("first audio p50", "audio s/s")
    }
    assert all(row[3] == "1.000" and row[5] == "no" for row in table.rows)
    slower = body | {"runs": [body["runs"][0] | {"samples": [sample(0.4 * i, 0.5) for i in range(25)]}]}
    assert between(body, slower).rows[0][5] == "yes"
    assert between(body, body | {"command": "codec"}) is None


def test_a_comparison_divides_within_a_round():
    def case(who, *rounds):
        return {
            "who": who,
            "case": "1 stream",
            "rows": 1,
            "request": {"what": "frames"},
            "rounds": [{"prefill": 0.1, "seconds": [s]} for s in rounds],
        }

    (table,) = compared({"runs": [case("reference", 0.4, 0.2), case("ours", 0.1, 0.1)]})
    row = table.rows[-1]
    assert row[3:5] == ["reference", "3.00"]
    assert row[6] == "4.00, 2.00"


@given(st.floats(0.01, 100), st.floats(0.01, 1000), st.floats(0.01, 1))
def test_idle_time_makes_speech_dearer(price, speed, busy):
    assert price_of_speech(price, speed) == pytest.approx(price / speed)
    assert price_of_speech(price, speed, busy) >= price_of_speech(price, speed)
    assert price_of_speech(2 * price, speed, busy) == pytest.approx(2 * price_of_speech(price, speed, busy))


def test_the_price_of_an_hour_of_speech(body):
    table = cost(body, 2.0, (1.0, 0.5))
    assert cells(table, "2 clients") == {
        "": "2 clients",
        "audio s/s": "4.9",
        "objective met": "yes",
        "busy 100%": "0.4082",
        "busy 50%": "0.8163",
    }
    assert cells(table, "1.50 requests/s")["objective met"] == "no"


def test_a_markdown_table_has_as_many_cells_in_each_line():
    lines = Table("t", ["", "n"], [["a", "1"], ["bb", "22"]]).markdown().splitlines()[2:]
    assert {line.count("|") for line in lines} == {3}
    assert len({len(line) for line in lines}) == 1
    assert lines[1].endswith(": |")


@given(st.floats(1e-4, 1e6))
def test_ticks_are_few_even_and_reach_the_top(top):
    found = svg.ticks(top)
    assert found[0] == 0
    assert found[-1] >= top * (1 - 1e-6)
    assert 2 <= len(found) <= 7


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20))
def test_a_distribution_rises_from_nothing_to_all(values):
    points = svg.distribution(values)
    assert points == sorted(points)
    assert points[0] == (0, 0)
    assert points[-1] == (max(values), 1)
