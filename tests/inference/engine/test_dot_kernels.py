"""Products by tensor cores in Triton's interpreter against the plain PyTorch they replace."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="Triton is for Linux alone")

from inference.engine.dot_kernels import dot
from tests.inference.engine.kernel_cases import TYPES, close, normed, random

SHAPES = pytest.mark.parametrize(("rows", "k", "n"), [(2, 32, 16), (3, 24, 10), (9, 40, 33), (17, 16, 20), (64, 56, 17)], ids=str)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@TYPES
@SHAPES
def test_a_product_is_of_normalised_inputs_plus_bias_or_what_was_there(dtype, rows, k, n):
    x, w, bias = random(rows, k, dtype=dtype), random(n, k, dtype=dtype) / 8, random(n, dtype=dtype)
    (norm, weights), out, sums = normed(k, dtype), random(rows, n, dtype=dtype), random(rows, n, dtype=dtype)
    expected = F.linear(x, w) + sums
    dot(x, w, out, bias=bias, norm=weights)
    dot(x, w, sums, add=sums)
    close(out, F.linear(norm(x), w, bias))
    close(sums, expected)


@TYPES
@SHAPES
def test_gate_and_up_are_one_product(dtype, rows, k, n):
    x, w, (norm, weights) = random(rows, k, dtype=dtype), random(2 * n, k, dtype=dtype) / 5, normed(k, dtype)
    out = random(rows, n, dtype=dtype)
    dot(x, w, out, gated=True, norm=weights)
    gate, up = F.linear(norm(x), w).chunk(2, dim=-1)
    close(out, F.silu(gate) * up)


@TYPES
def test_every_other_row_may_be_multiplied(dtype):
    x, w, out, (norm, weights) = random(22, 16, dtype=dtype), random(20, 16, dtype=dtype), torch.empty(11, 20), normed(16, dtype)
    dot(x[1::2], w, out, norm=weights)
    close(out, F.linear(norm(x[1::2]).float(), w.float()))


@TYPES
def test_a_weight_may_take_several_steps(dtype, monkeypatch):
    monkeypatch.setattr("inference.engine.dot_kernels.INPUTS", 32)
    rows, k, n = 37, 72, 40
    x, w, (norm, weights) = random(rows, k, dtype=dtype), random(2 * n, k, dtype=dtype) / 8, normed(k, dtype)
    out = random(rows, n, dtype=dtype)
    before = out.clone()
    dot(x, w, out, gated=True, norm=weights, add=out)
    gate, up = F.linear(norm(x), w).chunk(2, dim=-1)
    close(out, F.silu(gate) * up + before)
