"""What a pulsed head refuses to begin with."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from inference.model.codec import Codec
from inference.model.weights import unfold_weight_norm
from training.encoder import MelAutoencoder, codec_config
from training.pulsed_head import STATE, WaveDistance, codec_of, export_pulsed_head, main, prepare
from training.recipe import Recipe


@pytest.fixture
def recipe(tmp_path):
    """A folder with an encoder, and names of speech and codes."""
    made = Recipe.smoke(tmp_path)
    encoder = MelAutoencoder(codec_config(made.encoder, made.head), made.encoder.pre_bound_scale)
    torch.save({"model": encoder.state_dict(), "steps": 0}, tmp_path / "encoder.pt")
    for name in ("speech", "codes"):
        (tmp_path / f"{name}_0000.pt").touch()
    return made


def written(recipe, **changed):
    """A file of a random codec of the recipe's shape with the recipe's encoder, apart from `changed`."""
    codec = Codec(codec_config(recipe.encoder, recipe.head)).state_dict()
    encoder = torch.load(recipe.folder / "encoder.pt")["model"]
    codec |= {name: encoder[name] for name in codec.keys() & encoder.keys() if "project_out" not in name} | changed
    file = recipe.folder / "begun.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in codec.items() if tensor is not None}, file)
    return file


def test_it_begins_with_a_codec_that_reads_the_codes(recipe):
    codec, weights = codec_of(recipe, written(recipe))
    assert not codec.training
    assert all(torch.equal(codec.state_dict()[name], tensor) for name, tensor in weights.items())


def test_it_does_not_begin_with_a_codec_of_another_encoder(recipe):
    name = "quantizer.residual_fsq.rvqs.3.project_in.bias"
    with pytest.raises(SystemExit, match=r"has another encoder than .*encoder\.pt, whose codes it cannot read: in an empty folder run"):
        prepare(recipe, written(recipe, **{name: torch.ones(4)}), 1)


def test_it_does_not_begin_with_what_is_no_codec(recipe):
    with pytest.raises(SystemExit, match=r"holds no codec of this recipe's shape: Missing key.* \"head\.conv_pre\.conv\.bias\""):
        prepare(recipe, written(recipe, **{"head.conv_pre.conv.bias": None}), 1)
    (recipe.folder / "text").write_text("no tensors")
    with pytest.raises(SystemExit, match=r"text holds no codec of this recipe's shape: "):
        prepare(recipe, recipe.folder / "text", 1)


def test_it_does_not_begin_without_an_encoder(recipe):
    begun = written(recipe)
    (recipe.folder / "encoder.pt").unlink()
    with pytest.raises(SystemExit, match=r"has no encoder\.pt: make it with `python -m training\.unpack`"):
        prepare(recipe, begun, 1)


@pytest.mark.parametrize("words", [("--processes", "0"), ("--shards", "-1"), ("--seconds", "0"), ("--seconds", "nan")])
def test_it_does_not_begin_with_nothing_to_do(recipe, capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(["--work", str(recipe.folder), *words])
    assert ended.value.code == 2
    assert f"error: {words[0]} is {words[1]}; it must be " in capsys.readouterr().err


def test_it_says_what_it_continues_from(tmp_path, capsys):
    (tmp_path / STATE).touch()
    with pytest.raises(SystemExit, match="has 0 shards of speech"):
        main(["--work", str(tmp_path)])
    assert capsys.readouterr().out == f"the head continues from {tmp_path / STATE}, not from --begin\n"


def test_others_may_read_the_codec_it_writes(recipe):
    begun = written(recipe)
    torch.save({"average": unfold_weight_norm(load_file(begun))}, recipe.folder / STATE)
    made = export_pulsed_head(recipe)
    assert load_file(made).keys() == load_file(begun).keys()
    assert made.stat().st_mode & 0o777 == 0o644


def test_magnitudes_are_compared_in_nats_and_phases_are_not():
    torch.manual_seed(0)
    sound, distance = torch.randn(2, 9000) / 10, WaveDistance()
    wave, magnitude = distance.with_magnitude(sound, sound)
    assert wave < 5e-3  # the root of nothing is not 0, so that it has a slope
    assert magnitude < 5e-3
    turned, magnitude = distance.with_magnitude(-sound, sound)
    assert turned == distance(-sound, sound)
    assert turned > 1
    assert magnitude < 5e-3
    for factor in (2, 0.5):
        _, magnitude = distance.with_magnitude(factor * sound, sound)
        assert magnitude == pytest.approx(math.log(2), rel=0.1)
