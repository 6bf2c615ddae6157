"""Seeds that follow from a name: a job that is done again speaks in the same way."""

import hashlib


def seed_of(name: str) -> int:
    """A seed in 0..2**56 - 1, the same for the same name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
