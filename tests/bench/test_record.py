import json

import pytest

from bench.load import Sample
from bench.record import SCHEMA, facts, read, recording
from inference import RequestError


def test_a_record_says_on_what_and_with_what_it_was_measured(golden, tmp_path):
    with recording(tmp_path / "new" / "a.json", "codec", {"x": 1}, facts(golden)) as record:
        record.runs.append({"samples": [Sample("short", "en", 5, 0.0, 0.0, [0.5], [1.0], 0.6)]})
    body = read(tmp_path / "new" / "a.json")
    assert body["schema"] == SCHEMA
    assert body["complete"]
    assert {"cpu", "cores", "torch", "revision", "load_average", "device", "threads"} <= body["machine"].keys()
    assert body["machine"]["device"] == "cpu"
    assert body["model"]["config"]["num_codebooks"] == golden.config.num_codebooks
    assert all(len(h) == 64 for h in body["model"]["sha256"].values())
    assert len(body["model"]["sha256"]) == 2
    assert Sample(**body["runs"][0]["samples"][0]).first_audio == 0.5
    assert str(golden.path.parent) not in json.dumps(body)


def test_what_was_measured_is_kept_however_it_ends(tmp_path):
    def stop():
        with recording(tmp_path / "a.json", "codec", {}, facts(None)) as record:
            record.runs.append({"seconds": [1.0]})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    body = read(tmp_path / "a.json")
    assert not body["complete"]
    assert body["runs"] == [{"seconds": [1.0]}]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_place_that_cannot_be_written_is_known_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot write"), recording(tmp_path / "file" / "a.json", "codec", {}, facts(None)):
        raise AssertionError


@pytest.mark.parametrize(("content", "words"), [("{}", "schema None"), ('{"schema": 1}', "schema 1"), ("[]", "schema"), ("no", "not JSON")])
def test_what_is_not_a_record_is_one_sentence(tmp_path, content, words):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(RequestError, match=words):
        read(tmp_path / "a.json")
    with pytest.raises(RequestError, match="No such file"):
        read(tmp_path / "b.json")
