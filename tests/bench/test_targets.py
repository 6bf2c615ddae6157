import asyncio

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import closed_loop
from bench.null import CHUNK_SAMPLES, CHUNKS, NullTarget, null_server
from bench.prompts import prompts
from bench.targets import _wav_start, engine_target, http_target
from inference import RequestError
from inference.audio.write import wav, wav_header

SILENCE = CHUNKS * CHUNK_SAMPLES / 44_100


def take(target, clients=2):
    samples = []
    asyncio.run(closed_loop(target, prompts(["short"]), clients, 0, samples))
    return samples


def http(url, api="openai", transport=None):
    async def main():
        async with httpx.AsyncClient(transport=transport) as client:
            samples = []
            await closed_loop(http_target(client, url, api), prompts(["short"]), 2, 0, samples)
            return samples

    return asyncio.run(main())


def test_the_engine_is_spoken_with_and_says_how_long_it_queued(engine):
    samples = take(engine_target(engine))
    assert all(s.error is None and s.times and s.audio > 0 and s.queued >= 0 for s in samples)


def test_a_null_engine_answers_at_once():
    null = NullTarget()
    samples = take(engine_target(null))
    null.close()
    assert [s.audio for s in samples] == pytest.approx([SILENCE] * 2)
    assert all(s.error is None and len(s.times) == CHUNKS for s in samples)


@pytest.fixture(scope="module")
def null_url():
    with null_server() as url:
        yield url


@pytest.mark.parametrize("api", ["openai", "fish"])
def test_a_null_server_answers_either_api(null_url, api):
    samples = http(null_url, api)
    assert [s.audio for s in samples] == pytest.approx([SILENCE] * 2)
    assert [s.queued for s in samples] == [None, None]


def answer(status, content):
    return httpx.MockTransport(lambda _: httpx.Response(status, content=content))


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [(500, b"broken", "answered 500: broken"), (429, b"full", "answered 429"), (200, b"no sound", "not a WAV"), (200, b"", "not a WAV")],
)
def test_a_bad_answer_is_an_error_of_its_sample(status, content, words):
    assert all(words in s.error for s in http("http://x", transport=answer(status, content)))


def test_nobody_there_is_an_error_too():
    assert all(s.error.startswith("http://127.0.0.1:9") for s in http("http://127.0.0.1:9"))


def test_an_unknown_api_is_one_sentence():
    with pytest.raises(RequestError, match="openai and fish"):
        http_target(httpx.AsyncClient(), "http://x", "soap")


@given(st.integers(8000, 96000), st.integers(0, 60))
def test_a_wav_says_where_its_samples_begin_and_how_many_bytes_last_a_second(rate, cut):
    whole = wav(np.zeros(4, np.float32), rate)
    assert _wav_start(whole) == (44, 2 * rate)
    assert _wav_start(whole[:cut]) == ((44, 2 * rate) if cut >= 44 else (0, 0))


def test_a_wav_may_say_other_things_first():
    header = wav_header(44_100)
    odd = header[:36] + b"LIST" + (3).to_bytes(4, "little") + b"abc\0" + header[36:]
    assert _wav_start(odd) == (44 + 12, 88_200)
