"""What kernels do before their own work, in Triton: wait for the previous kernel, and ask for weights in advance."""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def after_the_last(PDL: tl.constexpr):
    """Let the next kernel start, and wait for the writes of the previous one."""
    if PDL:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def now(v, GPU: tl.constexpr):
    """`v`, which is not waited for before this line: the compiler would bring it to shared memory as soon as it is loaded."""
    if GPU:
        pack: tl.constexpr = 32 // v.dtype.primitive_bitwidth
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [v], dtype=v.dtype, is_pure=False, pack=pack)
    return v


@triton.jit
def ask_for(weight, part, SIZE: tl.constexpr, PARTS: tl.constexpr):
    """Bring one of PARTS parts of the SIZE values at `weight` into the second-level cache, without waiting for it."""
    line_size: tl.constexpr = 1024 // weight.dtype.element_ty.primitive_bitwidth
    lines: tl.constexpr = SIZE // line_size
    each: tl.constexpr = (lines + PARTS - 1) // PARTS
    for first in range(0, each, 128):
        line = tl.minimum(part * each + tl.minimum(first + tl.arange(0, 128), each - 1), lines - 1)
        address = (weight + line * line_size).to(tl.int64)
        tl.inline_asm_elementwise(
            "{ prefetch.global.L2 [$1]; mov.u32 $0, 0; }", "=r,l", [address], dtype=tl.int32, is_pure=False, pack=1
        )  # fmt: skip
