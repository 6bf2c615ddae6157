"""Sessions of embedded mode: ES256 tokens, refresh tokens, sign-in links. The API finds the public key where it looks for Supabase's."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from weakref import WeakValueDictionary

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from saas.auth.local.mailbox import Mailbox
from saas.auth.local.passwords import hash_password
from saas.auth.local.repository import LocalRepository, Opened
from saas.auth.local.schemas import Method, Purpose
from saas.database import Database
from saas.errors import ApiError
from saas.mail.transport import write_private
from saas.settings import Settings

SESSION_SECONDS = 3600
LINK_SECONDS = 3600
CODE_SECONDS = 300
"""How long the code that an opened link leads to may be exchanged."""


class Signer:
    """The key that signs sessions, kept in one file. Created if the file does not exist."""

    def __init__(self, file: Path, issuer: str) -> None:
        self.issuer = issuer
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = ec.generate_private_key(ec.SECP256R1())
            write_private(file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        self._id = hashlib.sha256((public["x"] + public["y"]).encode()).hexdigest()[:16]
        self.jwks = {"keys": [public | {"kid": self._id, "use": "sig", "alg": "ES256", "key_ops": ["verify"]}]}

    def sign(self, opened: Opened, now: float) -> str:
        """The token of a session, valid until SESSION_SECONDS after `now` (Unix seconds)."""
        user = opened["user"]
        claims = {
            "iss": self.issuer, "aud": "authenticated", "role": "authenticated", "sub": user["id"], "email": user["email"],
            "session_id": opened["session_id"], "aal": "aal1", "amr": [{"method": opened["method"], "timestamp": opened["began"]}],
            "is_anonymous": False, "iat": int(now), "exp": int(now) + SESSION_SECONDS,
            "app_metadata": user["app_metadata"], "user_metadata": user["user_metadata"],
        }  # fmt: skip
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._id})

    def read(self, token: str) -> tuple[str, str]:
        """The user's and the session's id. Raises ApiError 401 for a token that this key did not sign, or signed too long ago."""
        try:
            claims = jwt.decode(
                token, self._key.public_key(), algorithms=["ES256"], audience="authenticated", issuer=self.issuer, leeway=0,
                options={"require": ["exp", "sub", "aud", "iss", "session_id"]},
            )  # fmt: skip
        except jwt.InvalidTokenError:
            raise ApiError(401, "The session has ended; sign in again.", "bad_jwt") from None
        return claims["sub"], claims["session_id"]


class LocalAuth:
    """Sessions, sign-in links and the mail that carries them."""

    def __init__(self, settings: Settings) -> None:
        self._signer = Signer(settings.directory / "session-key.pem", settings.issuer)
        self._mailbox = Mailbox(settings.directory / "mail")
        self._public_url, self._app = settings.public_url, settings.app
        self.jwks, self.read = self._signer.jwks, self._signer.read
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, address: str) -> asyncio.Lock:
        """A lock to hold while checking a password from a network address, so that concurrent guesses are counted one by one."""
        return self._locks.setdefault(address, asyncio.Lock())

    async def open_session(self, database: Database, user: dict[str, Any], method: Method = "otp") -> dict[str, Any]:
        """Open a session and return it in GoTrue's format."""
        refresh = secrets.token_urlsafe(32)
        opened = await LocalRepository(database).open_session(user["id"], token_hash(refresh), method)
        return self._session(opened, refresh)

    async def renew(self, database: Database, refresh: str) -> dict[str, Any]:
        """The session with new tokens. Raises ApiError 400 when it has ended."""
        following = secrets.token_urlsafe(32)
        renewed = await LocalRepository(database).renew_session(token_hash(refresh), token_hash(following))
        if renewed is None:
            raise ApiError(400, "The session has ended; sign in again.", "refresh_token_not_found")
        return self._session(renewed, following)

    async def send_link(self, database: Database, user: dict[str, Any], purpose: Purpose, back: str, challenge: str | None) -> None:
        """Send the user a link that signs in once, with a challenge only the browser that can meet it, and leads to `back` in the app."""
        token = secrets.token_urlsafe(32)
        await LocalRepository(database).create_token(user["id"], purpose, token_hash(token), LINK_SECONDS, challenge)
        query = urlencode({"token": token, "type": purpose, "redirect_to": self.landing(back)})
        self._mailbox.send_link(user["email"], purpose, f"{self._public_url}/auth/v1/verify?{query}")

    def tell_of_account(self, email: str) -> None:
        """Tell the owner of an account that somebody signed up with its address. Only this mail says so: a form must not tell strangers."""
        words = (
            f"Somebody, perhaps you, wanted an account for this address, which has one. Sign in, or choose a new password:\n\n{self._app}\n"
        )
        self._mailbox.post(email, "You have an account already", words)

    def landing(self, redirect_to: str) -> str:
        """The address that a link leads to: `redirect_to` if it is inside the app, else the app itself."""
        inside = redirect_to == self._app or redirect_to.startswith(f"{self._app}/")
        return redirect_to if inside and not re.search(r"[#\\\s]", redirect_to) else self._app

    def _session(self, opened: Opened, refresh: str) -> dict[str, Any]:
        now = time.time()
        return {
            "access_token": self._signer.sign(opened, now), "token_type": "bearer", "refresh_token": refresh,
            "expires_in": SESSION_SECONDS, "expires_at": int(now) + SESSION_SECONDS, "user": opened["user"],
        }  # fmt: skip


async def create_user(database: Database, email: str, password: str | None, *, confirmed: bool) -> dict[str, Any] | None:
    """Create a user, in GoTrue's format; None if the address already has an account. Without a password, only links sign in."""
    hashed = None if password is None else await asyncio.to_thread(hash_password, password)
    return await LocalRepository(database).create_user(email, hashed, confirmed)


async def make_code(database: Database, user: dict[str, Any], challenge: str) -> str:
    """A code for the browser that can meet this challenge."""
    code = secrets.token_urlsafe(32)
    await LocalRepository(database).create_code(user["id"], token_hash(code), challenge, CODE_SECONDS)
    return code


def meets(verifier: str, challenge: str) -> bool:
    """Whether a verifier is the one of a challenge, `method:challenge` (RFC 7636, 4.6)."""
    method, _, expected = challenge.partition(":")
    if method == "s256":
        verifier = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("utf-8", "replace")).digest()).decode().rstrip("=")
    return hmac.compare_digest(verifier.encode("utf-8", "replace"), expected.encode())


def token_hash(token: str) -> str:
    """The hash of a token, which the database stores instead of the token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
