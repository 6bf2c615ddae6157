"""The vocoder's own kernels, in Triton's interpreter: the sound of the codec's head, however a stream is cut."""

import math
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="Triton is for Linux alone")

from inference.engine.cuda_vocoder import FusedHead
from inference.engine.vocoder import Passes
from inference.model.codec import Codec, Head, History
from inference.model.config import CodecConfig

SMALL = CodecConfig(
    n_mels=8, depths=(1, 1, 1, 1), dims=(8, 8, 8, 12), kernel_size=3, groups=2, downsample_factors=(2, 2), head_channels=48,
    conv_pre_kernel=5, conv_post_kernel=3, upsample_kernels=(8, 4), resblock_kernels=(3, 5, 7), units_per_resblock=2,
)  # fmt: skip
"""Channels of 48, 24 and 12: no powers of two, and products that end within a block."""


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


def head_of(config, dtype):
    head = Head(config).to(dtype).requires_grad_(False)
    for weight in head.parameters():
        weight.mul_(2.5)  # so that what is far away is heard
    return head


def values(history):
    """The pasts as a pass keeps them: (rows, values)."""
    return torch.cat([past.movedim(1, -1).flatten(1) for past in history.past], dim=1)


def flowing(fused, features, cuts, width):
    """The samples of features (rows, time, dim) in pieces that end at `cuts`, and the last pasts."""
    pasts, sound = features.new_zeros(len(features), width), []
    for start, end in zip([0, *cuts], [*cuts, features.shape[1]], strict=True):
        kept = torch.full_like(pasts, torch.nan)
        sound.append(fused.run(features[:, start:end].contiguous(), pasts, kept))
        pasts = kept
    return torch.cat(sound, dim=1), pasts


@pytest.mark.parametrize(
    ("dtype", "tolerance", "branches"), [(torch.float32, 1e-5, 3), (torch.float16, 0.03, 1)], ids=["fp32, 3 branches", "fp16, 1 branch"]
)
def test_a_stream_in_pieces_has_the_sound_of_the_whole(dtype, tolerance, branches):
    config = replace(SMALL, resblock_kernels=SMALL.resblock_kernels[:branches])
    head, features = head_of(config, dtype), torch.randn(1, 52, config.dims[-1]).to(dtype)
    history = History()
    whole = head(features.transpose(1, 2), history).float()
    past = values(history)
    sound, kept = flowing(FusedHead(head, 0), features, (16, 40), past.shape[1])
    assert whole.std() > 0.05
    assert (sound - whole).norm() <= tolerance * whole.norm()
    assert (kept.float() - past.float()).norm() <= tolerance * past.float().norm()


def test_a_row_hears_nothing_of_its_neighbours():
    config = replace(SMALL, resblock_kernels=(3,), units_per_resblock=1)
    fused, features = FusedHead(head_of(config, torch.float32), 0), torch.randn(3, 32, config.dims[-1])
    width = fused.values
    together, pasts = flowing(fused, features, (16,), width)
    features[1] = torch.nan
    beside, others = flowing(fused, features, (16,), width)
    assert torch.equal(beside[::2], together[::2])
    assert torch.equal(others[::2], pasts[::2])
    assert beside[1].isnan().all()


def test_more_branches_than_the_kernels_take_are_refused():
    with pytest.raises(ValueError, match="4 branches"):
        FusedHead(Head(replace(SMALL, resblock_kernels=(3, 3, 3, 3))), 0)


@pytest.mark.parametrize("changes", [{"conv_pre_kernel": 21}, {"resblock_kernels": (41,)}], ids=str)
def test_a_codec_that_looks_back_further_than_a_pass_is_refused(changes):
    fused = FusedHead(head_of(replace(SMALL, **changes), torch.float32), 0)
    pasts = torch.zeros(1, fused.values)
    with pytest.raises(ValueError, match="looks back"):
        fused.run(torch.zeros(1, 16, SMALL.dims[-1]), pasts, torch.empty_like(pasts))


def test_passes_with_these_kernels_are_the_codecs(monkeypatch):
    config = replace(SMALL, resblock_kernels=(3,), units_per_resblock=1)
    monkeypatch.setattr("inference.engine.vocoder.SAMPLES_PER_FRAME", 4 * math.prod(config.upsample_rates))
    codec = Codec(config).requires_grad_(False)
    codec.quantizer.lay_out()
    passes, codes = Passes(codec), torch.randint(0, 1000, (2, config.groups, 8))
    passes.fuse()
    streams = [codec.stream() for _ in codes]
    sound = torch.cat([passes.decode(streams, part) for part in codes.split(4, dim=2)], dim=1)
    expected = codec.decode(codes)
    assert (sound - expected).norm() <= 1e-4 * expected.norm()
