"""Memory layouts of the matrices of a decoding pass, and the proof that other rows of a batch do not change a row's result.

Libraries use different kernels for one row and for several, and kernels sum in different orders. On a CPU a request must get the same codes
alone and in a batch, so `Layouts` tries each layout on this processor with every number of rows that may occur. It keeps the numbers at
which a row's result has the same bits, and pads other numbers up to the next of them. It does not use a layout without such a number.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

Weights = Literal["native", "int8"]


LARGE = 2 << 20
"""Bytes of a large matrix."""
PROVED_ROWS = 16
"""Every number of rows up to this is tried; beyond it, only powers of two."""


class Matrix(Protocol):
    """Linear layers concatenated along their outputs. `name` says how they lie in memory."""

    name: ClassVar[str]

    def times(self, x: Tensor) -> Tensor:
        """x (rows, in) -> (rows, out)."""
        ...

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        """to (rows, out) + x (rows, in) times the matrix."""
        return to + self.times(x)


@dataclass(frozen=True)
class Dense(Matrix):
    """Weights (in, out) in the model's own precision. The model's weights become views of them, so nothing is stored twice.

    In memory FP32 on a CPU is (in, out); all else is (out, in), as on CUDA, where our kernels read them too.
    """

    name = "as the model has them"
    weight: Tensor
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Dense:
        packed = torch.cat([linear.weight for linear in linears]).t()
        packed = packed.contiguous() if _fp32_on_cpu(*linears) else packed
        for linear, view in zip(linears, packed.t().split([linear.out_features for linear in linears]), strict=True):
            linear.weight.data = view
        return Dense(packed, _bias(linears))

    def times(self, x: Tensor) -> Tensor:
        return torch.mm(x, self.weight) if self.bias is None else torch.addmm(self.bias, x, self.weight)

    def added(self, to: Tensor, x: Tensor) -> Tensor:
        return torch.addmm(to, x, self.weight)


@dataclass(frozen=True)
class Half(Matrix):
    """Weights that FP16 or BF16 represents exactly, stored as FP16 and multiplied in FP32, on a CPU whose torch has FBGEMM.

    Reads half the memory that FP32 does and changes no weight by more than 3e-8. The model keeps its FP32 weights for prompts.
    """

    name = "FP16 by FBGEMM"
    packed: Tensor
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Half:
        weight = torch.cat([linear.weight for linear in linears])
        with warnings.catch_warnings():  # torch warns once that this product is deprecated; its successor takes 20 µs longer to call
            warnings.simplefilter("ignore", UserWarning)
            packed = torch.fbgemm_pack_gemm_matrix_fp16(weight)
            torch.fbgemm_linear_fp16_weight_fp32_activation(weight[:1] * 0, packed, weight[:, 0] * 0)
        return Half(packed, _bias(linears))

    @staticmethod
    def works(*linears: nn.Linear) -> bool:
        return _fbgemm() and _fp32_on_cpu(*linears) and all(_fits(linear.weight) for linear in linears)

    def times(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.aten.fbgemm_linear_fp16_weight_fp32_activation(x, self.packed, self.bias)
        return y


def _fits(weight: Tensor) -> bool:
    """Whether FP16 holds these weights. It holds BF16 weights, except that those below 8e-6 lose up to 3e-8."""
    return bool((weight.half().float() - weight).abs().max() <= 2.0**-25)


@dataclass(frozen=True)
class OneDNN(Matrix):
    """FP32 weights packed for oneDNN's blocked product, which uses one kernel for one row and for several.

    The model keeps its own weights.
    """

    name = "FP32 by oneDNN"
    packed: Tensor
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> OneDNN:
        weight = torch.cat([linear.weight for linear in linears])
        return OneDNN(torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR), _bias(linears))

    @staticmethod
    def works(*linears: nn.Linear) -> bool:
        return torch.backends.mkldnn.is_available() and _fp32_on_cpu(*linears)

    def times(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")
        return y


_PACKED_FOR = 8
"""Number of rows that oneDNN packs weights for; for one row it would choose another kernel."""


@dataclass(frozen=True)
class RowByRow(Matrix):
    """A matrix that multiplies each row separately: slow for many rows, but the same for each by construction."""

    name = "each row alone"
    matrix: Matrix

    def times(self, x: Tensor) -> Tensor:
        return torch.cat([self.matrix.times(row.clone()) for row in x.split(1)])  # a clone: a row's place in memory matters, too


@dataclass(frozen=True)
class Int8(Matrix):
    """Large weights rounded to 8 bits with a scale for each output, by FBGEMM; each row of x is rounded with its own scale.

    Reads a quarter of the memory that FP32 does. Rows do not influence each other's rounding.
    """

    name = "8 bits by FBGEMM"
    packed: object
    levels: int
    bias: Tensor | None

    @staticmethod
    def works(*linears: nn.Linear) -> bool:
        return large(*linears) and _fbgemm()

    @staticmethod
    def of(*linears: nn.Linear) -> Int8:
        weight = torch.cat([linear.weight for linear in linears])
        scale = weight.abs().amax(dim=1).clamp(min=1e-12).double() / 127
        with warnings.catch_warnings():  # torch deprecates quantised tensors, but FBGEMM can be packed from nothing else yet
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scale, torch.zeros(len(scale), dtype=torch.int64), 0, torch.qint8)
        levels = 127 if torch.cpu._is_vnni_supported() else 63  # without VNNI, 8-bit products are summed in 16 bits, which overflow
        return Int8(torch.ops.quantized.linear_prepack(rounded, None), levels, _bias(linears))

    def times(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, torch.inf, dim=1, keepdim=True).clamp_(min=1e-12)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        y: Tensor = product(x / size, 1 / self.levels, self.levels + 1, self.packed).mul_(size)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class Int8Small(Matrix):
    """Small weights rounded to 8 bits, (out, in), multiplied in BF16.

    They stay in a cache, so the operations around them decide the speed.
    """

    name = "8 bits by torch"
    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    @staticmethod
    def of(*linears: nn.Linear) -> Int8Small:
        weight = torch.cat([linear.weight for linear in linears])
        scale = _scales(weight).bfloat16()  # rounded before the division, so it costs nothing
        return Int8Small(_rounded(weight, scale.float()), scale, _bias(linears))

    @staticmethod
    def works(*linears: nn.Linear) -> bool:
        """torch's kernel reads past its inputs unless their number is a multiple of 16."""
        return linears[0].in_features % 16 == 0

    def times(self, x: Tensor) -> Tensor:
        y = torch._weight_int8pack_mm(x.bfloat16(), self.weight, self.scale).float()
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class Int8Gpu(Dense):
    """Weights rounded to 8 bits for the kernels of a GPU, `rounded` (out, in) times `scale` (out,) FP32; inputs stay as they are.

    The library, which multiplies many rows at once, has no such product. It takes the rounded values in the model's precision: so does all
    that the model itself computes, whose weights become views of them.
    """

    name = "8 bits by our kernels"
    rounded: Tensor
    scale: Tensor

    @staticmethod
    def of(*linears: nn.Linear) -> Int8Gpu:
        dense = Dense.of(*linears)
        weight = dense.weight.detach().t()
        scale = _scales(weight)
        rounded = _rounded(weight, scale)
        weight.copy_(rounded * scale[:, None])
        return Int8Gpu(dense.weight, dense.bias, rounded, scale)


