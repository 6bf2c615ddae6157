"""`say` and `text` with several voices and with pronunciation dictionaries, and the command that keeps these."""

import json

import numpy as np
import pytest
import soundfile

from tests.inference.test_cli import refused, run  # noqa: F401 - fixtures

RULES = '[{"term": "SQL", "replacement": "sequel"}, {"term": "day", "replacement": "night", "voice": "anna"}]'
TEXT = "SQL is a day. [voice:anna][pause:700ms] A day."


@pytest.fixture
def voices(tmp_path):
    folder = tmp_path / "voices" / "anna"
    folder.mkdir(parents=True)
    np.save(folder / "codes.npy", np.ones((8, 30), int))
    (folder / "text.txt").write_text("what is said")
    (tmp_path / "rules.json").write_text(RULES)
    return {"FISHSERVE_VOICES_DIR": tmp_path / "voices"}


def test_a_dialogue_is_said_with_a_dictionary(run, voices, tmp_path):  # noqa: F811 - a fixture
    assert run("pronunciations", "add", "words", tmp_path / "rules.json", **voices)[::2] == (0, "words has 2 rules now")
    out, words = tmp_path / "out.wav", tmp_path / "words.json"
    code, _, told = run("say", TEXT, "--dictionary", "words", "--seed", 1, "-o", out, "--words", words, **voices)
    assert (code, "follows the pitch of the requested voice" in told) == (0, True)
    heard = json.loads(words.read_text())
    assert [w["word"] for w in heard["words"]] == ["SQL", "is", "a", "day", "A", "day"]
    longer = tmp_path / "longer.wav"
    assert run("say", TEXT.replace("700ms", "1200ms"), "--dictionary", "words", "--seed", 1, "-o", longer, **voices)[0] == 0
    assert 0.69 < longest_silence(out) < 1
    assert longest_silence(longer) - longest_silence(out) == pytest.approx(0.5, abs=0.01)  # a take may begin or end with silence of its own


def longest_silence(path):
    """Seconds of nothing at all."""
    samples, rate = soundfile.read(path, dtype="int16")
    edges = np.flatnonzero(np.diff(np.concatenate(([0], samples == 0, [0]))))
    return max(edges[1::2] - edges[::2]) / rate


def test_text_shows_who_says_what(run, voices, tmp_path):  # noqa: F811 - a fixture
    _, shown, _ = run("text", TEXT, "--dictionary", tmp_path / "rules.json", **voices)
    assert shown.decode().split("\n") == ["   1 sequel is a day.", "     pause 0.70 s", "   2 [voice:anna] A night.", ""]
    _, shown, _ = run("text", TEXT, "--json", **voices)
    assert json.loads(shown)["segments"][1] == {"pause": 0.7, "text": "A day.", "voice": "anna"}


def test_dictionaries_are_listed_shown_replaced_and_deleted(run, voices, tmp_path):  # noqa: F811 - a fixture
    run("pronunciations", "add", "words", tmp_path / "rules.json", **voices)
    (tmp_path / "rules.json").write_text('{"rules": []}')
    assert run("pronunciations", "list", **voices)[1] == b"words\t2 rules\t\n"
    assert json.loads(run("pronunciations", "show", "words", **voices)[1]) == json.loads(RULES)
    assert run("pronunciations", "add", "words", tmp_path / "rules.json", "--replace", **voices)[2] == "words has 0 rules now"
    (tmp_path / "voices" / "_pronunciations" / "bad.json").write_text("{")
    _, listed, told = run("pronunciations", "list", **voices)
    assert (listed, "'bad' is damaged; delete it and add it again" in told) == (b"words\t0 rules\t\n", True)
    assert [run("pronunciations", "delete", name, **voices)[0] for name in ("bad", "words")] == [0, 0]
    assert run("pronunciations", "list", **voices)[1] == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["say", "[voice:eve]Hi."], "there is no voice 'eve'; known voices: default, anna"),
        (["say", "Hi.", "--dictionary", "none"], "there is no pronunciation dictionary 'none'"),
        (["say", "Hi.", "--dictionary", "none.json"], "none.json cannot be read"),
        (["pronunciations", "add", "../x", "rules.json"], "cannot be a dictionary's name"),
        (["pronunciations", "show", "x"], "no pronunciation dictionary 'x'"),
    ],
)
def test_what_there_is_not_is_one_sentence(refused, voices, tmp_path, monkeypatch, arguments, words):  # noqa: F811 - a fixture
    monkeypatch.chdir(tmp_path)
    assert words in refused(*arguments, **voices)
