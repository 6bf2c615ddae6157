"""Voices for a mix are files that a server reads, and its record is shown as a table."""

from bench.tables import tables
from bench.voice_mix import make_voices
from inference.voices.store import VoiceStore
from inference.voices.voice import Voice


def test_the_voices_can_be_spoken_with(tmp_path):
    make_voices(tmp_path, 3, 2)
    store = VoiceStore(tmp_path)
    assert store.names()[1:] == ["bench-0000", "bench-0001", "bench-0002"]
    voice = store.voice("bench-0002", "any")
    assert isinstance(voice, Voice)
    assert voice.references[0].codes.shape == (8, 43)


def test_the_table_has_a_row_for_each_replica():
    run = {
        "loop": "closed", "clients": 2, "first_audio": {"p50": 0.1, "p95": None}, "hit_rate": 0.75, "statuses": {"200": 8},
        "replicas": {"a": {"hit": 5.0, "miss": 1.0}, "b": {"hit": 1.0, "miss": 1.0}},
    }  # fmt: skip
    (table,) = tables({"command": "voices", "runs": [run]})
    assert [list(row) for row in table.rows] == [["all", "8", "75.0%"], ["a", "6", "83.3%"], ["b", "2", "50.0%"]]
    assert "100 ms" in table.note