def _scales(weight: Tensor) -> Tensor:
    """For each row of a weight (out, in) the step, FP32, of which the largest value is 127."""
    return weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127


def _rounded(weight: Tensor, scale: Tensor) -> Tensor:
    """A weight (out, in) in steps of its rows' scales, int8."""
    return (weight.float() / scale[:, None]).round_().clamp_(-127, 127).to(torch.int8).contiguous()


Layout = type[Int8] | type[Int8Small] | type[Half] | type[OneDNN] | type[Dense]


class Layouts:
    """Chooses the memory layout of one model's matrices, for passes of up to `rows` rows, and the number of rows a pass is padded to."""

    def __init__(self, weights: Weights, rows: int) -> None:
        self._weights = weights
        larger = (1 << n for n in range(PROVED_ROWS.bit_length(), (rows - 1).bit_length() + 1))
        self._tried = frozenset((*range(1, PROVED_ROWS + 1), *larger))
        self._agreeing: dict[tuple[Layout, int, int], frozenset[int]] = {}
        self._allowed: frozenset[int] | None = None
        self._chosen: dict[tuple[str, int, int], tuple[Matrix, int]] = {}

    def lay_out(self, *linears: nn.Linear) -> Matrix:
        """Pack the linear layers into one matrix: on a CPU in the fastest layout that gives a row the same result in any batch."""
        inputs, outputs = linears[0].in_features, sum(linear.out_features for linear in linears)
        if not _fp32_on_cpu(*linears):
            kind = Int8Gpu if self._weights == "int8" else Dense
            return self._noted(kind.of(*linears), inputs, outputs)
        for layout in _layouts(self._weights, *linears):
            key = layout, inputs, outputs
            if not self._agreeing.get(key, True):
                continue
            matrix = layout.of(*linears)
            if key not in self._agreeing:
                self._agreeing[key] = agreeing_rows(matrix, inputs, self._tried)
            if self._agreeing[key]:
                self._allowed = (self._allowed or self._tried) & self._agreeing[key]
                return self._noted(matrix, inputs, outputs)
        return self._noted(RowByRow(Dense.of(*linears)), inputs, outputs)

    def rows_of(self, weight: Tensor) -> Matrix:
        """A matrix of `weight` (out, in), whose products are FP32."""
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight.float(), requires_grad=False)
        return self.lay_out(linear)

    def padded(self, rows: int) -> int:
        """The number of rows to pad `rows` to, so that each row gets the same result as in a batch of any other size."""
        if self._allowed is None or rows in self._allowed:
            return rows
        return min(size for size in self._allowed if size > rows)

    def names(self) -> dict[str, int]:
        """The number of matrices in each layout."""
        names: Counter[str] = Counter()
        for (name, _, _), (_, count) in self._chosen.items():
            names[name] += count
        return dict(names)

    def cost(self, rows: int) -> float:
        """The cost of padding `rows` rows: the time of the products with padding, divided by their time without."""
        return self._seconds(self.padded(rows)) / self._seconds(rows)

    def _noted(self, matrix: Matrix, inputs: int, outputs: int) -> Matrix:
        key = matrix.name, inputs, outputs
        self._chosen[key] = matrix, self._chosen.get(key, (matrix, 0))[1] + 1
        return matrix

    def _seconds(self, rows: int) -> float:
        total = 0.0
        for (_, inputs, _), (matrix, count) in self._chosen.items():
            x = torch.randn(rows, inputs)
            total += count * min(_timed(matrix, x) for _ in range(10))
        return total


