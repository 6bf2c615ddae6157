from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.roofline import Work, codec_work, frame
from inference.engine.decode_step import Step
from inference.engine.weight_layouts import Half, OneDNN
from inference.model.config import DualARConfig
from inference.model.random_checkpoint import SHAPES

FULL = DualARConfig.from_dict({"codebook_size": 1024, "num_codebooks": 8} | SHAPES["full"][1])


def test_a_frame_of_the_released_shape_needs_what_was_counted_by_hand():
    """358.7 M weights in the slow layers, 59.8 M in the fast ones, 6144 values a position (measured on the released shape)."""
    work = frame(FULL, 1, 0, 2)
    assert work["slow layers"].bytes == pytest.approx(2 * 358.7e6, rel=0.01)
    assert work["fast layers"].bytes == pytest.approx(7 * (2 * 59.8e6 + 4 * 1000 * 1024), rel=0.01)
    assert frame(FULL, 1, 1000, 2)["slow layers"].bytes - work["slow layers"].bytes == 1000 * 6144 * 2
    assert sum(w.flops for w in work.values()) == pytest.approx(1.7e9, rel=0.05)


def test_weights_are_read_once_for_all_rows_and_eight_bits_are_a_byte():
    one, eight = frame(FULL, 1, 0, 4), frame(FULL, 8, 0, 4)
    assert eight["fast layers"].bytes == one["fast layers"].bytes
    assert all(eight[stage].flops == 8 * one[stage].flops for stage in one)
    assert frame(FULL, 1, 0, 4, 1)["slow layers"].bytes == pytest.approx(one["slow layers"].bytes / 4, rel=0.001)


@torch.inference_mode()
def test_operations_are_those_that_torch_counts(golden, monkeypatch):
    for packed in (Half, OneDNN):  # whose products the counter does not know
        monkeypatch.setattr(packed, "works", lambda *_: False)
    c, past, step = golden.config, 9, Step(golden.lm, 16)
    rows = step.layouts.padded(3)
    cache = golden.lm.new_cache(rows, past + 1)
    columns = torch.zeros(rows, 1 + c.num_codebooks, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        step.slow(columns, cache, [past] * rows)
    # Attention is left out: on a CPU the counter does not know its kernel.
    assert counter.get_total_flops() == pytest.approx(frame(c, rows, -1, 4)["slow layers"].flops, rel=0.02)


@torch.inference_mode()
def test_the_codecs_operations_grow_with_its_frames(golden):
    codes = torch.zeros(1, golden.config.num_codebooks, 32, dtype=torch.int64)
    works = [codec_work(golden, partial(golden.codec.decode, codes[:, :, :n]), n, decoder=True) for n in (16, 32)]
    assert works[1].flops / works[0].flops == pytest.approx(2, rel=0.1)
    weights = sum(p.nbytes for p in golden.codec.head.parameters())
    assert works[0].bytes > weights


def test_the_scarcer_of_bandwidth_and_arithmetic_sets_the_limit():
    assert Work(100, 10).seconds(10, 10) == 10
    assert Work(10, 100).seconds(10, 10) == 10
