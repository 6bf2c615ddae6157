import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.sampler import NONE, Controls, penalise, probabilities, sample
from tests.conftest import golden_json, golden_tensors

CASES = golden_json("sampling_cases.json")
TENSORS = golden_tensors("sampling_cases.safetensors")


def controls(temperature=1.0, top_p=1.0, penalty=1.0, rows=1):
    return Controls(*(torch.full((rows,), v) for v in (temperature, top_p, penalty)))


def run(case):
    i = case["case"]
    history = TENSORS[f"{i}.previous"].long() if case["has_previous"] else torch.tensor([NONE])
    return probabilities(
        TENSORS[f"{i}.logits"][None], history[None], controls(case["temperature"], case["top_p"], case["repetition_penalty"])
    )[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["case"]))
def test_probabilities_equal_the_reference(case):
    # Where the sum of probabilities all but equals top_p, rounding decides which tail tokens stay: only mass can be compared.
    tolerance = 1e-6 if case["distance_of_top_p_from_nearest_cumsum"] > 1e-5 else 1e-3
    torch.testing.assert_close(run(case), TENSORS[f"{case['case']}.probs"], atol=tolerance, rtol=0)


logits = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=30).map(torch.tensor)


@given(logits, st.lists(st.integers(0, 1), max_size=4), st.floats(0.1, 1.9))
def test_a_repeated_id_is_penalised_once(x, seen, penalty):
    history = torch.tensor([[*seen, *seen, NONE]])
    once = penalise(x[None], torch.tensor([[*set(seen), NONE]]), torch.tensor([penalty]))
    assert torch.equal(penalise(x[None], history, torch.tensor([penalty])), once)
    untouched = [i for i in range(len(x)) if i not in seen]
    assert torch.equal(once[0, untouched], x[untouched])


@given(logits, st.floats(0, 1), st.floats(0.05, 2))
def test_probabilities_are_a_distribution_with_the_likeliest_in(x, top_p, temperature):
    p = probabilities(x[None], torch.tensor([[NONE]]), controls(temperature, top_p))[0]
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p[x.argmax()] == p.max()


@given(logits, st.integers(0, 9))
def test_rows_do_not_touch_each_other(x, seed):
    batch = torch.stack((x, x.flip(0), x * 2))
    noise = torch.empty(batch.shape).exponential_(generator=torch.Generator().manual_seed(seed))
    history = torch.tensor([[0, 1], [NONE, NONE], [1, 1]])
    mixed = Controls(torch.tensor([0.0, 0.7, 1.5]), torch.tensor([0.5, 0.9, 1.0]), torch.tensor([1.2, 1.0, 0.8]))
    together = sample(batch, history, mixed, noise)
    for i in range(3):
        alone = sample(batch[i : i + 1], history[i : i + 1], mixed.rows([i]), noise[i : i + 1])
        assert together[i] == alone[0]


def test_temperature_zero_takes_the_likeliest_after_the_penalty():
    x = torch.tensor([[1.0, 3.0, 2.9]])
    noise = torch.tensor([[1e-9, 1.0, 1.0]])
    assert sample(x, torch.tensor([[NONE]]), controls(0.0, 1.0, 1.2), noise).item() == 1
    assert sample(x, torch.tensor([[1]]), controls(0.0, 1.0, 1.2), noise).item() == 2


def test_draws_follow_the_probabilities():
    x = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(40_000, 4)
    noise = torch.empty(x.shape).exponential_(generator=torch.Generator().manual_seed(0))
    drawn = sample(x, torch.full((40_000, 1), NONE), controls(0.8, 1.0, 1.0, rows=40_000), noise)
    expected = (x[0] / 0.8).softmax(-1)
    torch.testing.assert_close(drawn.bincount(minlength=4) / 40_000, expected, atol=0.01, rtol=0)
