"""Each layout of FishSpeech 1.5's own shape says the same as the official directory with the same weights.

It takes two minutes, 13 GB of memory and 11 GB of disk."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from inference import SpeechEngine, SpeechRequest
from inference.hub import complete
from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from tests import layouts

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    directory = tmp_path_factory.mktemp("full") / "fish-speech-1.5"
    random_checkpoint.write(directory, "full", 7)
    yield layouts.talkative(directory)
    shutil.rmtree(directory.parent)


@pytest.fixture
def folder(official, tmp_path):
    """Beside the official directory, as FishSpeech's guide has it, and gone after the test."""
    folder = official.parent / tmp_path.name
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def greedy(path, folder, **more):
    loaded = checkpoints.load(complete(path, **more), torch.device("cpu"), folder / "copies")
    with SpeechEngine(loaded, slots=1) as engine:
        codes = engine.generate_codes(SpeechRequest("It loads.", temperature=0, max_new_tokens=8)).tolist()
    assert len(codes[0]) == 8
    return codes


def with_weights(official, target, tensors):
    layouts.copy_of(official, target, "model.pth")
    torch.save(tensors, target / "model.pth")
    return target


@pytest.fixture(scope="module")
def expected(official, tmp_path_factory):
    return greedy(official, tmp_path_factory.mktemp("copies"))


def test_a_merged_fine_tune(official, expected, folder):
    assert greedy(layouts.merge_lora_output(official, folder / "mine"), folder, codec=str(official)) == expected


def test_a_training_checkpoint(official, expected, folder):
    path = layouts.copy_of(official, folder / "mine", "model.pth")
    layouts.lightning(layouts.weights_of(official), path / "step_000001000.ckpt")
    assert greedy(path, folder) == expected


def test_safetensors_and_tokenizer_json(official, expected, folder):
    path = layouts.copy_of(official, folder / "mine", "model.pth")
    layouts.tokenizer_json(path)
    save_file(layouts.weights_of(official), path / "model.safetensors")
    assert greedy(path, folder) == expected


def test_an_adapter(official, expected, folder):
    tensors = layouts.weights_of(official)
    matrices = layouts.adapter_of(tensors)
    adapter = layouts.lightning(matrices, folder / "step_000001000.ckpt")
    merged = with_weights(official, folder / "merged", layouts.merged(tensors, matrices))
    del tensors
    assert greedy(official, folder, adapter=str(adapter)) == greedy(merged, folder) != expected


def test_int8(official, folder):
    quantised = layouts.int8(layouts.weights_of(official))
    reference = with_weights(official, folder / "reference", layouts.dequantised(quantised))
    path = with_weights(official, folder / "int8", quantised)
    del quantised
    assert greedy(path, folder) == greedy(reference, folder)
