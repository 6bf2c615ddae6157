"""What a job's input may be: whatever else comes is refused in one short sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import RequestError
from worker.job import MAX_CLIP_BYTES, Job, parse


def deep(levels):
    value = "x"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": deep(900)},
        {"voice": {"text": deep(900), "audio": "QUJD"}},
        {"x" * 5_000_000: 1},
        {"version": "9" * 5_000_000},
        {"seed": [0] * 1_000_000},
        {"seed": "9" * 1_000_000},
        {"version": 10**4000},
        {"segments": ["a"] * 100_000},
        {"segments": ["a", deep(900)]},
        {"upload": {"key": "a" * 5_000_000}},
        {"upload": {"y" * 5_000_000: 1}},
        {"voice": {"text": "a", "audio": "A" * (MAX_CLIP_BYTES * 4 // 3 + 8)}},
        {"format": {"a": deep(900)}},
    ],
    ids=["deep", "deep clip", "name", "digits", "list", "number", "integer", "segments", "deep segment", "key", "field", "clip", "format"],
)
def test_what_is_large_or_deep_is_refused_in_one_sentence(fields):
    given = fields if "segments" in fields else {"text": "Hello."} | fields
    with pytest.raises(RequestError) as refused:
        parse(given)
    assert len(str(refused.value)) < 600


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(list(Job.model_fields)) | st.text(), inner)))  # fmt: skip
def test_any_input_is_a_job_or_is_refused(value):
    try:
        assert isinstance(parse(value), Job)
    except RequestError as e:
        assert len(str(e)) < 2000
