import json
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from inference import CheckpointError, PrecisionError
from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from inference.model.card import Card, read_card
from inference.model.checkpoint import verify_precision
from inference.model.config import HEADS
from inference.model.dual_ar import Span
from inference.model.weights import fold_weight_norm, unfold_weight_norm
from tests.conftest import CODEC_FILE, golden_tensors

CPU = torch.device("cpu")


@pytest.fixture
def directory(golden_directory, tmp_path):
    """A copy of the golden checkpoint that a test may spoil."""
    shutil.copytree(golden_directory, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def load(directory):
    return checkpoints.load(directory, CPU, directory.parent / "copies")


def tensors_of(directory, name="model.pth"):
    return torch.load(directory / name, weights_only=True)


def change_config(directory, **changes):
    raw = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(raw | changes))


def logits(loaded):
    prompt = golden_tensors("lm_tiny/prompts.safetensors")["plain"].long()[None]
    span = Span.prompt(0, 0, prompt.shape[2], CPU)
    return loaded.lm.token_logits(loaded.lm.slow(prompt, loaded.lm.new_cache(1, 64), span)[0, -1])


def split_qkv(tensors):
    out = {}
    for name, t in tensors.items():
        if ".wqkv." in name:
            for part, rows in zip("qkv", t.split((64, 32, 32)), strict=True):
                out[name.replace("wqkv", f"w{part}")] = rows.clone()
        else:
            out[name] = t
    return out


@pytest.mark.parametrize(
    "disguise",
    [
        lambda t: {"state_dict": t},
        lambda t: {f"model.{n}": x for n, x in t.items()},
        lambda t: {"state_dict": {f"model.{n}": x for n, x in t.items()}},
        split_qkv,
        lambda t: {n: x.float() for n, x in t.items()},
    ],
    ids=["wrapped", "prefixed", "both", "separate q k v", "float32"],
)
def test_official_disguises_of_the_language_model_are_seen_through(directory, disguise):
    torch.save(disguise(tensors_of(directory)), directory / "model.pth")
    torch.testing.assert_close(logits(load(directory)), golden_tensors("lm_tiny/prefill.safetensors")["plain.logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("wrap", [False, True])
def test_a_codec_saved_with_its_trainer_is_seen_through(directory, golden, wrap):
    tensors = tensors_of(directory, CODEC_FILE)
    trainer = {f"generator.{n}": t for n, t in tensors.items()} | {"discriminator.weight": torch.ones(3)}
    torch.save({"state_dict": trainer} if wrap else trainer, directory / CODEC_FILE)
    codes = torch.arange(16).view(1, 8, 2)
    assert torch.equal(load(directory).codec.decode(codes), golden.codec.decode(codes))


def test_safetensors_serve_in_place_of_pth(directory, golden):
    save_file(tensors_of(directory), directory / "model.safetensors")
    save_file({n: t.contiguous() for n, t in golden.codec.state_dict().items()}, (directory / CODEC_FILE).with_suffix(".safetensors"))
    (directory / "model.pth").unlink()
    (directory / CODEC_FILE).unlink()
    assert torch.equal(logits(load(directory)), logits(golden))


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True}, {"attention_qkv_bias": True}, {"num_codebooks": 4}, {"num_codebooks": 6},
        {"fast_dim": 32, "fast_n_head": 2, "fast_n_local_heads": 1, "fast_intermediate_size": 64}, {"n_local_heads": 4},
    ],
    ids=str,
)  # fmt: skip
def test_other_shapes_load_and_speak(tmp_path, changes):
    random_checkpoint.write(tmp_path / "c", "tiny", 1, **changes)
    loaded = checkpoints.load(tmp_path / "c", CPU, tmp_path / "copies")
    assert loaded.config.num_codebooks == loaded.codec.config.groups == changes.get("num_codebooks", 8)
    assert loaded.codec.decode(torch.zeros(1, loaded.config.num_codebooks, 3, dtype=torch.int64)).shape == (1, 3 * 2048)


def test_every_misfit_is_named_in_one_error(directory):
    tensors = tensors_of(directory)
    del tensors["norm.weight"], tensors["layers.2.attention.wo.weight"]
    tensors["layers.9.attention.wo.weight"] = torch.zeros(64, 64)
    tensors["fast_output.weight"] = torch.zeros(3, 64)
    torch.save(tensors, directory / "model.pth")
    with pytest.raises(CheckpointError) as error:
        load(directory)
    message = str(error.value)
    assert "missing: layers.2.attention.wo.weight, norm.weight;" in message
    assert "unexpected: layers.9.attention.wo.weight;" in message
    assert "fast_output.weight is (3, 64), expected (1024, 64)" in message


def test_a_codec_of_other_groups_is_refused(directory, tmp_path):
    random_checkpoint.write(tmp_path / "four", "tiny", 0, num_codebooks=4)
    shutil.copy(tmp_path / "four" / CODEC_FILE, directory / CODEC_FILE)
    with pytest.raises(CheckpointError, match="the codec has 4 codebooks but the language model speaks 8"):
        load(directory)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(directory):
    change_config(directory, vocab_size=1200)
    with pytest.raises(CheckpointError, match=r"the tokenizer has 1536 ids but config\.json's vocab_size is 1200"):
        load(directory)


