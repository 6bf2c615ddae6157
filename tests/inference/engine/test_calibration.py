"""Which heads follow the text."""

import json
from dataclasses import replace

import numpy as np
import pytest

from inference import CheckpointError, SpeechEngine, SpeechRequest
from inference.engine import calibration
from inference.engine.calibration import Choice, calibrate, choose, store, with_stored_heads
from inference.hub import EMBEDDED_VOICE
from inference.model.config import AlignmentHead, GenerationDefaults

FRAMES, TOKENS = 60, 30


def looking(places, width=1.0):
    """A head that looks around a place, in tokens, in each frame."""
    weights = np.exp(-((np.arange(TOKENS) - np.asarray(places)[:, None]) ** 2) / (2 * width**2))
    return weights / weights.sum(axis=1, keepdims=True)


TEXT = np.linspace(0, TOKENS - 1, FRAMES)
ODD = np.random.default_rng(0)
WITHOUT_AIM = [
    looking(np.zeros(FRAMES)),  # at the first token
    looking(np.full(FRAMES, TOKENS - 1)),
    looking(TEXT[::-1]),  # backwards
    looking(ODD.uniform(0, TOKENS, FRAMES)),
    looking(np.where(TEXT < TOKENS / 2, 0, TOKENS - 1)),  # from the beginning to the end in one jump
    np.full((FRAMES, TOKENS), 1 / TOKENS),
]


def test_the_heads_that_follow_the_text_are_chosen():
    heads = np.stack([*WITHOUT_AIM, looking(TEXT), looking(TEXT, 1.2)])
    choice = choose([heads, heads], 4)
    assert choice.heads == (AlignmentHead(1, 2), AlignmentHead(1, 3))
    assert choice.score > 0.6


def test_a_head_that_looks_ahead_is_left_out_where_others_do_not():
    heads = np.stack([looking(TEXT), looking(TEXT), looking(np.minimum(TEXT + 3, TOKENS - 1)), looking(TEXT)])
    assert choose([heads], 4).heads == (AlignmentHead(0, 0), AlignmentHead(0, 1), AlignmentHead(0, 3))


def test_where_none_follows_none_is_chosen():
    assert choose([np.stack(WITHOUT_AIM)], 6).heads == ()


def test_random_weights_have_no_such_heads(engine, monkeypatch):
    monkeypatch.setattr(calibration, "SENTENCES", calibration.SENTENCES[:2])
    heard = []
    choice = calibrate(engine, heard.append)
    assert choice.heads == ()
    assert heard == list(calibration.SENTENCES)


@pytest.mark.drill
def test_minnow_s_guided_heads_are_found():
    named = GenerationDefaults.from_file(EMBEDDED_VOICE / "generation_config.json").alignment_heads
    with SpeechEngine.load(device="cpu", slots=1) as engine:
        choice = calibrate(engine, str)
    assert set(choice.heads) >= set(named[:2])
    assert all(layer <= 3 and head <= 2 for layer, head in choice.heads)


def test_a_choice_is_remembered_for_the_same_weights_alone(golden, tmp_path):
    heads = (AlignmentHead(1, 2),)
    file = store(tmp_path, golden, Choice(heads, 0.7))
    assert with_stored_heads(golden, tmp_path).defaults.alignment_heads == heads
    (stored,) = json.loads(file.read_text()).values()
    file.write_text(json.dumps({"another model": stored}))
    assert with_stored_heads(golden, tmp_path).defaults.alignment_heads == ()


def test_what_the_checkpoint_names_counts_more(golden, tmp_path):
    store(tmp_path, golden, Choice((AlignmentHead(1, 2),), 0.7))
    named = replace(golden, defaults=replace(golden.defaults, alignment_heads=(AlignmentHead(0, 0),)))
    assert with_stored_heads(named, tmp_path) is named


def test_a_damaged_file_is_named(golden, tmp_path):
    file = store(tmp_path, golden, Choice((AlignmentHead(1, 2),), 0.7))
    for content in ("{", "[]", file.read_text().replace("2", '"x"', 1).replace("[", "3, ", 1)):
        file.write_text(content)
        with pytest.raises(CheckpointError, match=r"alignment-heads.json is damaged; delete it and run `fishserve calibrate-times` again"):
            with_stored_heads(golden, tmp_path)


def test_stored_heads_place_words(golden, tmp_path):
    store(tmp_path, golden, Choice((AlignmentHead(1, 2),), 0.7))
    with SpeechEngine(with_stored_heads(golden, tmp_path), slots=1) as engine:
        audio = engine.synthesize(SpeechRequest("One two.", seed=1, max_new_tokens=20, words=True))
    assert {word.precision for word in audio.words} == {"word"}
