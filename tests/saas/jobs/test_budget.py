"""Speech ends where the money ends, for any text in any script, and what is charged is the price of what was delivered."""

import asyncio
import io
import math
from contextlib import asynccontextmanager, closing
from uuid import uuid4

import httpx
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from saas.credits.aloud import NUMBER, SYLLABLE, aloud
from saas.jobs.backend import Options
from saas.jobs.fishserve import Fishserve
from saas.jobs.service import Jobs
from saas.postgres import PostgresDatabase
from saas.storage.bucket import Bucket
from tests.waiting import HANG_SECONDS
from tests.worker.conftest import BUCKET

RATE = 44_100
PER_SECOND, MINIMUM = 10, 10


class Rambling(httpx.AsyncByteStream):
    """A fishserve that makes so many seconds of sound, whatever the text, in chunks of half a second."""

    def __init__(self, seconds):
        self.left, self.made = round(seconds * RATE), 0

    async def __aiter__(self):
        while self.left:
            samples = min(self.left, RATE // 2)
            self.left, self.made = self.left - samples, self.made + samples
            yield bytes(2 * samples)


@asynccontextmanager
async def speaking(data, bucket, seconds):
    sound = Rambling(seconds)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=sound))
    store, files = PostgresDatabase(data.url), Bucket(bucket.endpoint, bucket.key, bucket.secret, BUCKET)
    async with httpx.AsyncClient(transport=transport) as http:
        yield Jobs(store, files, Fishserve(http, files, ["http://speaker"], None)), sound
    files.close()
    await store.close()


TEXTS = st.text(
    st.one_of(st.characters(exclude_categories=["Cs", "Cc"]), st.sampled_from("0123456789$€%½٣९ሰ𠀀ｶ你가あ.,!? -:/")),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60)
@given(
    text=TEXTS.filter(lambda text: not text.isspace()), seconds=st.floats(0.01, 25), speed=st.sampled_from([0.25, 0.5, 1.0, 1.7, 4.0]),
    streamed=st.booleans(),
)  # fmt: skip
def test_what_is_charged_is_the_price_of_what_was_delivered_and_never_above_the_reservation(data, bucket, text, seconds, speed, streamed):
    who = str(data.user(100_000))

    async def spoken():
        async with speaking(data, bucket, seconds) as (jobs, sound):
            taken = await jobs.submit(who, None, None, text, None, Options("wav", speed), listened=streamed)
            row = taken["job"]
            working = None
            if streamed:
                stream = jobs.stream(taken["claimed"])
                await stream.begin()
                heard = b"".join([piece async for piece in stream])
                assert heard
            else:
                working = asyncio.create_task(jobs.run())
            ended = await jobs.wait(who, row["id"], HANG_SECONDS)
            with closing(await jobs.result(ended)) as result:
                content = b"".join([piece async for piece in result])
            if working:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            return ended, content, sound.made / RATE

    ended, content, made = asyncio.run(spoken())
    assert ended["status"] == "succeeded"
    delivered = soundfile.info(io.BytesIO(content)).duration
    buys = ended["reserved"] / PER_SECOND  # seconds of audio at the speed of speech; slower audio is longer, and costs what it lasts
    assert delivered * max(1, speed) <= buys + 0.05
    assert made <= buys * min(1, speed) + 0.5 + 0.01  # the machine stops, too: a chunk later at most
    assert ended["partial"] == (seconds * max(1, 1 / speed) > buys + 0.001) or abs(seconds * max(1, 1 / speed) - buys) < 0.01
    assert ended["seconds"] == pytest.approx(delivered, abs=0.06 / min(1, speed))
    assert ended["charged"] == min(ended["reserved"], max(MINIMUM, math.ceil(round(ended["seconds"] * max(1, speed), 6) * PER_SECOND)))


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("999999999999999", 158), ("$3.50", len("three dollars and fifty cents")), ("ሰላም", 3 * SYLLABLE), ("𠀀𠀁", 2 * SYLLABLE),
        ("ｶﾀｶﾅ", 4 * SYLLABLE), ("カタカナ", 4 * SYLLABLE), ("你好", 2 * SYLLABLE), ("٣٣", 2 * NUMBER), ("ﷺ", 18), ("Hello.", 6),
    ],
)  # fmt: skip
def test_a_text_is_measured_as_it_is_read_out(text, letters):
    assert aloud(text).letters == letters


def test_silence_that_a_text_asks_for_is_paid_for_as_silence():
    assert aloud("One.[pause:3s]Two.<break time='500ms'/>").silence == 3.5
    assert aloud("One. [pause:long]").silence == 0  # no pause: the engine refuses it


@given(TEXTS)
def test_any_text_can_be_measured(text):
    assert aloud(text).letters >= 0


def test_faster_speech_costs_what_its_frames_cost(data, bucket):
    """The same 160 frames cost 75, 38 and 19 credits at speeds 1, 2 and 4 before, and can be slowed down again by anybody."""
    who = str(data.user(100_000))

    async def spoken(speed):
        async with speaking(data, bucket, 7.43) as (jobs, _):
            taken = await jobs.submit(who, None, str(uuid4()), "x" * 300, None, Options("wav", speed), listened=True)
            row, stream = taken["job"], jobs.stream(taken["claimed"])
            await stream.begin()
            async for _ in stream:
                pass
            return (await jobs.wait(who, row["id"], HANG_SECONDS))["charged"]

    assert [asyncio.run(spoken(speed)) for speed in (1.0, 2.0, 4.0)] == [75, 75, 75]
