"""The runner with graphs, of which a plain step takes the kernels' place: the same frames as the runner's own way, a step later."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from inference import SpeechRequest
from inference.engine import metrics
from inference.engine.graphs import Graphs, capture_frames, powers
from inference.engine.runner import WINDOW, Runner, Sequence
from inference.model.config import GenerationDefaults
from tests.conftest import golden_tensors
from tests.inference.engine.eager_step import PlainStep, with_graphs

PROMPTS = golden_tensors("lm_tiny/prompts.safetensors")
SAMPLING = [(0.0, 0.7, 1.0), (0.7, 0.7, 1.2), (1.0, 1.0, 1.5), (0.9, 0.3, 1.0)]
NAMES = ("plain", "one_ref", "two_refs", "long_single")


def sequence(i, limit, compat=None):
    temperature, top_p, penalty = SAMPLING[i]
    request = SpeechRequest("x", temperature=temperature, top_p=top_p, repetition_penalty=penalty, compat=compat)
    return Sequence(request.resolved(GenerationDefaults()), PROMPTS[NAMES[i]].long(), limit, seed=i - 2)


def add(runner, *sequences):
    for s in sequences:
        runner.stage(s)
        while runner._staged:
            runner.prefill()
    return sequences


def frames(golden, order, graphs):
    """Sequences of different lengths that join and leave, so that rows move and some of a graph's rows are empty."""
    runner = Runner(golden, slots=3)
    if graphs:
        with_graphs(runner)
    waiting, ended = [sequence(i, 10 + 7 * i, compat) for i, compat in order], []
    while waiting or runner.sequences:
        if waiting and runner.free:
            add(runner, waiting.pop(0))
        runner.step()
        for s in [s for s in runner.sequences if s.finish]:
            runner.remove(s)
            ended.append(s)
    return {s.seed: np.stack(s.frames).tolist() for s in ended}


def test_frames_are_the_runners_own(golden):
    order = [(0, None), (1, None), (2, None), (3, None)]
    assert frames(golden, order, graphs=True) == frames(golden, order, graphs=False)


@pytest.mark.parametrize("order", [[(1, None), (2, "reference"), (3, None)], [(2, None), (1, None), (0, "reference"), (3, None)]], ids=str)
def test_beside_a_reference_run_the_runner_goes_its_own_way_and_back(golden, order):
    assert frames(golden, order, graphs=True) == frames(golden, order, graphs=False)


def test_a_frame_is_looked_at_while_the_next_is_computed(golden):
    runner = with_graphs(Runner(golden, slots=1))
    (s,) = add(runner, sequence(0, 9))
    lengths = []
    for _ in range(4):
        runner.step()
        lengths.append((len(s.frames), s.length))
    prompt = s.prompt.shape[1]
    assert lengths == [(n, prompt + n) for n in range(4)]


def test_whoever_leaves_takes_its_surplus_frame_along(golden):
    """One was on its way when the row was given up, and another row moved into the place."""
    runner = with_graphs(Runner(golden, slots=2))
    gone, stays = add(runner, sequence(1, 40), sequence(2, 40))
    for _ in range(3):
        runner.step()
    runner.remove(gone)
    count = len(gone.frames)
    (new,) = add(runner, sequence(3, 40))
    while not stays.finish:
        runner.step()
    assert len(gone.frames) == count
    alone = frames(golden, [(2, None)], graphs=False)
    assert np.stack(stays.frames)[:24].tolist() == alone[0][:24]
    assert new.slot == 1


def test_nobodys_rows_are_not_touched(golden):
    runner = with_graphs(Runner(golden, slots=4))
    add(runner, *(sequence(i, 40) for i in range(3)))
    runner.step()
    for s in runner.sequences[1:]:
        runner.remove(s)
    for _ in range(3):
        runner._cache.both[:, :, 1:] = torch.nan  # the free rows, and the one where prompts are computed
        runner.step()
        assert runner._cache.both[:, :, 1:].isnan().all()
    assert runner.sequences[0].finish is None


def test_whole_numbers_do_for_settings(golden):
    for runner in (Runner(golden, slots=1), with_graphs(Runner(golden, slots=1))):
        request = SpeechRequest("x", temperature=1, top_p=1, repetition_penalty=1).resolved(GenerationDefaults())
        add(runner, Sequence(request, PROMPTS["plain"].long(), 5, seed=1))
        runner.step()
        runner.step()
        assert runner.sequences[0].frames


def test_a_row_of_nan_faults_alone_and_its_neighbour_does_not_notice(golden):
    runner = with_graphs(Runner(golden, slots=2))
    sick, well = add(runner, sequence(0, 20), sequence(1, 17))
    runner._cache.v[:, sick.slot, :, 3] = torch.nan
    runner.step()
    runner.step()
    assert (sick.finish, well.finish) == ("error", None)
    runner.remove(sick)
    assert not runner._cache.v[:, : runner._staging].isnan().any()
    while not well.finish:
        runner.step()
    assert np.stack(well.frames).tolist() == frames(golden, [(1, None)], graphs=False)[well.seed]


@pytest.mark.parametrize(("most", "found"), [(1, [1]), (6, [1, 2, 4, 6]), (64, [1, 2, 4, 8, 16, 32, 64])])
def test_graphs_are_for_powers_of_two(most, found):
    assert powers(most) == found


def test_nothing_is_captured_on_a_cpu(golden):
    runner = Runner(golden, slots=1)
    assert (runner._graphs, runner.how) == (None, "eager: graphs are for CUDA")


@pytest.mark.parametrize("missing", [True, False], ids=["without Triton", "without a driver"])
def test_where_graphs_cannot_be_had_the_log_says_why_and_frames_run_eagerly(golden, monkeypatch, caplog, missing):
    runner = Runner(golden, slots=1)
    if missing:
        monkeypatch.setitem(sys.modules, "inference.engine.cuda_decode_step", None)

    class OnCuda(SimpleNamespace):
        device = torch.device("cuda")

        def zero_(self):
            self.zeroed = True

    cache = SimpleNamespace(both=OnCuda())
    captured = capture_frames(runner._step, runner._speakable, cache, 1, WINDOW, "persistent")
    assert (captured.graphs, captured.fastest) == (None, False)
    assert cache.both.zeroed
    assert "frames: CUDA graphs are not used, so that frames take several times as long" in caplog.text
    assert captured.how.startswith("eager; graphs failed: ")
    assert "; graphs of separate kernels for the fast layers failed: " in captured.how
    assert "; graphs of kernels that do not overlap failed: " in captured.how
    assert ("ModuleNotFoundError" in captured.how) is missing
    assert metrics.GRAPHS.labels("frames")._value.get() == 0


def test_a_step_that_chooses_wrongly_is_found_out_at_the_start(golden):
    runner = Runner(golden, slots=3)
    graphs = with_graphs(runner)._graphs
    graphs.check(runner._step, runner._speakable)
    assert not runner._cache.both.any()

    class Wrong(PlainStep):
        def frame(self, numbers, sampling, active, cache, frames):
            super().frame(numbers, sampling, active, cache, frames)
            frames[int(active) - 1, 5] = 17

    wrong = Graphs(Wrong(runner._step, runner._speakable), runner._cache, 3, runner._codebooks, WINDOW)
    with pytest.raises(RuntimeError, match=r"graph of 1 rows: an id was chosen that is [\d.]+ standard deviations behind"):
        wrong.check(runner._step, runner._speakable)
