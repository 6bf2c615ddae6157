import pytest
import torch

from inference.engine.decode_step import Step
from inference.model.alignment import text_attention
from inference.model.config import AlignmentHead, DualARConfig
from inference.model.dual_ar import DualAR, Span

CPU = torch.device("cpu")
BASE = {
    "dim": 32, "n_layer": 2, "n_head": 4, "n_local_heads": 2, "intermediate_size": 48, "n_fast_layer": 2, "vocab_size": 1300,
    "codebook_size": 1024, "num_codebooks": 8, "max_seq_len": 64, "rope_base": 1e6, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_local_heads": 1}, {"n_local_heads": 4}, {"attention_qkv_bias": True}, {"num_codebooks": 4}, {"fast_dim": 16}],
    ids=str,
)
@pytest.mark.parametrize("lengths", [[5], [5, 5], [2, 7, 4]], ids=str)
def test_a_packed_step_equals_the_model(changes, lengths):
    torch.manual_seed(0)
    config = DualARConfig.from_dict(BASE | changes)
    model = DualAR(config, semantic_begin=260).requires_grad_(False)
    batch, codebooks = len(lengths), config.num_codebooks
    past = torch.randint(0, 1000, (batch, 1 + codebooks, 10))
    columns = torch.randint(0, 1000, (batch, 1 + codebooks))
    columns[:, 0] += 260  # tokens under which codes count
    caches = [model.new_cache(batch, 16) for _ in range(2)]
    for cache in caches:
        for row, n in enumerate(lengths):
            model.slow(past[row : row + 1, :, :n], cache, Span.prompt(row, 0, n, CPU))
    expected = model.slow(columns[:, :, None], caches[0], Span.step(lengths, CPU))[:, 0]
    step = Step(model, batch)
    hidden = step.slow(columns, caches[1], lengths)
    torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)
    for a, b in ((caches[0].k, caches[1].k), (caches[0].v, caches[1].v)):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    fast = model.new_fast_cache(batch)
    x = model.fast_project_in(hidden)
    model.fast(x, fast, 0)
    for i in range(1, codebooks):
        code = columns[:, i]
        ours = step.fast_pair(x, code) if i == 1 else step.fast(code, i)
        torch.testing.assert_close(ours, model.fast(model.fast_embeddings(code), fast, i), atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"n_local_heads": 4, "attention_qkv_bias": True}], ids=str)
def test_a_packed_prompt_in_pieces_equals_the_models(changes):
    torch.manual_seed(0)
    config = DualARConfig.from_dict(BASE | changes)
    model = DualAR(config, semantic_begin=260).requires_grad_(False)
    columns = torch.randint(260, 1000, (1, 1 + config.num_codebooks, 12))
    theirs, ours = (model.new_cache(3, 16) for _ in range(2))
    expected = model.slow(columns, theirs, Span.prompt(2, 0, 12, CPU))
    step = Step(model, 1)
    pieces = [step.prompt(columns[:, :, start:end], ours, 2, start) for start, end in ((0, 1), (1, 8), (8, 12))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.both, theirs.both, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changes", [{}, {"n_local_heads": 4, "attention_qkv_bias": True}], ids=str)
def test_packed_attention_to_a_text_equals_the_models_and_writes_nothing(changes):
    torch.manual_seed(0)
    config = DualARConfig.from_dict(BASE | changes)
    model = DualAR(config, semantic_begin=260).requires_grad_(False)
    columns = torch.randint(260, 1000, (1, 1 + config.num_codebooks, 14))
    cache = model.new_cache(2, 16)
    model.slow(columns, cache, Span.prompt(1, 0, 14, CPU))
    kept, heads = cache.both.clone(), [AlignmentHead(1, 3), AlignmentHead(0, 2), AlignmentHead(1, 0)]
    expected = text_attention(model, cache, 1, columns[0, :, 6:14], 6, range(2, 5), heads)
    found = Step(model, 1).text_attention(columns[0, :, 6:14], cache, 1, 6, range(2, 5), heads)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert torch.equal(cache.both, kept)


def test_packing_leaves_the_model_as_it_was(golden):
    before = {name: t.clone() for name, t in golden.lm.state_dict().items()}
    Step(golden.lm, 1)
    assert all(torch.equal(t, before[name]) for name, t in golden.lm.state_dict().items())
