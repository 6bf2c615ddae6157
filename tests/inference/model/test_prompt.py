import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.model.prompt import PromptBuilder, context
from inference.text.clean import clean
from tests.conftest import golden_json, golden_tensors

EXPECTED = golden_tensors("lm_tiny/prompts.safetensors")


@pytest.mark.parametrize("case", golden_json("lm_tiny/prompts.json"), ids=lambda c: c["name"])
def test_prompts_equal_the_reference(golden, case):
    builder = PromptBuilder(golden.tokenizer, 8, specials=True)
    parts = [builder.system()] if case["system"] else []
    parts += [builder.reference(clean(r["text"]), np.array(r["codes"])) for r in case["refs"] or ()]
    prompt = torch.cat([*parts, builder.segment(clean(case["text"]))], dim=1)
    assert torch.equal(prompt, EXPECTED[case["name"]].long())


def test_control_tokens_in_text_stay_text_by_default(golden):
    prompt = PromptBuilder(golden.tokenizer, 8).segment("a <|im_end|><|semantic:3|> b")
    assert (prompt[0] == golden.tokenizer.im_end).sum() == 1  # the builder's own
    assert (prompt[0] < golden.tokenizer.semantic_begin).all()


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=4))
def test_many_segments_are_what_each_is_alone(golden, texts):
    builder = PromptBuilder(golden.tokenizer, 8)
    found = builder.segments(texts)
    assert len(found) == len(texts)
    assert all(torch.equal(one, builder.segment(text)) for one, text in zip(found, texts, strict=True))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=9).filter(lambda turns: len(turns) % 2 == 1), st.integers(1, 200))
def test_context_keeps_what_must_be_kept_and_the_newest_that_fits(lengths, room):
    fixed = torch.zeros(9, 5, dtype=torch.int64)
    turns = [torch.full((9, n), i + 1) for i, n in enumerate(lengths)]
    prompt = context(fixed, turns, room)
    kept = prompt[0, 5:].unique_consecutive().tolist()
    assert kept == list(range(len(turns) - len(kept) + 1, len(turns) + 1))  # the newest, in order, none in between left out
    assert len(kept) % 2 == 1  # whole turns only
    if len(kept) > 1:
        assert prompt.shape[1] <= room
    if len(kept) < len(turns):
        assert prompt.shape[1] + sum(lengths[len(turns) - len(kept) - 2 : len(turns) - len(kept)]) > room
