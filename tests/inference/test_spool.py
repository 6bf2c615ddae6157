"""A file on disk that one task writes and others read."""

import asyncio
import gc
import hashlib
import os
import resource

import pytest

from inference.spool import PIECE_BYTES, Spool


def test_what_was_written_is_read_again_piece_by_piece():
    content = os.urandom(3 * PIECE_BYTES + 7)

    async def story():
        with Spool() as spool:
            await spool.write(content)
            spool.overwrite(5, b"other")
            with spool.open() as file:
                return [piece async for piece in spool.pieces()], spool.digest(), file.read()

    pieces, checksum, again = asyncio.run(story())
    changed = content[:5] + b"other" + content[10:]
    assert b"".join(pieces) == again == changed
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert checksum == hashlib.sha256(changed).hexdigest()


def test_a_closed_spool_takes_nothing_more_and_leaves_no_descriptor():
    before = len(os.listdir("/proc/self/fd"))
    spool = Spool()
    spool.append(b"x")
    spool.close()
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        spool.append(b"y")
    forgotten = Spool()
    del forgotten
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_full_disk_is_an_error(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda buffering: open("/dev/full", "r+b", buffering=buffering))  # noqa: SIM115
    with Spool() as spool, pytest.raises(OSError, match="No space left"):
        spool.append(b"x")


def test_a_piece_that_the_disk_has_no_room_for_leaves_nothing_behind():
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Spool() as spool:
        spool.append(b"whole")
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                spool.append(b"a part of this")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        with spool.open() as file:
            assert (file.read(), spool.size) == (b"whole", 5)
