"""What a captured frame computes, run eagerly on a CPU: the same frames as the runner's own way."""

import pytest
import torch

from inference import SpeechRequest
from inference.engine.graphs import Graphs, _powers
from inference.engine.runner import WINDOW, Runner, Sequence
from inference.model.config import Manner
from tests.conftest import golden_tensors

PROMPTS = golden_tensors("lm_tiny/prompts.safetensors")
SAMPLING = [(0.0, 0.7, 1.0), (0.7, 0.7, 1.2), (1.0, 1.0, 1.5), (0.9, 0.3, 1.0)]
NAMES = ("plain", "one_ref", "two_refs", "long_single")


def sequence(i, limit, compat=None):
    temperature, top_p, penalty = SAMPLING[i]
    request = SpeechRequest("x", temperature=temperature, top_p=top_p, repetition_penalty=penalty, compat=compat)
    return Sequence(request.settled(Manner()), PROMPTS[NAMES[i]].long(), limit, seed=i - 2)


def frames(golden, order, graphs):
    """Sequences of different lengths that join and leave, so that rows move and some of a program's rows are empty."""
    runner = Runner(golden, rows=3)
    if graphs:
        runner._graphs = Graphs(runner._step, runner._speakable, runner._cache, 3, WINDOW, capture=False)
    waiting, ended = [sequence(i, 10 + 7 * i, compat) for i, compat in order], []
    while waiting or runner.sequences:
        if waiting and runner.free:
            runner.stage(waiting.pop(0))
            while runner._staged:
                runner.prefill()
        runner.step()
        for s in [s for s in runner.sequences if s.finish]:
            runner.remove(s)
            ended.append(s)
    return {s.seed: torch.stack(s.frames).tolist() for s in ended}


def test_frames_are_the_runners_own(golden):
    order = [(0, None), (1, None), (2, None), (3, None)]
    assert frames(golden, order, graphs=True) == frames(golden, order, graphs=False)


def test_beside_a_reference_run_the_runner_goes_its_own_way_and_back(golden):
    order = [(1, None), (2, "reference"), (3, None)]
    assert frames(golden, order, graphs=True) == frames(golden, order, graphs=False)


def test_nobodys_rows_touch_only_the_first_position_of_free_rows(golden):
    runner = Runner(golden, rows=4)
    runner._graphs = Graphs(runner._step, runner._speakable, runner._cache, 4, WINDOW, capture=False)
    for i in range(3):
        runner.stage(sequence(i, 40))
        while runner._staged:
            runner.prefill()
    runner.step()
    for s in runner.sequences[1:]:
        runner.remove(s)
    for _ in range(3):
        runner._cache.both[:, :, 1:] = torch.nan  # the free rows, and the one where prompts are computed
        runner.step()
        written = ~runner._cache.both[:, :, 1:].isnan().all(-1).all(1)  # (layers, rows, kv heads, positions)
        assert not written[:, -1].any()
        assert not written[..., 1:].any()


def test_whole_numbers_do_for_settings(golden):
    runner = Runner(golden, rows=1)
    request = SpeechRequest("x", temperature=1, top_p=1, repetition_penalty=1).settled(Manner())
    for graphs in (None, Graphs(runner._step, runner._speakable, runner._cache, 1, WINDOW, capture=False)):
        runner._graphs = graphs
        runner.stage(Sequence(request, PROMPTS["plain"].long(), 5, seed=1))
        while runner._staged:
            runner.prefill()
        runner.step()
        runner.remove(runner.sequences[0])


def test_a_row_of_nan_faults_alone(golden):
    runner = Runner(golden, rows=2)
    runner._graphs = Graphs(runner._step, runner._speakable, runner._cache, 2, WINDOW, capture=False)
    for i in (0, 1):
        runner.stage(sequence(i, 20))
        while runner._staged:
            runner.prefill()
    sick, well = runner.sequences
    runner._cache.v[:, sick.row, :, 3] = torch.nan
    runner.step()
    assert sick.finish == "fault"
    assert well.finish is None


@pytest.mark.parametrize(("least", "most", "found"), [(1, 1, [1]), (1, 6, [1, 2, 4, 6]), (256, 8192, [256, 512, 1024, 2048, 4096, 8192])])
def test_programs_are_for_powers_of_two(least, most, found):
    assert _powers(least, most) == found


def test_nothing_is_captured_on_a_cpu(golden):
    assert Runner(golden, rows=1)._graphs is None