@pytest.mark.parametrize("name", HEADS)
def test_heads_that_the_model_does_not_have_are_refused(directory, name):
    (directory / "generation_config.json").write_text(json.dumps({name: [[1, 0], [7, 0]]}))
    with pytest.raises(CheckpointError, match=rf"{name} name \[\[7, 0\]\]; the model has 4 layers of 4 heads"):
        load(directory)


def test_two_codecs_are_refused(directory):
    shutil.copy(directory / CODEC_FILE, directory / "firefly-gan-vq-fsq-4x1024-42hz-generator.pth")
    with pytest.raises(CheckpointError, match="holds several codecs"):
        load(directory)


def test_a_codec_is_known_by_what_makes_codes(directory, golden):
    file = directory / CODEC_FILE
    tensors = tensors_of(directory, CODEC_FILE)
    file.unlink()
    for part, same in (("head.", True), ("backbone.", False), ("quantizer.", False)):
        name = next(n for n in tensors if n.startswith(part) and n.endswith(".bias"))
        save_file(tensors | {name: tensors[name] + 1}, file.with_suffix(".safetensors"))
        assert (load(directory).codec_id == golden.codec_id) == same


@pytest.mark.parametrize("name", ["config.json", "model.pth", "tokenizer.tiktoken", CODEC_FILE])
def test_a_missing_file_is_named(directory, name):
    (directory / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name.removesuffix('.pth')}.* is missing"):
        load(directory)


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="is not a directory"):
        checkpoints.load(tmp_path / "nowhere", CPU)


@settings(max_examples=12)
@given(st.data())
@pytest.mark.parametrize("name", ["model.pth", CODEC_FILE])
def test_a_truncated_or_corrupt_file_is_one_clear_error(golden_directory, golden, tmp_path_factory, name, data):
    """Whatever happened to the bytes, the weights are right or the error is ours."""
    directory = tmp_path_factory.mktemp("spoilt")
    for file in golden_directory.iterdir():
        (directory / file.name).symlink_to(file)
    original = (golden_directory / name).read_bytes()
    spoilt = bytearray(original)
    if data.draw(st.booleans()):
        del spoilt[data.draw(st.integers(0, len(spoilt) - 1)) :]
    else:
        for at in data.draw(st.lists(st.integers(0, len(spoilt) - 1), min_size=1, max_size=5)):
            spoilt[at] ^= data.draw(st.integers(1, 255))
    (directory / name).unlink()
    (directory / name).write_bytes(spoilt)
    try:
        loaded = checkpoints.load(directory, CPU, directory / "copies")
    except CheckpointError as e:
        assert str(directory) in str(e) or "codec" in str(e)
    else:
        for ours, theirs in ((loaded.lm, golden.lm), (loaded.codec, golden.codec)):
            for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x80\x04K\x05.", b"PK\x05\x06" + bytes(18), b"<html>401</html>", b"version https://git-lfs.github.com/spec/v1\n"],
    ids=repr,
)
def test_a_foreign_file_is_one_clear_error(directory, content):
    (directory / "model.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        load(directory)


def test_code_in_a_pickle_is_never_run(directory):
    class Evil:
        def __reduce__(self):
            return (open, (str(directory / "owned"), "w"))

    torch.save({"norm.weight": Evil()}, directory / "model.pth")
    with pytest.raises(CheckpointError, match="not a readable torch checkpoint"):
        load(directory)
    assert not (directory / "owned").exists()


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, torch.zeros(2), {"a": {"b": torch.zeros(1)}}, {}], ids=repr)
def test_a_file_without_named_tensors_is_refused(directory, value):
    torch.save(value, directory / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        load(directory)


def test_weights_that_are_not_numbers_are_refused(directory):
    tensors = tensors_of(directory)
    tensors["norm.weight"][3] = float("nan")
    torch.save(tensors, directory / "model.pth")
    with pytest.raises(CheckpointError, match=r"norm\.weight holds NaN"):
        load(directory)


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(64, dtype=torch.int64), torch.zeros(64, dtype=torch.complex64), torch.zeros(64).to_sparse()],
    ids=lambda t: str(t.dtype),
)
def test_weights_that_are_not_dense_floating_point_are_refused(directory, tensor):
    torch.save(tensors_of(directory) | {"norm.weight": tensor}, directory / "model.pth")
    with pytest.raises(CheckpointError, match=r"norm\.weight is a"):
        load(directory)


def test_nan_in_safetensors_is_refused_too(directory):
    tensors = tensors_of(directory)
    tensors["norm.weight"][0] = torch.nan
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"norm\.weight holds NaN"):
        load(directory)


def test_tensors_that_share_memory_load(directory):
    tensors = tensors_of(directory)
    tensors["layers.0.ffn_norm.weight"] = tensors["norm.weight"]
    torch.save(tensors, directory / "model.pth")
    assert torch.equal(load(directory).lm.layers[0].ffn_norm.weight, tensors["norm.weight"].float())


