import numpy as np
import pytest
import torch

from inference import SpeechRequest
from inference.engine.runner import Runner, Sequence
from inference.model.config import GenerationDefaults
from inference.model.dual_ar import DualAR
from tests.conftest import golden_json, golden_tensors

PROMPTS = golden_tensors("lm_tiny/prompts.safetensors")
RUNS = golden_json("lm_tiny/greedy.json")


def sequence(name, penalty=1.2, limit=48, compat="reference", **fields):
    request = SpeechRequest("x", temperature=0, repetition_penalty=penalty, compat=compat, **fields)
    return Sequence(request.resolved(GenerationDefaults()), PROMPTS[name].long(), limit, seed=0)


def add(runner, s):
    runner.stage(s)
    while s.slot < 0:
        runner.prefill()


def finish(runner):
    while any(s.finish is None for s in runner.sequences):
        runner.step()
        for s in [s for s in runner.sequences if s.finish]:
            runner.remove(s)


def columns(s):
    return np.stack(s.frames, axis=1).tolist()


@pytest.mark.parametrize("run", RUNS, ids=lambda r: f"{r['prompt']}-{r['repetition_penalty']}")
def test_greedy_columns_equal_the_reference(golden, run):
    runner = Runner(golden, slots=1)
    s = sequence(run["prompt"], run["repetition_penalty"], run["max_new_tokens"])
    add(runner, s)
    finish(runner)
    assert columns(s) == run["columns"]
    assert (s.finish == "stop") == run["stopped_by_im_end"]


def test_greedy_columns_are_the_same_at_any_batch_composition(golden):
    """All golden runs at once, joining at different frames, leaving when they end, rows moving as they do."""
    runner = Runner(golden, slots=4)
    waiting = [(sequence(r["prompt"], r["repetition_penalty"], r["max_new_tokens"]), r) for r in RUNS]
    started, steps = [], 0
    while waiting or runner.sequences:
        if waiting and runner.free and steps % 3 == 0:
            started.append(waiting.pop(0))
            add(runner, started[-1][0])
        runner.step()
        steps += 1
        for s in [s for s in runner.sequences if s.finish]:
            runner.remove(s)
    assert len(started) == len(RUNS)
    for s, run in started:
        assert columns(s) == run["columns"]


def test_a_reference_run_beside_a_normal_one_changes_neither(golden):
    alone = {}
    for compat in ("reference", None):
        runner = Runner(golden, slots=1)
        alone[compat] = sequence("one_ref", compat=compat)
        add(runner, alone[compat])
        finish(runner)
    runner = Runner(golden, slots=2)
    both = [sequence("one_ref", compat=c) for c in ("reference", None)]
    for s in both:
        add(runner, s)
    finish(runner)
    assert columns(both[0]) == columns(alone["reference"])
    assert columns(both[1]) == columns(alone[None])


def test_only_what_the_codec_can_decode_is_sampled(golden):
    runner = Runner(golden, slots=1)
    s = sequence("plain", limit=60, compat=None)
    s.request = SpeechRequest("x", temperature=2, top_p=1).resolved(GenerationDefaults())
    add(runner, s)
    finish(runner)
    frames = torch.from_numpy(np.stack(s.frames))
    assert frames[:, 1:].max() < 1000
    spoken = frames[frames[:, 0] != golden.tokenizer.im_end]
    assert torch.equal(spoken[:, 0] - golden.tokenizer.semantic_begin, spoken[:, 1])


def test_the_end_token_never_comes_first(golden, monkeypatch):
    head = golden.lm.output_weight.clone()
    head[golden.tokenizer.im_end] *= 50  # loud enough to win whenever its sign is right
    monkeypatch.setattr(DualAR, "output_weight", head)
    for name in ("plain", "one_ref", "two_refs", "long_single"):
        runner = Runner(golden, slots=1)
        s = sequence(name, compat=None)
        add(runner, s)
        assert s.frames[0][0] != golden.tokenizer.im_end
        assert s.finish is None


def test_a_row_of_nan_faults_alone_and_leaves_nothing_behind(golden):
    expected = sequence("plain", limit=20)
    runner = Runner(golden, slots=1)
    add(runner, expected)
    finish(runner)
    runner = Runner(golden, slots=2)
    sick, well = sequence("one_ref", limit=20), sequence("plain", limit=20)
    add(runner, sick)
    add(runner, well)
    runner._cache.v[:, sick.slot, :, 3] = torch.nan
    runner.step()
    assert sick.finish == "error"
    assert well.finish is None
    runner.remove(sick)
    finish(runner)
    assert columns(well) == columns(expected)
    again = sequence("plain", limit=20)
    add(runner, again)
    finish(runner)
    assert columns(again) == columns(expected)
    assert not runner._cache.v.isnan().any()


@pytest.mark.parametrize("position", [1, 3, 7])
def test_what_is_no_number_at_any_codebook_is_a_fault(golden, monkeypatch, position):
    """The last fast layer's output enters no cache: what is wrong with it must be seen where it is."""
    runner, s = Runner(golden, 1), sequence("plain", compat=None)
    add(runner, s)
    name = "fast_pair" if position == 1 else "fast"
    spoilt = getattr(runner._step, name)
    monkeypatch.setattr(runner._step, name, lambda *a: spoilt(*a) * (torch.inf if name == "fast_pair" or a[-1] == position else 1))
    runner.step()
    assert s.finish == "error"
