"""A request gets the same bits alone and among others, in matrices large enough for the layouts of the released shape."""

import numpy as np
import pytest
import torch

from inference import Reference, SpeechEngine, SpeechRequest, Voice
from inference.engine.decode_step import Head, Step
from inference.engine.weight_layouts import Half
from inference.model import checkpoint as checkpoints
from inference.model import random_checkpoint
from inference.model.config import DualARConfig
from inference.model.dual_ar import DualAR
from tests.inference.engine.neighbours import codes_among_others

SHAPE = {
    "dim": 512, "n_layer": 2, "n_head": 8, "n_local_heads": 2, "intermediate_size": 2048, "n_fast_layer": 1, "vocab_size": 1300,
    "codebook_size": 1024, "num_codebooks": 4, "max_seq_len": 512, "rope_base": 1e6, "tie_word_embeddings": False,
}  # fmt: skip
KINDS = {"FP32": ("native", False), "FP16": ("native", True), "int8": ("int8", True)}


def model(exact, **changes):
    torch.manual_seed(0)
    lm = DualAR(DualARConfig.from_dict(SHAPE | changes), semantic_begin=260).requires_grad_(False)
    if exact:
        for weight in lm.parameters():
            weight.data = weight.data.bfloat16().float()
    return lm


@pytest.mark.parametrize(("threads", "changes"), [(1, {}), (3, {}), (2, {"fast_dim": 256})], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_and_logits_have_the_same_bits_alone_and_among_others(kind, changes, threads):
    weights, exact = KINDS[kind]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        lm = model(exact, **changes)
        step, cache = Step(lm, 8, weights), lm.new_cache(8, 512)
        ids = torch.arange(259, 1260)
        head = Head(ids, step.heads.rows_of(lm.output_weight[ids]), 1000, step.heads.rows_of(lm.fast_output.weight[:1000]))
        cache.both.normal_()
        columns = torch.randint(0, 1000, (8, 5))
        columns[:, 0] += 260

        def run(rows, lengths):
            """What rows of the cache get, standing at its beginning: hidden states, all logits and the frame."""
            kept = cache.both.clone()
            cache.both[:, :, : len(rows)] = kept[:, :, rows]
            logits = []
            hidden = step.slow(columns[rows], cache, [lengths[row] for row in rows])
            frame = step.frame(hidden, head, lambda _, scores: logits.append(scores) or scores.argmax(-1))
            cache.both.copy_(kept)
            if step.exact:
                assert torch.equal(step.slow(columns[rows], cache, [lengths[row] for row in rows], rows), hidden), "rows where they are"
                cache.both.copy_(kept)
            return torch.cat((hidden, *logits, frame), dim=1)

        with torch.inference_mode():
            for lengths in ([7] * 8, [1, 250, 3, 17, 501, 64, 65, 8]):
                alone = torch.cat([run([row], lengths) for row in range(8)])
                for rows in ([0, 1], [4, 2, 6], [1, 7, 3, 0, 5], list(range(7)), list(reversed(range(8)))):
                    assert torch.equal(run(rows, lengths), alone[rows]), f"{kind}, rows {rows} at {lengths}"
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("medium")
    changes = {"dim": 384, "n_head": 6, "n_local_heads": 2, "intermediate_size": 1536, "n_layer": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(random_checkpoint.END_GAIN, "tiny", 0.0)  # it speaks on for 64 frames, however a processor rounds
        random_checkpoint.write(directory, "tiny", 0, **changes)
    return checkpoints.load(directory, torch.device("cpu"))


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.drill), 0.8], ids=["greedy", "seeded"])
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_the_same_alone_and_beside_seven_who_join_and_leave(checkpoint, kind, temperature, monkeypatch):
    weights, exact = KINDS[kind]
    voice = Voice((Reference(np.random.default_rng(0).integers(0, 1000, (8, 290)), "Its prompt is computed in three pieces."),))
    if not exact:
        monkeypatch.setattr(Half, "works", lambda *_: False)
    with SpeechEngine(checkpoint, slots=8, weights=weights) as engine:
        request = SpeechRequest("The boat leaves at nine.", voice=voice, seed=5, temperature=temperature, max_new_tokens=64)
        alone = engine.generate_codes(request)
        among = codes_among_others(engine, request, 7)
    assert alone.shape[1] > 40
    assert np.array_equal(alone, among)
