"""What `fishserve bench frames` adds on CUDA, with a plain step in the kernels' place and the kernel of a draw in Triton's interpreter."""

from contextlib import nullcontext

import pytest
import torch

from bench import frames
from bench.record import Record
from bench.tables import tables
from inference.engine.runner import Runner
from inference.engine.vocoder import Passes
from tests.inference.engine.eager_step import PlainStep, with_graphs


@torch.inference_mode()
def proof_of(golden, monkeypatch):
    monkeypatch.setattr(frames, "POSITIONS", 20)
    monkeypatch.setattr(frames, "COMPARED", 8)
    monkeypatch.setattr(frames, "_draws", lambda *_: 1.0)
    return frames._proof(golden, with_graphs(Runner(golden, slots=2)), 2)


def test_graphs_that_are_right_are_equal_in_every_way(golden, monkeypatch):
    proof = proof_of(golden, monkeypatch)
    assert proof.pop("behind") < 1e-3
    assert set(proof.values()) == {1.0}


def test_graphs_that_are_a_little_wrong_are_not(golden, monkeypatch):
    """They may pass the check at the start, if what they are wrong about does not show in two frames."""
    step = PlainStep.frame

    def forgetful(self, numbers, *rest):
        step(self, numbers, *rest)
        numbers[:, 9] -= 1  # the cache never grows: each frame overwrites the last

    monkeypatch.setattr(PlainStep, "frame", forgetful)
    monkeypatch.setattr("inference.engine.graphs.FAR", 100)
    proof = proof_of(golden, monkeypatch)
    assert proof["behind"] > 0.1
    assert proof["as_eager"] < 1


def test_draws_by_the_kernel_are_the_samplers():
    pytest.importorskip("triton", reason="Triton is for Linux alone")
    assert frames._draws(torch.device("cpu"), rows=4, ids=60) == 1


@torch.inference_mode()
def test_the_codecs_passes_stand_in_the_table(golden, tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "timed", lambda work, *_, **__: (work(), [0.1])[1])
    record = Record(tmp_path / "frames.json", "frames", {}, {})
    frames._decode(golden, Passes(golden.codec), 2, 4, record, lambda *_: nullcontext())
    (table,) = tables(record.body)
    assert table.rows[0][:3] == ["decode, chunks of 4, 2 streams", "1", "80"]
