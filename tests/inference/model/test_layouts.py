"""Each layout in which people have weights loads, and says the same as the official directory with the same weights."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from inference import CheckpointError, SpeechEngine, SpeechRequest
from inference.hub import complete
from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from inference.model.layout import Adapter
from inference.model.tokenizer import Tokenizer
from tests import layouts
from tests.conftest import CODEC_FILE

CPU = torch.device("cpu")
TEXT = "Whoever it was, it loads."


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A directory as it is released, beside which the others are made, as FishSpeech's guide names them."""
    directory = tmp_path_factory.mktemp("checkpoints") / "fish-speech-1.5"
    random_checkpoint.write(directory, "tiny", 7)
    return layouts.talkative(directory)


@pytest.fixture(scope="module")
def adapter(official):
    file = official.parent / "step_000001000.ckpt"
    layouts.lightning(layouts.adapter_of(layouts.weights_of(official)), file)
    return file


def load(path, copies, **more):
    return checkpoints.load(complete(path, **more), CPU, copies)


def greedy(loaded):
    with SpeechEngine(loaded, slots=1) as engine:
        return engine.generate_codes(SpeechRequest(TEXT, temperature=0, max_new_tokens=24)).tolist()


@pytest.fixture(scope="module")
def expected(official, tmp_path_factory):
    codes = greedy(load(official, tmp_path_factory.mktemp("copies")))
    assert len(codes[0]) > 20
    return codes


def with_weights(official, target, tensors):
    layouts.copy_of(official, target, "model.pth")
    torch.save(tensors, target / "model.pth")
    return target


def test_a_merged_fine_tune_takes_the_codec_beside_it(official, expected, tmp_path):
    path = layouts.merge_lora_output(official, official.parent / "mine")
    loaded = load(path, tmp_path)
    assert greedy(loaded) == expected
    assert loaded.codec_id == load(official, tmp_path).codec_id


@pytest.mark.parametrize("name", [CODEC_FILE, ""], ids=["a file", "a directory"])
def test_a_codec_can_be_named(official, tmp_path, name):
    path = layouts.merge_lora_output(official, tmp_path / "elsewhere")
    other = tmp_path / "other"
    random_checkpoint.write(other, "tiny", 8)
    for checkpoint in (path, official):
        assert complete(checkpoint, codec=str(other / name)).codec == other / CODEC_FILE


def test_a_codec_that_is_nowhere_is_one_sentence(official, tmp_path):
    with pytest.raises(CheckpointError, match=r"FISHSERVE_CODEC is '.*nothing'"):
        complete(official, codec=str(tmp_path / "nothing"))


def test_a_training_checkpoint_loads_without_its_optimiser(official, expected, tmp_path):
    file = layouts.lightning(layouts.weights_of(official), official.parent / "full.ckpt")
    assert file.stat().st_size > 3 * (official / "model.pth").stat().st_size
    assert greedy(load(file, tmp_path / "copies")) == expected  # config, tokenizer and codec are those of fish-speech-1.5 beside it
    model, codec = (path.stat().st_size for path in (official / "model.pth", official / CODEC_FILE))
    assert sum(c.stat().st_size for c in (tmp_path / "copies").iterdir()) < 1.1 * (model + codec)


def test_the_only_training_checkpoint_of_a_directory_is_its_model(official, expected, tmp_path):
    path = layouts.copy_of(official, tmp_path / "c", "model.pth")
    layouts.lightning(layouts.weights_of(official), path / "step_000000100.ckpt")
    assert greedy(load(path, tmp_path)) == expected
    shutil.copy(path / "step_000000100.ckpt", path / "step_000000200.ckpt")
    with pytest.raises(CheckpointError, match=r"several files of weights \(step_000000100\.ckpt, step_000000200\.ckpt\); name one"):
        load(path, tmp_path)


