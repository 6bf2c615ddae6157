import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import CheckpointError
from inference.model.tokenizer import Tokenizer
from tests.conftest import GOLDEN, golden_json

TOKENIZER = Tokenizer.from_file(GOLDEN / "lm_tiny/tokenizer.tiktoken")
CASES = golden_json("lm_tiny/tokenizer_cases.json")


@pytest.mark.parametrize("case", CASES["cases"], ids=lambda c: repr(c["text"])[:30])
def test_ids_equal_the_reference(case):
    assert TOKENIZER.encode(case["text"], specials=True) == case["ids"]


@pytest.mark.parametrize("case", CASES["cases_no_special"], ids=lambda c: repr(c["text"])[:30])
def test_control_tokens_in_user_text_are_text(case):
    ids = TOKENIZER.encode(case["text"])
    assert ids == case["ids"]
    assert max(ids) < CASES["n_mergeable"]


def test_special_ids_follow_the_ranks():
    assert TOKENIZER.semantic_begin == CASES["semantic_begin_id"]
    assert TOKENIZER.special("semantic:1023") == CASES["semantic_end_id"]
    assert TOKENIZER.im_end == CASES["n_mergeable"] + 4


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_unicode_survives(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_long_text_is_encoded_in_slices():
    text = "ab " * 200_000
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def ranks(tokens):
    return "".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(tokens))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("not base64 0\n", "line 1"),
        ("YQ==\n", "line 1"),
        (ranks([bytes([b]) for b in range(255)]), "0xff has no rank"),
        (ranks([bytes([b]) for b in range(256)]).replace(" 17\n", " 900\n"), "ranks are not 0..255"),
        ("", "0x00 has no rank"),
    ],
)
def test_a_bad_rank_file_is_one_clear_error(tmp_path, content, complaint):
    (tmp_path / "t").write_text(content)
    with pytest.raises(CheckpointError, match=complaint):
        Tokenizer.from_file(tmp_path / "t")


def test_a_missing_or_binary_rank_file_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match="is missing"):
        Tokenizer.from_file(tmp_path / "t")
    (tmp_path / "t").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="cannot be read as text"):
        Tokenizer.from_file(tmp_path / "t")
