"""At FishSpeech 1.5's own shape a request gets the same codes alone and beside seven others, in each kind of weights."""

import numpy as np
import pytest
import torch

from inference import SpeechEngine, SpeechRequest
from inference.engine.weight_layouts import Half
from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from tests.inference.engine.neighbours import codes_among_others

pytestmark = [pytest.mark.drill, pytest.mark.timeout(3600)]
FRAMES = 64


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("full")
    random_checkpoint.write(directory, "full", 0)
    return checkpoints.load(directory, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["FP16", "int8", "FP32"])
def test_64_frames_are_the_same_alone_and_beside_seven_who_join_and_leave(checkpoint, kind, monkeypatch):
    if kind == "FP32":
        monkeypatch.setattr(Half, "works", lambda *_: False)
    with SpeechEngine(checkpoint, slots=8, weights="int8" if kind == "int8" else "native") as engine:
        for temperature in (0.0, 0.7):
            request = SpeechRequest("The boat leaves at nine.", seed=5, temperature=temperature, max_new_tokens=FRAMES)
            alone = engine.generate_codes(request)
            among = codes_among_others(engine, request, 7)
            print(f"{kind}, temperature {temperature}: {alone.shape[1]} frames, layouts {engine._runner._step.layouts.names()}")
            assert alone.shape[1] == FRAMES
            assert np.array_equal(alone, among)
