"""How many values a body may hold, whichever way it is written."""

import json

import ormsgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.errors import RequestError
from inference.server.request_bodies import _values, unpacked

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(max_size=3), inner, max_size=40),
    max_leaves=60,
)


def count(value):
    if isinstance(value, dict):
        return 1 + sum(1 + count(v) for v in value.values())
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


@given(anything)
@example([0] * 70_000)
@example({str(n): n for n in range(70_000)})
@example("x" * 70_000)
@example(b"x" * 70_000)
def test_values_are_counted_as_they_are_made(value):
    packed = ormsgpack.packb(value)
    assert _values(packed, 10**9) == count(value)
    assert unpacked(packed, 10**9) == value


@given(st.binary(max_size=200))
def test_whatever_is_sent_is_decoded_or_refused(content):
    try:
        unpacked(content)
    except RequestError as e:
        assert "\n" not in str(e)


@pytest.mark.parametrize(
    "content", [b"\xdd\xff\xff\xff\xff" + b"\x90" * 100_000, b"\xdc\xff\xff" + b"\x80" * 65_535, b"\xdf\x7f\xff\xff\xff" + b"\xc0" * 20_000]
)
def test_more_values_than_any_request_has_are_not_made(content):
    with pytest.raises(RequestError, match="more than 10,000 values"):
        unpacked(content)


@pytest.mark.parametrize("cut", [0, 1, 5, 20])
def test_what_ends_too_early_is_no_msgpack(cut):
    with pytest.raises(RequestError, match="not valid msgpack"):
        unpacked(ormsgpack.packb({"text": "hello there", "format": "wav"})[:cut])


def test_json_has_as_many_marks_as_values():
    """The limit of `BodyLimit` counts marks: no value without one, but for the first of all."""
    value = [[], {}, {"a": [1, 2, {"b": []}]}, [[[]]], [{}, {}]]
    text = json.dumps(value)
    assert sum(map(text.count, ",[{")) + 1 >= count(value) - sum(text.count(key) for key in ('"a"', '"b"'))