def agreeing_rows(matrix: Matrix, inputs: int, tried: frozenset[int]) -> frozenset[int]:
    """The numbers of rows, among those tried, at which every row has the same bits as at the largest; none if the largest fails itself.

    The test repeats one row: a kernel's order of summation depends on a row's position, not on its values.
    """
    row = torch.randn(1, inputs, generator=torch.Generator().manual_seed(0))
    products = {n: matrix.times(row.expand(n, -1).contiguous()) for n in tried}
    expected = products[max(tried)][:1]
    agreeing = frozenset(n for n, product in products.items() if torch.equal(product, expected.expand_as(product)))
    return agreeing if max(tried) in agreeing else frozenset()


def _layouts(weights: Weights, *linears: nn.Linear) -> list[Layout]:
    """The layouts to try for the linear layers, the fastest first. A call to oneDNN takes 30 µs longer than a call to the others."""
    eight_bit: list[Layout] = [layout for layout in (Int8, Int8Small) if weights == "int8" and layout.works(*linears)]
    half: list[Layout] = [Half] if Half.works(*linears) else []
    packed: list[Layout] = [OneDNN] if OneDNN.works(*linears) else []
    return [*eight_bit, *half, *packed, Dense] if large(*linears) else [*eight_bit, *half, Dense, *packed]


def _timed(matrix: Matrix, x: Tensor) -> float:
    started = time.perf_counter()
    matrix.times(x)
    return time.perf_counter() - started


def _fbgemm() -> bool:
    return torch.backends.quantized.engine in ("x86", "fbgemm")


def large(*linears: nn.Linear) -> bool:
    """Whether the concatenated linear layers are read from memory rather than from a cache."""
    return sum(linear.weight.nbytes for linear in linears) >= LARGE


def _fp32_on_cpu(*linears: nn.Linear) -> bool:
    return all(linear.weight.device.type == "cpu" and linear.weight.dtype == torch.float32 for linear in linears)


def _bias(linears: tuple[nn.Linear, ...]) -> Tensor | None:
    return None if linears[0].bias is None else torch.cat([linear.bias for linear in linears])
