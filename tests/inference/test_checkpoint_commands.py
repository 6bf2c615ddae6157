"""`fishserve checkpoint`: what it says of each layout, and what it writes."""

import json

import pytest
import torch
from typer.testing import CliRunner

from inference import CheckpointError, SpeechEngine, SpeechRequest
from inference.cli import app
from inference.hub import complete
from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from tests import layouts
from tests.conftest import CODEC_FILE


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    directory = tmp_path_factory.mktemp("commands") / "fish-speech-1.5"
    random_checkpoint.write(directory, "tiny", 7)
    return layouts.talkative(directory)


@pytest.fixture(scope="module")
def adapter(official):
    return layouts.lightning(layouts.adapter_of(layouts.weights_of(official)), official.parent / "step_000001000.ckpt")


def run(*arguments):
    """The output of a command that succeeds. Raises the error of one that is refused."""
    result = CliRunner().invoke(app, ["checkpoint", *map(str, arguments)])
    if isinstance(result.exception, CheckpointError):
        raise result.exception
    assert result.exit_code in (0, 1), result.output
    return result.exit_code, " ".join(result.output.split())


def greedy(path, tmp_path, adapter=None):
    loaded = checkpoints.load(complete(path, None, adapter), torch.device("cpu"), tmp_path / "copies")
    with SpeechEngine(loaded, slots=1) as engine:
        return engine.generate_codes(SpeechRequest("Converted.", temperature=0, max_new_tokens=16)).tolist()


def test_inspect_knows_the_official_directory(official):
    code, words = run("inspect", official)
    assert code == 0
    for part in (
        "PyTorch archive",
        "of bfloat16",
        "kind a whole model config",
        CODEC_FILE,
        "2 and 1 layers of 64",
        "the weights fit it",
        "result loads",
    ):
        assert part in words


def test_inspect_says_what_is_missing_and_where_it_comes_from(official, tmp_path, monkeypatch):
    mine = layouts.merge_lora_output(official, official.parent / "mine")
    assert f"codec not beside the weights; {official / CODEC_FILE} is used" in run("inspect", mine)[1]
    away = layouts.merge_lora_output(official, tmp_path / "away")
    assert "codec not beside the weights; that of fishaudio/fish-speech-1.5 is downloaded when it is loaded" in run("inspect", away)[1]
    monkeypatch.setenv("FISHSERVE_CODEC", str(official))
    assert f"codec {official / CODEC_FILE}, as FISHSERVE_CODEC says" in run("inspect", away)[1]


def test_inspect_knows_a_training_checkpoint(official):
    file = layouts.lightning(layouts.weights_of(official), official.parent / "full.ckpt")
    code, words = run("inspect", file)
    assert code == 0
    assert "a training checkpoint, whose epoch, global_step, pytorch-lightning_version, loops, callbacks, optimizer_states" in words
    assert "names begin with `model.`" in words


def test_inspect_knows_an_adapter_and_whether_it_fits(official, adapter, tmp_path):
    code, words = run("inspect", adapter)
    assert (code, "a LoRA adapter of rank 8 for 20 weights" in words) == (0, True), words
    assert f"--checkpoint BASE --adapter {adapter}" in words
    assert "rank 8, alpha 32, added to 20 weights result loads" in run("inspect", official, "--adapter", f"{adapter}:32")[1]
    random_checkpoint.write(tmp_path / "other", "tiny", 1, dim=32, n_head=2, fast_dim=32, fast_n_head=2)
    code, words = run("inspect", tmp_path / "other", "--adapter", adapter)
    assert code == 1
    assert "result cannot be loaded:" in words
    assert "embeddings.weight is" in words


def test_inspect_knows_quantised_weights(official, tmp_path):
    quantised = layouts.int8(layouts.weights_of(official))
    path = layouts.copy_of(official, tmp_path / "c", "model.pth")
    torch.save(quantised, path / "model.pth")
    assert "quantised to int8" in run("inspect", path)[1]
    torch.save(quantised | {"output.scales_and_zeros": torch.zeros(1)}, path / "model.pth")
    code, words = run("inspect", path)
    assert code == 1
    assert "cannot be loaded" in words
    assert "int4" in words


def test_inspect_names_a_misfit(official, tmp_path):
    path = layouts.copy_of(official, tmp_path / "c")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    code, words = run("inspect", path)
    assert code == 1
    assert "missing: layers.2." in words
    assert run("inspect", tmp_path / "nothing")[0] == 1


def test_merge_writes_what_the_adapter_says(official, adapter, tmp_path):
    _, words = run("merge", official, adapter, "-o", tmp_path / "merged")
    assert "MB" in words
    assert greedy(tmp_path / "merged", tmp_path) == greedy(official, tmp_path, str(adapter)) != greedy(official, tmp_path)
    names = {file.name for file in (tmp_path / "merged").iterdir()}
    codec = CODEC_FILE.replace(".pth", ".safetensors")
    assert names == {"config.json", "README.md", "model.safetensors", "tokenizer.tiktoken", "special_tokens.json", codec}
    with pytest.raises(CheckpointError, match="exists and is not an empty directory"):
        run("merge", official, adapter, "-o", tmp_path / "merged")


def test_convert_writes_the_official_layout(official, tmp_path):
    path = layouts.copy_of(official, official.parent / "int8", CODEC_FILE, "model.pth")
    layouts.tokenizer_json(path)
    torch.save(layouts.int8(layouts.weights_of(official)), path / "model.pth")
    (tmp_path / "out").mkdir()
    run("convert", path, "-o", tmp_path / "out")
    assert greedy(tmp_path / "out", tmp_path) == greedy(path, tmp_path)
    assert (tmp_path / "out/tokenizer.tiktoken").read_text() == (official / "tokenizer.tiktoken").read_text()
    assert (tmp_path / "out/special_tokens.json").read_text() == (official / "special_tokens.json").read_text()


def test_convert_leaves_nothing_behind_when_it_is_refused(official, tmp_path):
    path = layouts.copy_of(official, tmp_path / "c")
    tensors = layouts.weights_of(path)
    del tensors["norm.weight"]
    torch.save(tensors, path / "model.pth")
    with pytest.raises(CheckpointError, match=r"missing: norm\.weight"):
        run("convert", path, "-o", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
