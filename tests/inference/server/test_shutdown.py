"""Which requests the server waits for when it ends."""

import asyncio
import multiprocessing

import pytest

from inference.server.shutdown import InFlight


@pytest.mark.parametrize(("path", "counted"), [("/v1/tts", 1), ("/health", 0), ("/ready", 0), ("/metrics", 0)])
def test_it_counts_what_somebody_waits_for(path, counted):
    count, seen = multiprocessing.Value("i", 0), []

    async def app(*_):
        seen.append(count.value)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(InFlight(app, count)({"type": "http", "path": path}, None, None))
    assert (seen, count.value) == ([counted], 0)
