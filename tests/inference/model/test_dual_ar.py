import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.model.config import DualARConfig
from inference.model.dual_ar import DualAR, Span
from tests.conftest import golden_tensors

PROMPTS = golden_tensors("lm_tiny/prompts.safetensors")
PREFILL = golden_tensors("lm_tiny/prefill.safetensors")
STEPS = golden_tensors("lm_tiny/steps.safetensors")
CPU = torch.device("cpu")
# Two correct FP32 implementations differ by rounding alone; independent ones were seen 5e-5 apart.
TOLERANCE = {"atol": 1e-4, "rtol": 0}


def prefill(model, prompt, chunk=10_000):
    cache = model.new_cache(1, prompt.shape[1] + 64)
    hidden = [
        model.slow(prompt[None, :, i : i + chunk], cache, Span.prompt(0, i, prompt[:, i : i + chunk].shape[1], CPU))
        for i in range(0, prompt.shape[1], chunk)
    ]
    return torch.cat(hidden, dim=1)[0], cache


@pytest.mark.parametrize("name", ["plain_no_system", "plain", "one_ref", "two_refs", "long_single"])
def test_prefill_equals_the_reference(golden, name):
    hidden, _ = prefill(golden.lm, PROMPTS[name].long())
    torch.testing.assert_close(golden.lm.token_logits(hidden[-1]), PREFILL[f"{name}.logits"], **TOLERANCE)
    torch.testing.assert_close(golden.lm.fast_project_in(hidden[-1]), PREFILL[f"{name}.hidden"], **TOLERANCE)


def test_every_position_equals_the_reference(golden):
    hidden, _ = prefill(golden.lm, PROMPTS["plain_no_system"].long())
    torch.testing.assert_close(hidden, PREFILL["plain_no_system.all_hidden"], **TOLERANCE)
    torch.testing.assert_close(golden.lm.token_logits(hidden), PREFILL["plain_no_system.all_logits"], **TOLERANCE)
    hidden, _ = prefill(golden.lm, PROMPTS["one_ref"].long())
    torch.testing.assert_close(hidden, PREFILL["one_ref.all_hidden"], **TOLERANCE)


def test_every_step_of_a_run_equals_the_reference(golden):
    model, prompt, columns = golden.lm, STEPS["prompt"].long(), STEPS["columns"].long()
    hidden, cache = prefill(model, prompt)
    hidden, fast_cache = hidden[-1:], model.new_fast_cache(1)
    for i in range(columns.shape[1]):
        torch.testing.assert_close(hidden[0], STEPS["slow_hidden"][i], **TOLERANCE)
        torch.testing.assert_close(model.token_logits(hidden[0]), STEPS["slow_logits"][i], **TOLERANCE)
        x = model.fast(model.fast_project_in(hidden), fast_cache, 0)
        for k in range(8):
            torch.testing.assert_close(model.code_logits(x)[0], STEPS["fast_logits"][i, k], **TOLERANCE)
            x = model.fast(model.fast_embeddings(columns[k + 1, i : i + 1]), fast_cache, k + 1) if k < 7 else x
        hidden = model.slow(columns[None, :, i : i + 1], cache, Span.step([prompt.shape[1] + i], CPU))[0]


@given(st.integers(1, 120))
def test_prefill_in_chunks_equals_prefill_at_once(golden, chunk):
    prompt = PROMPTS["one_ref"].long()
    torch.testing.assert_close(prefill(golden.lm, prompt, chunk)[0], prefill(golden.lm, prompt)[0], **TOLERANCE)


def shape(**changes):
    base = {
        "dim": 32, "n_layer": 2, "n_head": 4, "n_local_heads": 2, "intermediate_size": 48, "n_fast_layer": 2, "vocab_size": 1300,
        "codebook_size": 1024, "num_codebooks": 8, "max_seq_len": 64, "rope_base": 1e6, "tie_word_embeddings": False,
    }  # fmt: skip
    return DualARConfig.from_dict(base | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"n_local_heads": 1}, {"n_local_heads": 4}, {"n_local_heads": -1}, {"attention_qkv_bias": True}, {"tie_word_embeddings": True},
        {"num_codebooks": 4}, {"num_codebooks": 6}, {"fast_dim": 16}, {"fast_dim": 48, "fast_n_head": 2, "fast_n_local_heads": 1},
        {"fast_intermediate_size": 24, "n_fast_layer": 1}, {"share_codebook_embeddings": False}, {"codebook_size": 1000},
    ],
    ids=str,
)  # fmt: skip
def test_cached_steps_equal_the_whole_sequence_for_any_shape(changes):
    """One column at a time through the caches gives the logits of the teacher-forced pass."""
    torch.manual_seed(0)
    config = shape(**changes)
    model = DualAR(config, semantic_begin=260).requires_grad_(False)
    columns = torch.randint(0, config.codebook_size, (2, 1 + config.num_codebooks, 12))
    columns[:, 0] = torch.randint(0, 1300, (2, 12))
    tokens, codes = model(columns[:, :, :-1], columns[:, 1:, 1:])
    cache, fast_cache = model.new_cache(2, 16), model.new_fast_cache(2)
    for t in range(11):
        hidden = model.slow(columns[:, :, t : t + 1], cache, Span.step([t, t], CPU))[:, 0]
        torch.testing.assert_close(model.token_logits(hidden), tokens[:, t], atol=1e-5, rtol=0)
        x = model.fast(model.fast_project_in(hidden), fast_cache, 0)
        for k in range(config.num_codebooks):
            torch.testing.assert_close(model.code_logits(x), codes[:, t, k], atol=1e-5, rtol=0)
            if k + 1 < config.num_codebooks:
                x = model.fast(model.fast_embeddings(columns[:, 1 + k, t + 1]), fast_cache, k + 1)


def test_rows_of_different_lengths_do_not_see_each_other(golden):
    model, a, b = golden.lm, PROMPTS["plain"].long(), PROMPTS["one_ref"].long()
    together = model.new_cache(2, 200)
    for row, prompt in enumerate((a, b)):
        model.slow(prompt[None], together, Span.prompt(row, 0, prompt.shape[1], CPU))
    step = torch.stack((a[:, -1:], b[:, -1:]))
    both = model.slow(step, together, Span.step([a.shape[1], b.shape[1]], CPU))
    for row, prompt in enumerate((a, b)):
        _, alone = prefill(model, prompt)
        hidden = model.slow(step[row : row + 1], alone, Span.step([prompt.shape[1]], CPU))
        torch.testing.assert_close(both[row], hidden[0], atol=1e-5, rtol=0)
