"""The training view of the quantizer is the project's quantizer."""

from dataclasses import replace

import pytest
import torch

from inference.model.codec import Head, History, Quantizer
from training.encoder import codec_config
from training.fsq import GroupedFSQ, digits, join_digits, nudge
from training.head import run_head, stages
from training.recipe import EncoderRecipe, HeadRecipe

CONFIG = codec_config(replace(EncoderRecipe(), dims=(16, 16, 16, 64), depths=(1, 1, 1, 1)), HeadRecipe(channels=32))


@pytest.fixture
def quantizer():
    torch.manual_seed(0)
    quantizer = Quantizer(CONFIG)
    for rvq in quantizer.residual_fsq.rvqs:
        torch.nn.init.normal_(rvq.project_in.weight, std=0.5)
    return quantizer.eval()


def test_folded_training_view_gives_the_same_codes(quantizer):
    fsq = GroupedFSQ(quantizer, 0.55)
    z = torch.randn(2, 40, 64)
    for _ in range(200):
        fsq.train()(z)
    before = fsq.eval()(z)[1]
    fsq.fold()
    quantizer.reduce = lambda x: x
    assert torch.equal(fsq(z)[1], before)
    assert torch.equal(quantizer.encode(z.transpose(1, 2)).transpose(1, 2), before)


def test_features_of_codes_are_those_the_library_looks_up(quantizer):
    fsq = GroupedFSQ(quantizer, 1.0)
    codes = torch.randint(0, 1000, (2, 7, 8))
    expected = quantizer.residual_fsq.get_output_from_indices(codes.permute(2, 0, 1)[..., None])
    assert torch.allclose(fsq.features(codes), expected, atol=1e-6)


def test_gradient_reaches_the_encoder_through_rounding(quantizer):
    z = torch.randn(2, 5, 64, requires_grad=True)
    GroupedFSQ(quantizer, 0.55).train()(z)[0].square().sum().backward()
    assert z.grad.abs().sum() > 0


def test_digits_and_codes_are_inverse():
    codes = torch.arange(1000)
    assert torch.equal(join_digits(digits(codes)), codes)


def test_nudged_codes_differ_by_at_most_one_a_digit():
    codes = torch.arange(1000)
    moved = nudge(codes)
    assert (digits(moved) - digits(codes)).abs().max() == 1
    assert 0 <= moved.min() <= moved.max() < 1000


def test_fast_head_makes_the_head_s_samples():
    torch.manual_seed(0)
    head = Head(CONFIG).eval()
    features = torch.randn(2, 64, 12)
    with torch.no_grad():
        assert torch.allclose(run_head(head, features), head(features, History()), atol=1e-5)


def test_stages_in_bfloat16_make_nearly_the_same_and_learn():
    torch.manual_seed(0)
    head = Head(CONFIG)
    features = torch.randn(2, 64, 12)
    exact, rough = (list(stages(head, features, bfloat16=many)) for many in (0, 2))
    assert all(stage.dtype == torch.float32 for stage in rough)
    assert (rough[-1] - exact[-1]).norm() < 0.02 * exact[-1].norm()
    assert not torch.equal(rough[0], exact[0])
    rough[-1].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.ups.parameters())
