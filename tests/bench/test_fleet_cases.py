"""What is asked of the model becomes rows, tables and pictures; a cluster that was measured stands beside the simulated one."""

import pytest

from bench.fleet_cases import simulated
from bench.fleet_charts import FOLDER, RECORD, pictures
from bench.record import read
from bench.svg import file, lines
from bench.tables import tables
from inference.errors import RequestError
from tests.bench.test_fleet import record

VOICES = {
    "settings": {"voices": 50, "skew": 1.0, "seconds": 5.0},
    "runs": [
        {
            "clients": 2, "statuses": {"200": 90, "429": 10}, "hit_rate": 0.5, "replicas": {"a": {}, "b": {}},
            "first_audio": {"p50": 0.1, "p95": 0.2, "p99": None}, "samples": [{"times": [0.1, 0.2], "durations": [0.2, 0.5], "ended": 0.4}],
        }
    ],
}  # fmt: skip


def test_a_measured_cluster_stands_beside_the_simulated_one():
    rows = list(simulated(record(1, 4), 0.01, [10], 20, [("voice", VOICES)]))
    assert [row["case"] for row in rows] == ["measured", "simulated"]
    assert [(row["replicas"], row["clients"], row["routing"]) for row in rows] == [(2, 2, "voice")] * 2
    assert rows[0]["refused"] == 0.1
    assert 0 < rows[1]["hit_rate"] < 1
    measured, ours = tables({"command": "fleet", "runs": rows})
    assert list(measured.rows[0]) == ["2", "100", "50.0%", "100", "200", "", "10.00%", "voice", "2"]
    assert ours.rows[0][0] == "2"


def test_a_record_of_one_level_is_not_enough():
    with pytest.raises(RequestError, match="fewer than two closed loops"):
        simulated(record(1), 0.01, [10], 20, [])


def test_an_axis_of_powers_names_them():
    drawing = lines([("a", [(10, 1), (1000, 2)])], "x", "y", powers=True)
    assert all(f">{name}<" in drawing for name in ("1", "10", "100", "1,000"))


def test_the_pictures_of_the_page_are_those_of_the_record():
    for name, drawing in pictures(read(RECORD)["runs"]).items():
        assert (FOLDER / name).read_text(encoding="utf-8") == file(drawing), f"{name}: run python -m bench.fleet_charts"
