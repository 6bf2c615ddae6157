"""What the tests of several kernels share: types, tolerances, random operands."""

import pytest
import torch

from inference.model.dual_ar import RMSNorm

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])


def close(ours, theirs):
    tolerance = 1e-5 if ours.dtype == torch.float32 else 4e-3
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def random(*shape, dtype=torch.float32):
    return torch.randn(*shape).to(dtype)


def in_8_bits(weight):
    """A weight (out, in) rounded to 8 bits, the scales of its rows, and what both stand for."""
    scale = weight.float().abs().amax(dim=1) / 127
    rounded = (weight.float() / scale[:, None]).round().to(torch.int8)
    return rounded, scale, (rounded * scale[:, None]).to(weight.dtype)


def normed(k, dtype):
    """A norm, and its weight and epsilon as kernels take them."""
    norm = RMSNorm(k, 1e-5).to(dtype).requires_grad_(False)
    norm.weight.uniform_(0.5, 1.5)
    return norm, (norm.weight, norm.eps)
