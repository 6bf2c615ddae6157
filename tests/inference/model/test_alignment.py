import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils.flop_counter import FlopCounterMode

from inference.model.alignment import TextPath, character_bounds, gain_of_going_back, monotonic_path, text_attention, token_starts
from inference.model.config import AlignmentHead
from inference.model.dual_ar import Span, apply_rope
from inference.model.prompt import PromptBuilder
from tests.conftest import golden_tensors

COLUMNS = torch.cat(
    (golden_tensors("lm_tiny/steps.safetensors")["prompt"], golden_tensors("lm_tiny/steps.safetensors")["columns"]), 1
).long()
PROMPT = golden_tensors("lm_tiny/steps.safetensors")["prompt"].shape[1]
CPU = torch.device("cpu")


def filled_cache(model, columns, row=0):
    cache = model.new_cache(row + 1, columns.shape[1] + 8)
    model.slow(columns[None], cache, Span.prompt(row, 0, columns.shape[1], CPU))
    return cache


def plain_attention(model, columns):
    """The weights of every layer and head between all columns, by the formula: (layers, heads, time, time)."""
    x, found, time = model.embed(columns[None]), [], columns.shape[1]
    for number, layer in enumerate(model.layers):
        a = layer.attention
        qkv = a.wqkv(layer.attention_norm(x)).view(time, a.n_head + 2 * a.n_kv, a.head_dim)
        q, k, _ = qkv.split((a.n_head, a.n_kv, a.n_kv), dim=1)
        q, k = apply_rope(q[None], model.rope[:time])[0], apply_rope(k[None], model.rope[:time])[0]
        weights = [
            (q[:, h] @ k[:, h // (a.n_head // a.n_kv)].T / math.sqrt(a.head_dim) + torch.full((time, time), -torch.inf).triu(1)).softmax(-1)
            for h in range(a.n_head)
        ]
        found.append(torch.stack(weights))
        x = layer(x, model.rope[:time], number, None, None)
    return torch.stack(found)


def test_the_attention_is_that_of_a_plain_computation(golden):
    model = golden.lm
    expected = plain_attention(model, COLUMNS)
    heads = [AlignmentHead(layer, head) for layer, head in itertools.product(range(model.config.n_layer), range(model.config.n_head))]
    text, before = range(3, PROMPT - 4), COLUMNS[:, PROMPT - 1 : -1]
    found = text_attention(model, filled_cache(model, COLUMNS, row=1), 1, before, PROMPT - 1, text, heads)
    rows = expected[:, :, PROMPT - 1 : -1, text.start : text.stop].flatten(0, 1)
    torch.testing.assert_close(found, rows, atol=1e-5, rtol=0)


def test_frames_in_two_parts_give_what_they_give_together_and_the_cache_stays_as_it_was(golden):
    cache = filled_cache(golden.lm, COLUMNS)
    kept, heads = cache.both.clone(), [AlignmentHead(1, 2)]

    def attention(first, last):
        return text_attention(golden.lm, cache, 0, COLUMNS[:, first:last], first, range(4, 12), heads)

    parts = torch.cat((attention(PROMPT - 1, PROMPT + 2), attention(PROMPT + 2, PROMPT + 7)), dim=1)
    torch.testing.assert_close(parts, attention(PROMPT - 1, PROMPT + 7), atol=1e-6, rtol=0)
    assert torch.equal(cache.both, kept)


def test_the_pass_costs_in_proportion_to_frames_and_ends_at_the_last_head_s_layer(golden):
    columns = torch.cat((COLUMNS, COLUMNS[:, PROMPT : PROMPT + 6].repeat(1, 30)), dim=1)
    cache = filled_cache(golden.lm, columns)

    def cost(frames, layer):
        with FlopCounterMode(display=False) as counter:
            text_attention(golden.lm, cache, 0, columns[:, PROMPT : PROMPT + frames], PROMPT, range(4, 12), [AlignmentHead(layer, 0)])
        return counter.get_total_flops()

    assert cost(80, 1) < 2.5 * cost(40, 1)
    assert cost(40, 0) < 0.5 * cost(40, 1)


@given(arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-9, 0)))
def test_no_monotonic_path_is_better(scores):
    frames, tokens = scores.shape
    path = monotonic_path(scores)
    assert path[0] == 0
    assert (np.diff(path) >= 0).all()
    every = itertools.combinations_with_replacement(range(tokens), frames)
    best = max(scores[np.arange(frames), p].sum() for p in every if p[0] == 0)
    assert scores[np.arange(frames), path].sum() == pytest.approx(best)


