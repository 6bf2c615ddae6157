import math

import pytest

from inference import Reference, RequestError, SpeechRequest, Voice


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"text": ""}, "text"), ({"text": " \n"}, "text"), ({"text": "?! ..."}, "text"), ({"text": "😀"}, "text"),
        ({"text": "a" * 100_001}, "text"), ({"text": "a\ud800b"}, "text"), ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"), ({"temperature": 2.1}, "temperature"), ({"top_p": 1.1}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"), ({"chunk_length": 1}, "chunk_length"), ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"seed": 10**400}, "seed"), ({"temperature": 10**400}, "temperature"), ({"chunk_length": -(10**5000)}, "chunk_length"),
        ({"seed": -1}, "seed"), ({"seed": 2**63}, "seed"), ({"compat": "other"}, "compat"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_by_name(fields, param):
    with pytest.raises(RequestError) as error:
        SpeechRequest(**({"text": "hello"} | fields))
    assert error.value.param == param
    assert "\n" not in str(error.value)


def test_a_reference_text_is_checked_too(prompts):
    codes = prompts["one_ref"]["refs"][0]["codes"]
    with pytest.raises(RequestError, match=r"reference text holds a lone surrogate, U\+DC80 at character 2"):
        SpeechRequest("hi", Voice((Reference(codes, "a\udc80"),)))