@pytest.mark.parametrize("alpha", [16, 4])
def test_an_adapter_is_merged_as_it_was_trained(official, adapter, expected, tmp_path, alpha):
    tensors = layouts.weights_of(official)
    reference = with_weights(official, tmp_path / "merged", layouts.merged(tensors, layouts.adapter_of(tensors), alpha))
    ours = load(official, tmp_path, adapter=str(adapter) + (f":{alpha}" if alpha != 16 else ""))
    theirs = load(reference, tmp_path)
    for a, b in zip(ours.lm.parameters(), theirs.lm.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    assert greedy(ours) == greedy(theirs) != expected


@pytest.mark.parametrize("rank", [4, 16])
def test_other_ranks_and_files_without_a_trainer(official, tmp_path, rank):
    tensors = layouts.weights_of(official)
    matrices = layouts.adapter_of(tensors, rank)
    (tmp_path / "adapter").mkdir()
    save_file(matrices, tmp_path / "adapter" / "adapter.safetensors")
    ours = load(official, tmp_path, adapter=str(tmp_path / "adapter"))
    reference = layouts.merged(tensors, matrices)
    torch.testing.assert_close(ours.lm.embeddings.weight, reference["embeddings.weight"], atol=1e-6, rtol=1e-6)


def test_an_adapter_alone_says_what_it_is(adapter):
    with pytest.raises(CheckpointError, match=r"is a LoRA adapter \(rank 8\), which needs the model it was trained on: .*--adapter"):
        load(adapter, adapter.parent)


def test_a_file_of_weights_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"step\.ckpt does not exist"):
        complete(tmp_path / "step.ckpt")


