"""The matrices a decoding pass multiplies by, as they lie in memory."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

Weights = Literal["native", "int8"]


LARGE = 2 << 20
"""Bytes of a large matrix."""


class Matrix(Protocol):
    """Linear maps side by side."""

    def times(self, x: Tensor) -> Tensor:
        """x (rows, in) -> (rows, out)."""
        ...

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """to (rows, out) + x (rows, in) times the matrix."""
        return to + self.times(x)


@dataclass(frozen=True)
class Dense(Matrix):
    """Weights (in, out) in the model's own precision, of which the model's become views, so that nothing is kept twice.

    In memory they lie so on a CPU, and as (out, in) on CUDA, where our kernels read them too.
    """

    weight: Tensor
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Dense:
        packed = torch.cat([linear.weight for linear in linears]).t()
        packed = packed if packed.is_cuda else packed.contiguous()
        for linear, view in zip(linears, packed.t().split([linear.out_features for linear in linears]), strict=True):
            linear.weight.data = view
        return Dense(packed, _bias(linears))

    def times(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(to, x, self.weight)


@dataclass(frozen=True)
class Half(Matrix):
    """Large weights that are FP16's or BF16's own, kept as FP16 and multiplied in FP32, on a CPU whose torch has FBGEMM.

    Reads half the memory that FP32 does, moves no weight by more than 3e-8, and gives a row the same alone and among others. The model keeps
    its FP32 weights for prompts.
    """

    packed: object
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Half:
        weight = torch.cat([linear.weight for linear in linears])
        return Half(torch.ops.quantized.linear_prepack_fp16(weight, None), _bias(linears))

    @staticmethod
    def pays(*linears: nn.Linear) -> bool:
        return _fbgemm() and _fp32_on_cpu(*linears) and large(*linears) and all(_fits(linear.weight) for linear in linears)

    def times(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self.packed)
        return y if self.bias is None else y + self.bias


def _fits(weight: Tensor) -> bool:
    """Whether FP16 holds these weights. BF16's own it does, but for what is less than 8e-6 and loses up to 3e-8."""
    return bool((weight.half().float() - weight).abs().max() <= 2.0**-25)


@dataclass(frozen=True)
class Split(Matrix):
    """Large FP32 weights on a CPU, (parts, in, out / parts), a part for each thread.

    On some processors MKL multiplies one row by a matrix in one thread, which cannot read memory as fast as all of them.
    """

    weight: Tensor
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Split:
        packed = torch.cat([linear.weight for linear in linears]) if len(linears) > 1 else linears[0].weight.data
        for linear, view in zip(linears, packed.split([linear.out_features for linear in linears]), strict=True):
            linear.weight.data = view
        return Split(packed.view(torch.get_num_threads(), -1, packed.shape[1]).transpose(1, 2), _bias(linears))

    @staticmethod
    def pays(*linears: nn.Linear) -> bool:
        threads = torch.get_num_threads()
        outputs = sum(linear.out_features for linear in linears)
        return _fp32_on_cpu(*linears) and threads > 1 and outputs % threads == 0 and large(*linears)

    def times(self, x: Tensor) -> Tensor:
        y = torch.bmm(x.expand(len(self.weight), *x.shape), self.weight).transpose(0, 1).reshape(len(x), -1)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class Int8(Matrix):
    """Large weights rounded to 8 bits with a scale for each output, by FBGEMM; each row of x is rounded with a scale of its own.

    Reads a quarter of the memory that FP32 does. Rows do not influence each other's rounding.
    """

    packed: object
    levels: int
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Int8:
        weight = torch.cat([linear.weight for linear in linears])
        scale = weight.abs().amax(dim=1).clamp(min=1e-12).double() / 127
        with warnings.catch_warnings():  # torch calls quantised tensors deprecated and has nothing else yet to pack for FBGEMM from
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scale, torch.zeros(len(scale), dtype=torch.int64), 0, torch.qint8)
        levels = 127 if torch.cpu._is_vnni_supported() else 63  # without VNNI products of 8 by 8 bits are added in 16, which overflow
        return Int8(torch.ops.quantized.linear_prepack(rounded, None), levels, _bias(linears))

    def times(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True).clamp_(min=1e-12)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        y: Tensor = product(x / size, 1 / self.levels, self.levels + 1, self.packed).mul_(size)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class Int8Small(Matrix):
    """Small weights rounded to 8 bits, (out, in), in products of BF16: in a cache, what counts is how few operations surround them."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Int8Small:
        weight = torch.cat([linear.weight for linear in linears])
        scale = (weight.abs().amax(dim=1).clamp(min=1e-12) / 127).bfloat16()  # rounded before it is divided by, so that it costs nothing
        return Int8Small((weight / scale.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scale, _bias(linears))

    @staticmethod
    def works(*linears: nn.Linear) -> bool:
        """torch's kernel reads past its inputs unless there is a multiple of 16 of them."""
        return linears[0].in_features % 16 == 0

    def times(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.bfloat16(), self.weight, self.scale).float()
        return y if self.bias is None else y + self.bias


def lay_out(weights: Weights, *linears: nn.Linear) -> Matrix:
    """The linear maps as one matrix, in the form that is fastest where they are."""
    if weights == "int8" and large(*linears) and _fbgemm():
        return Int8.of(*linears)
    if weights == "int8" and Int8Small.works(*linears):
        return Int8Small.of(*linears)
    return next((kind.of(*linears) for kind in (Half, Split) if kind.pays(*linears)), None) or Dense.of(*linears)


def output_matrix(rows: Tensor) -> Matrix:
    """An output layer's `rows` (out, in) as a matrix that gives FP32 logits: rounded ones would tie, and draws go by rank."""
    linear = nn.Linear(rows.shape[1], rows.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(rows.float(), requires_grad=False)
    return lay_out("native", linear)


def _fbgemm() -> bool:
    return torch.backends.quantized.engine in ("x86", "fbgemm")


def large(*linears: nn.Linear) -> bool:
    """Whether the linear maps side by side are read from memory rather than from a cache."""
    return sum(linear.weight.nbytes for linear in linears) >= LARGE


def _fp32_on_cpu(*linears: nn.Linear) -> bool:
    return all(linear.weight.device.type == "cpu" and linear.weight.dtype == torch.float32 for linear in linears)


def _bias(linears: tuple[nn.Linear, ...]) -> Tensor | None:
    return None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