def test_a_codec_of_flat_tensors_is_refused(directory):
    torch.save({n: t.flatten() for n, t in tensors_of(directory, CODEC_FILE).items()}, directory / CODEC_FILE)
    with pytest.raises(CheckpointError, match=r"codec|matching direction"):
        load(directory)


def test_a_real_checkpoint_is_not_overwritten_with_noise(directory):
    with pytest.raises(CheckpointError, match="not random"):
        random_checkpoint.write(directory, "tiny", 0)


def test_later_loads_use_the_copy_and_notice_a_changed_file(directory, golden):
    load(directory)
    copies = list((directory.parent / "copies").glob("*.safetensors"))
    assert len(copies) == 2
    stamp = (directory / "model.pth").stat()
    (directory / "model.pth").write_bytes(bytes(stamp.st_size))  # same size and time: only the copy can help
    os.utime(directory / "model.pth", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert torch.equal(logits(load(directory)), logits(golden))
    (directory / "model.pth").write_bytes(b"changed")
    with pytest.raises(CheckpointError, match="not a readable"):
        load(directory)


def test_a_damaged_copy_is_made_anew(directory, golden):
    load(directory)
    for copy in (directory.parent / "copies").iterdir():
        copy.write_bytes(b"nonsense")
    assert torch.equal(logits(load(directory)), logits(golden))


def test_a_cache_that_cannot_be_written_is_no_error(directory, golden):
    (directory.parent / "file").write_text("")
    loaded = checkpoints.load(directory, CPU, directory.parent / "file")
    assert torch.equal(logits(loaded), logits(golden))


def test_weight_norm_folds_and_unfolds(golden):
    tensors = golden.codec.state_dict()
    again = fold_weight_norm(unfold_weight_norm(tensors))
    assert again.keys() == tensors.keys()
    for name, t in tensors.items():
        torch.testing.assert_close(again[name], t, atol=1e-6, rtol=1e-5)


def test_a_weight_of_the_wrong_precision_is_named(directory):
    loaded = load(directory)
    loaded.lm.layers[1].attention.wo.half()
    loaded.codec.head.conv_post.conv.double()
    with pytest.raises(PrecisionError, match=r"layers\.1\.attention\.wo\.weight is float16.*head\.conv_post\.conv\.weight is float64"):
        verify_precision(loaded.lm, loaded.codec, CPU)


def test_on_cuda_fp32_weights_are_refused(golden):
    with pytest.raises(PrecisionError, match=r"on cuda every weight must be float16; .*head\.conv_pre"):
        verify_precision(golden.lm, golden.codec, torch.device("cuda"))


def test_the_card_tells_licence_and_noise(tmp_path, golden_directory):
    random_checkpoint.write(tmp_path, "tiny", 0)
    assert (read_card(tmp_path).licence, read_card(tmp_path).random) == ("apache-2.0", True)
    assert read_card(golden_directory) == Card(None, None, random=False)
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-sa-4.0\n---\n")
    assert (read_card(tmp_path).licence, read_card(tmp_path).random) == ("cc-by-nc-sa-4.0", False)


def test_a_codec_that_asks_for_more_memory_than_it_has_is_refused(directory):
    tensors = tensors_of(directory, CODEC_FILE)
    wide = {name: torch.zeros(1 << 20) for name in tensors if name.startswith("backbone.stages.1.") and name.endswith("gamma")}
    torch.save(tensors | wide, directory / CODEC_FILE)
    with pytest.raises(CheckpointError, match=r"wrong shape: backbone\.[\w.]+ is .*, expected .*1048576"):
        load(directory)
    many = tensors | {"backbone.stages.987654321.0.gamma": torch.zeros(1), f"head.ups.{'9' * 150}.conv.weight": torch.zeros(1)}
    torch.save(many, directory / CODEC_FILE)
    with pytest.raises(CheckpointError, match=r"unexpected: backbone\.stages\.987654321"):
        load(directory)
    mels = {"backbone.downsample_layers.0.0.conv.weight": torch.zeros(1, 1 << 20, 1)}
    torch.save(tensors | mels, directory / CODEC_FILE)
    with pytest.raises(CheckpointError, match="the codec hears 1048576 bands"):
        load(directory)


@pytest.mark.parametrize(
    "change", [{"n_layer": 1 << 20}, {"max_seq_len": 1 << 20, "n_head": 1, "n_local_heads": 1, "dim": 1 << 20}], ids=str
)
def test_a_configuration_that_asks_for_any_memory_is_refused(directory, change):
    change_config(directory, **change)
    with pytest.raises(CheckpointError, match=r"which no model can have|more than any model has"):
        load(directory)


def test_a_configuration_of_gigabytes_is_not_read(directory):
    os.truncate(directory / "config.json", 2 << 30)
    with pytest.raises(CheckpointError, match="has 2147483648 bytes"):
        load(directory)
