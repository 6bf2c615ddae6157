"""A conversation over Fish Audio's WebSocket, with an engine and a client that are made for the test."""

import asyncio

import ormsgpack

from inference import RequestError, Voice
from inference.server.fish import _Conversation
from tests.waiting import HANG_SECONDS

START = {"event": "start", "request": {"text": "", "format": "pcm", "max_new_tokens": 20}}


class Chatty:
    """A client that goes on talking whatever it hears, for a while."""

    def __init__(self):
        says = [START, *[{"event": "text", "text": "Hi. There. "}] * 300]
        self.says, self.heard = iter(says), []

    async def receive(self):
        await asyncio.sleep(0)
        if (event := next(self.says, None)) is None:
            await asyncio.Event().wait()
        return {"type": "websocket.receive", "bytes": ormsgpack.packb(event)}

    async def send_bytes(self, content):
        self.heard.append(ormsgpack.unpackb(content)["event"])

    async def close(self):
        self.heard.append("close")


class Failing:
    """Ends with an error after so many turns of the loop."""

    def __init__(self, turns):
        self.turns = turns

    async def state(self):
        return {"status": "ready"}

    async def astream(self, request, more):
        for _ in range(self.turns):
            await asyncio.sleep(0)
        raise RequestError("too much")
        yield request, more


def test_a_client_that_goes_on_talking_hears_of_an_error_all_the_same():
    """A cancellation that comes at the same time as a message was lost (asyncio.wait_for in Python 3.11), and nobody heard the end."""

    async def voice_of(_):
        return Voice()

    async def hold(conversation):
        async with asyncio.timeout(HANG_SECONDS):
            await conversation.hold()

    for turns in range(12):
        client = Chatty()
        asyncio.run(hold(_Conversation(client, Failing(turns), voice_of)))
        assert client.heard == ["error", "finish", "close"]
