"""The worker's handler without RunPod around it, on the bundled voice."""

import asyncio

import pytest

from inference import SpeechEngine
from inference.voices.notice import ONE_VOICE
from inference.voices.store import VoiceStore
from tests.inference.server.conftest import voices  # noqa: F401 - a fixture
from worker.handler import Handler
from worker.storage import Storage


@pytest.fixture(scope="module")
def handler(voices):  # noqa: F811 - a fixture
    with SpeechEngine.load(device="cpu") as engine:
        yield Handler(engine, VoiceStore(voices), Storage(), lambda *_: None)


@pytest.mark.parametrize(("voice", "warning"), [({}, None), ({"voice": "default"}, None), ({"voice": "anna"}, ONE_VOICE)])
def test_a_voice_that_the_model_ignores_is_reported(handler, voice, warning):
    async def run():
        return [piece async for piece in handler({"id": "1", "input": {"text": "Hello there.", "format": "wav"} | voice})]

    (result,) = asyncio.run(run())
    assert result.get("warning") == warning
