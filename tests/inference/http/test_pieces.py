"""Large answers leave piece by piece."""

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from inference.http.pieces import PIECE_BYTES, Pieces


@given(st.lists(st.integers(0, 3 * PIECE_BYTES + 1), min_size=1, max_size=3))
def test_a_body_arrives_whole_in_small_pieces_and_ends_once(sizes):
    bodies = [bytes([number]) * size for number, size in enumerate(sizes)]
    sent = []

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for body, following in pairwise([*bodies, None]):
            await send({"type": "http.response.body", "body": body, "more_body": following is not None})

    async def send(message):
        sent.append(message)

    asyncio.run(Pieces(app)({"type": "http"}, None, send))
    start, *pieces = sent
    assert start["type"] == "http.response.start"
    assert b"".join(piece["body"] for piece in pieces) == b"".join(bodies)
    assert max(len(piece["body"]) for piece in pieces) <= PIECE_BYTES
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
