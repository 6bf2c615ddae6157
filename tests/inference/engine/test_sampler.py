import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.engine.sampler import NONE, TOP_RANKS, Controls, gumbel, penalise, rank, sample, seen_ids
from tests.conftest import golden_json, golden_tensors

CASES = golden_json("sampling_cases.json")
TENSORS = golden_tensors("sampling_cases.safetensors")


def controls(temperature=1.0, top_p=1.0, penalty=1.0, rows=1):
    return Controls.of(torch.tensor([(temperature, top_p, penalty)] * rows), penalty != 1)


def probabilities(logits, history, chosen):
    """What `sample` draws from, in the order of the ids."""
    scores, ids = rank(logits, seen_ids(history, logits.shape[1]), chosen)
    return torch.zeros_like(logits).scatter(1, ids, scores.softmax(-1))


def run(case):
    i = case["case"]
    history = TENSORS[f"{i}.previous"].long() if case["has_previous"] else torch.tensor([NONE])
    chosen = controls(case["temperature"], case["top_p"], case["repetition_penalty"])
    return probabilities(TENSORS[f"{i}.logits"][None], history[None], chosen)[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c["case"]))
def test_probabilities_equal_the_reference(case):
    # Where the sum of probabilities all but equals top_p, rounding decides which tail tokens stay: only mass can be compared.
    tolerance = 1e-6 if case["distance_of_top_p_from_nearest_cumsum"] > 1e-5 else 1e-3
    torch.testing.assert_close(run(case), TENSORS[f"{case['case']}.probs"], atol=tolerance, rtol=0)


logits = st.lists(st.integers(-64, 64), min_size=2, max_size=30, unique=True).map(lambda x: torch.tensor(x) / 8)  # equal ones have no order


@given(logits, st.lists(st.integers(0, 1), max_size=4), st.floats(0.1, 1.9))
def test_a_repeated_id_is_penalised_once(x, ids, penalty):
    def penalised(*history):
        return penalise(x[None], seen_ids(torch.tensor([history]), len(x)), torch.tensor([[penalty]]))[0]

    once = penalised(*set(ids), NONE)
    assert torch.equal(penalised(*ids, *ids, NONE), once)
    untouched = [i for i in range(len(x)) if i not in ids]
    assert torch.equal(once[untouched], x[untouched])


@given(logits, st.floats(0, 1), st.floats(0.05, 2))
def test_probabilities_are_a_distribution_with_the_likeliest_in(x, top_p, temperature):
    p = probabilities(x[None], torch.tensor([[NONE]]), controls(temperature, top_p))[0]
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert x[p.argmax()] == x.max()


def noise_of(shape, seed):
    rows = torch.arange(shape[0])
    return gumbel(torch.full_like(rows, seed), rows, torch.tensor([0]), 0, shape[1])[:, 0]


def draw(logits, seen, chosen, noise):
    """`sample` where the first ranks' noise is enough."""
    return sample(logits, seen, chosen, noise, pytest.fail)


@given(logits, st.integers(0, 9))
def test_rows_do_not_touch_each_other(x, seed):
    batch = torch.stack((x, x.flip(0), x * 2))
    noise = noise_of(batch.shape, seed)
    seen = seen_ids(torch.tensor([[0, 1], [NONE, NONE], [1, 1]]), len(x))
    rows = [(0.0, 0.5, 1.2), (0.7, 0.9, 1.0), (1.5, 1.0, 0.8)]
    together = draw(batch, seen, Controls.of(torch.tensor(rows), penalised=True), noise)
    for i in range(3):
        assert together[i] == draw(batch[i : i + 1], seen[i : i + 1], controls(*rows[i]), noise[i : i + 1])[0]


@given(logits, st.integers(0, 9))
def test_temperature_zero_takes_the_likeliest_whatever_the_noise(x, seed):
    unseen = torch.zeros(1, len(x), dtype=torch.bool)
    assert x[draw(x[None], unseen, controls(0.0), noise_of((1, len(x)), seed))[0]] == x.max()


def test_temperature_zero_comes_after_the_penalty():
    x, noise = torch.tensor([[1.0, 3.0, 2.9]]), torch.zeros(1, 3)
    assert draw(x, seen_ids(torch.tensor([[NONE]]), 3), controls(0.0, 1.0, 1.2), noise).item() == 1
    assert draw(x, seen_ids(torch.tensor([[1]]), 3), controls(0.0, 1.0, 1.2), noise).item() == 2


def test_draws_follow_the_probabilities():
    x = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).expand(40_000, 4)
    drawn = draw(x, torch.zeros_like(x, dtype=torch.bool), controls(0.8, rows=40_000), noise_of(x.shape, 0))
    expected = (x[0] / 0.8).softmax(-1)
    torch.testing.assert_close(drawn.bincount(minlength=4) / 40_000, expected, atol=0.01, rtol=0)


def test_a_certain_id_leaves_no_other_in():
    x = torch.full((1, 1000), -40.0)
    x[0, 500:600] = -21.0
    x[0, 7] = 0.0  # so likely that in FP32 the next ones do not add to it
    for top_p in (0.0, 0.7):
        scores, ids = rank(x, None, controls(2.0, top_p))
        assert scores.isfinite().sum() == 1
        assert ids[0, scores.argmax()] == 7


@given(logits, st.integers(0, 9), st.floats(0, 1), st.floats(0, 2))
def test_putting_all_in_order_draws_the_same(x, seed, top_p, temperature):
    noise = noise_of((1, len(x)), seed)
    chosen = controls(temperature, top_p)
    assert torch.equal(draw(x[None], None, chosen, noise), sample(x[None], None, chosen, noise))


def test_draws_of_many_ids_follow_the_probabilities_too():
    count, width = 20_000, 4 * TOP_RANKS
    frames, one = torch.arange(count), torch.tensor([3])
    noise, asked = gumbel(torch.full_like(frames, 7), frames, one, 0, TOP_RANKS)[:, 0], []

    def rest(more):
        asked.append(more)
        return gumbel(torch.full_like(frames, 7), frames, one, TOP_RANKS, more)[:, 0]

    counts = sample(torch.zeros(count, width), None, controls(rows=count), noise, rest).bincount(minlength=width)
    assert asked == [width - TOP_RANKS]
    expected = count / width
    assert ((counts - expected) ** 2 / expected).sum() < width + 5 * (2 * width) ** 0.5  # chi squared


def test_noise_is_that_of_its_seed_frame_and_draw_alone():
    seeds, frames, draws = torch.tensor([1, 2, -(2**62)]), torch.tensor([5, 5, 0]), torch.arange(8)
    noise = gumbel(seeds, frames, draws, 0, 40)
    assert noise.isfinite().all()
    for row in range(3):
        for d in range(8):
            alone = gumbel(seeds[row : row + 1], frames[row : row + 1], draws[d : d + 1], 10, 5)
            assert torch.equal(alone[0, 0], noise[row, d, 10:15])
    assert len(set(noise.flatten().tolist())) == noise.numel()


def test_noise_has_the_distribution_it_should():
    seeds = torch.arange(1000)
    noise = gumbel(seeds, torch.zeros_like(seeds), torch.arange(8), 0, 128)
    uniform = (-(-noise).exp()).exp()
    counts = torch.histc(uniform, 50, 0, 1)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 50 + 5 * 10
    for axis in range(3):  # neighbours in seed, draw and rank know nothing of each other
        a, b = uniform.narrow(axis, 0, noise.shape[axis] - 1).flatten(), uniform.narrow(axis, 1, noise.shape[axis] - 1).flatten()
        assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1]) < 5 / a.numel() ** 0.5
