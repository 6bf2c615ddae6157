"""Password hashes: scrypt with a random salt."""

import hashlib
import hmac
import secrets

_SCRYPT = {"n": 2**15, "r": 8, "p": 1}  # 32 MiB and about 0.1 s per guess
NO_PASSWORD = f"scrypt${'00' * 18}${'00' * 32}"
"""A hash to check against when the user does not exist, so that the check takes equally long."""


def hash_password(password: str) -> str:
    """The password hash that the database stores. Takes 0.1 s of processor time."""
    salt = secrets.token_bytes(18)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def is_password(password: str, kept: str) -> bool:
    """Whether a password matches the stored hash. Takes as long as hashing."""
    _, salt, digest = kept.split("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), digest)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, maxmem=64 * 2**20, dklen=32, **_SCRYPT)