def drop(name):
    return lambda a: {n: t for n, t in a.items() if n != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a | {"layers.0.attention.wo.lora_A": torch.zeros(8, 48)}, r"its layers\.0\.attention\.wo\.weight is \(64, 48\), the checkpoint's is \(64, 64\)"),
        (lambda a: a | {"embeddings.lora_A": torch.zeros(8, 9)}, r"its embeddings\.weight is \(9, 64\), the checkpoint's is \(\d+, 64\)"),
        (lambda a: a | {"layers.9.attention.wo.lora_A": torch.zeros(8, 64), "layers.9.attention.wo.lora_B": torch.zeros(64, 8)}, r"it changes layers\.9\.attention\.wo\.weight, which is not there"),
        (drop("output.lora_B"), r"it has output\.lora_A without its other half"),
        (lambda a: a | {"output.lora_A": torch.zeros(3, 64)}, r"lora_A \(3, 64\) and lora_B \(\d+, 8\), of two ranks"),
        (lambda a: a | {"output.lora_A": torch.zeros(8, 64, dtype=torch.int64)}, r"output has a LoRA matrix \(8, 64\) of torch.int64"),
        (lambda a: a | {"output.lora_A": torch.full((8, 64), torch.nan)}, r"output hold NaN"),
        (lambda _: {"norm.weight": torch.ones(64)}, "holds no LoRA matrices"),
    ],
    ids=["shape", "table", "key", "half", "ranks", "type", "nan", "none"],
)  # fmt: skip
def test_an_adapter_of_another_model_is_one_sentence_with_the_first_difference(official, tmp_path, change, message):
    torch.save(change(layouts.adapter_of(layouts.weights_of(official))), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message) as error:
        load(official, tmp_path, adapter=str(tmp_path / "a.pth"))
    assert len(str(error.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("spec", ["{}:sixteen", "{}:0", "{}:nan", "{}:1e9", "{}.missing"])
def test_an_adapter_that_is_not_one_is_refused(official, adapter, spec):
    with pytest.raises(CheckpointError, match="adapter"):
        complete(official, adapter=spec.format(adapter))


def test_int8_loads_as_what_it_stands_for(official, tmp_path):
    quantised = layouts.int8(layouts.weights_of(official))
    path = with_weights(official, tmp_path / "fs-1.2-int8-20250527", quantised)
    (path / CODEC_FILE).unlink()
    reference = with_weights(official, tmp_path / "reference", layouts.dequantised(quantised))
    theirs = greedy(load(reference, tmp_path))
    for _ in range(2):  # the second load takes the copy
        assert greedy(load(path, tmp_path, codec=str(official))) == theirs
    assert min(c.stat().st_size for c in tmp_path.glob("*.safetensors")) < (official / "model.pth").stat().st_size


def test_an_adapter_can_be_added_to_int8(official, adapter, tmp_path):
    quantised = layouts.int8(tensors := layouts.weights_of(official))
    path = with_weights(official, tmp_path / "int8", quantised)
    ours = load(path, tmp_path, adapter=str(adapter))
    reference = layouts.merged(layouts.dequantised(quantised), layouts.adapter_of(tensors))
    torch.testing.assert_close(ours.lm.layers[1].feed_forward.w2.weight, reference["layers.1.feed_forward.w2.weight"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scales", [None, torch.ones(3), torch.ones(64, dtype=torch.int32)], ids=["none", "too few", "whole numbers"])
def test_int8_without_its_scales_is_refused(official, tmp_path, scales):
    tensors = layouts.int8(layouts.weights_of(official)) | {"layers.0.attention.wo.scales": scales}
    path = with_weights(official, tmp_path / "c", {n: t for n, t in tensors.items() if t is not None})
    with pytest.raises(CheckpointError, match=r"layers\.0\.attention\.wo\.weight is int8, and .*scales does not hold one scale for each"):
        load(path, tmp_path)


def test_int4_is_refused_with_what_to_do(official, tmp_path):
    packed = {
        "layers.0.attention.wo.weight": torch.zeros(8, 1, 32, 4, dtype=torch.int32),
        "layers.0.attention.wo.scales_and_zeros": torch.zeros(1, 64, 2),
    }
    path = with_weights(official, tmp_path / "fs-1.2-int4-g128-20250527", layouts.weights_of(official) | packed)
    with pytest.raises(CheckpointError, match=r"is quantised to int4 .*use the checkpoint it was made from"):
        load(path, tmp_path)


def test_tokenizer_json_and_safetensors_serve_in_place_of_the_official_files(official, expected, tmp_path):
    path = layouts.copy_of(official, tmp_path / "c", "model.pth", CODEC_FILE)
    layouts.tokenizer_json(path)
    save_file(layouts.weights_of(official), path / "model.safetensors")
    save_file(torch.load(official / CODEC_FILE, weights_only=True), (path / CODEC_FILE).with_suffix(".safetensors"))
    loaded = load(path, tmp_path)
    assert greedy(loaded) == expected
    text = "Grüße, 你好: \x00\x7f\xa0\xad\n naïve <|im_end|> 12"
    assert loaded.tokenizer.encode(text) == Tokenizer.from_file(official / "tokenizer.tiktoken").encode(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not a tokenizer"), ("{", "is not a tokenizer"), ('{"model": {"vocab": 3}}', "is not a tokenizer"),
        ('{"model": {"vocab": {"a b": 0}}}', "the token 'a b' is not written as byte-level BPE"),
        ('{"model": {"vocab": {"a": 1}}}', r"ranks are not 0\.\.0"),
        ('{"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "<|voice|>", "id": 5}]}', r"<\|voice\|> is 5; after 1 tokens .* at 11"),
    ],
)  # fmt: skip
def test_another_tokenizer_json_is_one_sentence(tmp_path, content, message):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_a_model_of_another_shape_names_a_few_of_its_tensors(official, tmp_path):
    tensors = {f"text_model.{name}": t for name, t in layouts.weights_of(official).items()}
    path = with_weights(official, tmp_path / "c", tensors)
    with pytest.raises(CheckpointError, match=r"missing: codebook_embeddings\.weight, [\w.]+, [\w.]+ and \d+ more; unexpected: ") as error:
        load(path, tmp_path)
    assert len(str(error.value)) < 500


def test_a_layout_names_its_adapter(official, adapter):
    assert complete(official, adapter=f"{adapter}:8").adapter == Adapter(adapter, 8)