def path_scores(scores, backs, letters):
    """The scores of all paths that begin at the first token and go back so often, each time by two letters or more."""
    frames, tokens = scores.shape
    for path in itertools.product([0], *[range(tokens)] * (frames - 1)):
        turns = [letters[a] - letters[b] for a, b in itertools.pairwise(path) if b < a]
        if len(turns) == backs and all(turn >= 2 for turn in turns):
            yield sum(scores[frame, token] for frame, token in enumerate(path))


@given(st.integers(0, 10_000), st.sampled_from([(2, 3), (4, 4), (5, 3), (3, 1), (1, 3)]))
def test_what_going_back_gains_is_what_the_best_of_all_paths_gains(seed, shape):
    random = np.random.default_rng(seed)
    scores, letters = random.normal(size=shape), np.sort(random.integers(0, 4, shape[1]))
    best = max(path_scores(scores, 1, letters), default=-math.inf)
    assert gain_of_going_back(scores, letters, 2) == pytest.approx(best - max(path_scores(scores, 0, letters)))


def test_many_paths_at_once_are_the_same_as_one_by_one():
    scores = np.log(np.random.default_rng(0).random((3, 2, 30, 9)))
    together = monotonic_path(scores)
    assert all((together[i, j] == monotonic_path(scores[i, j])).all() for i in range(3) for j in range(2))


@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 20)), elements=st.floats(0, 1, width=32)))
def test_starts_ascend_cover_every_token_and_stay_within_the_frames(attention):
    starts = token_starts(attention)
    assert starts.shape == (attention.shape[2],)
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    assert starts[-1] <= attention.shape[1]


@given(
    arrays(np.float32, st.tuples(st.just(1), st.integers(1, 60), st.integers(1, 12)), elements=st.sampled_from([0.0, 0.0, 0.1, 1.0])),
    st.lists(st.integers(1, 20), max_size=8),
)  # fmt: skip
def test_starts_are_the_same_however_many_frames_come_at_a_time(attention, sizes):
    path, at, known = TextPath(attention.shape[2]), 0, []
    for size in [*sizes, attention.shape[1]]:
        path.add(attention[:, at : at + size])
        at = min(at + size, attention.shape[1])
        known.append(path.starts(ended=False))
    whole = token_starts(attention)
    assert (path.starts(ended=True) == whole).all()
    assert all((starts == whole[: len(starts)]).all() for starts in known)


def test_starts_are_known_a_few_frames_later():
    attention = np.eye(9)[np.repeat(np.arange(9), 6)][None]
    path = TextPath(9)
    path.add(attention[:, :30])
    assert len(path.starts(ended=False)) == 5
    assert path.starts(ended=False) == pytest.approx(token_starts(attention)[:5])


def test_a_clear_attention_gives_its_own_times():
    spoken = np.repeat(np.arange(6), [5, 1, 7, 3, 10, 4])  # the token of each frame
    attention = np.eye(6, dtype=np.float32)[spoken][None]
    assert token_starts(attention) == pytest.approx([0, 5, 6, 13, 16, 26], abs=0.51)


def test_a_frame_shared_by_two_tokens_is_divided():
    early, late = (np.array([[[1, 0]] * 4 + [[share, 1 - share]] + [[0, 1]] * 4]) for share in (0.2, 0.8))
    assert token_starts(early)[1] < token_starts(late)[1]
    assert 4 <= token_starts(early)[1] <= 5.5


def test_one_frame_astray_does_not_bend_the_path():
    attention = np.eye(8)[np.repeat(np.arange(8), 4)][None]
    attention[0, 9] = np.eye(8)[7]
    assert token_starts(attention)[5] == pytest.approx(20, abs=0.51)


def test_letters_share_their_token_and_a_space_before_them_takes_no_time():
    bounds = character_bounds("ab cd é", [b"ab", b" cd", b" ", b"\xc3", b"\xa9"], np.array([0, 4, 8, 10, 11, 12.0]))
    assert bounds == pytest.approx([0, 2, 4, 4, 6, 8, 10, 12])


@given(st.text())
def test_any_text_has_bounds_for_each_character(golden, text):
    ids = golden.tokenizer.encode(text)
    bounds = character_bounds(text, golden.tokenizer.pieces(ids), np.arange(len(ids) + 1.0))
    assert bounds.shape == (len(text) + 1,)
    assert bounds[-1] == len(ids)
    assert (np.diff(bounds) >= 0).all()


@pytest.mark.parametrize("text", ["Hello, world.", "", "第二", "<|im_end|>"])
def test_a_prompt_knows_where_its_text_is(golden, text):
    builder = PromptBuilder(golden.tokenizer, 8)
    segment = builder.segment(text)
    columns = builder.text_of(segment)
    assert golden.tokenizer.decode(segment[0, columns.start : columns.stop].tolist()) == text
    assert segment[0, columns.stop] == golden.tokenizer.im_end
