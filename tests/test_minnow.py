"""The voice in the box, judged by ear: text in, speech out, and a recogniser writes down what it hears."""

import json

import jiwer
import numpy as np

from inference import SpeechEngine, SpeechRequest
from inference.hub import EMBEDDED_VOICE
from training.evaluate import Ear, hear_long, long_texts, speak, spoken_words, words
from training.export import LIMIT_BYTES
from training.text import HELD_OUT

SENTENCES = [s["text"] for s in json.loads(HELD_OUT.read_text(encoding="utf-8"))[::5]]
PARAGRAPHS = long_texts()["paragraphs"]


def test_it_is_understood():
    assert len(SENTENCES) == 8
    with SpeechEngine.load(device="cpu") as engine:
        waves = [np.concatenate([c.samples for c in _spoken(engine, text, seed)]) for seed, text in enumerate(SENTENCES)]
    ear = Ear()
    heard = [ear.hear(w) for w in waves]
    errors = jiwer.wer([words(s) for s in SENTENCES], heard)
    assert errors <= 0.15, heard


def test_paragraphs_are_understood_to_their_end():
    texts = [PARAGRAPHS[i] for i in (5, 22)]  # dialogue with short answers, acronyms and capitals
    with SpeechEngine.load(device="cpu") as engine:
        waves, ended = speak(engine, texts)
    assert ended == len(texts)
    ear = Ear()
    heard = [hear_long(ear, w) for w in waves]
    assert jiwer.wer([spoken_words(t) for t in texts], heard) <= 0.15, heard


def _spoken(engine, text, seed):
    with engine.stream(SpeechRequest(text, seed=seed)) as stream:
        yield from stream
        assert stream.finish_reason == "stop"


def test_it_fits_in_the_box():
    assert sum(f.stat().st_size for f in EMBEDDED_VOICE.iterdir()) < LIMIT_BYTES
