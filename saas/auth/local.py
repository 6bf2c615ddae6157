"""
Sign-in for embedded mode: the part of GoTrue's HTTP protocol that supabase-js asks for, so that the app signs in here as it does at Supabase.

Sessions are ES256 tokens whose public key stands at `.well-known/jwks.json`, where the API looks for Supabase's. There is no mail server:
messages are files in the data folder, which only whoever keeps this machine reads.
"""

import asyncio
import hashlib
import hmac
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode
from uuid import uuid4
from weakref import WeakValueDictionary

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, field_validator

from inference.server.error_responses import complaint
from saas.auth.turnstile import Action
from saas.database import Database, Refused, Unavailable
from saas.errors import BUSY, ApiError
from saas.settings import Settings
from saas.state import AppState, State

SESSION_SECONDS = 3600
LINK_SECONDS = 3600
SHORTEST_PASSWORD, MAX_PASSWORD = 8, 200
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}  # 32 MiB and about 0.1 s a guess
_ADDRESS = re.compile(r"""[^@\s\x00-\x1f"(),:;<>\[\]\\]{1,64}@[^@\s\x00-\x1f"(),:;<>\[\]\\]{1,190}""")
_NOBODY = f"scrypt${'00' * 18}${'00' * 32}"  # hashed against where there is no user, so that it takes as long
_MESSAGES = {
    "signup": ("Confirm your address", "Open this link to confirm your address and sign in:"),
    "magiclink": ("Your sign-in link", "Open this link to sign in:"),
    "recovery": ("Choose a new password", "Open this link to sign in and choose a new password:"),
}

Purpose = Literal["signup", "magiclink", "recovery"]


class _Captcha(BaseModel):
    captcha_token: str | None = Field(default=None, max_length=2048)


class _Guarded(BaseModel):
    """What a form that a robot might fill in sends; GoTrue's name for the rest of it."""

    gotrue_meta_security: _Captcha = _Captcha()


class _Address(_Guarded):
    email: str

    @field_validator("email")
    @classmethod
    def _plausible(cls, value: str) -> str:
        value = value.strip().lower()
        if not _ADDRESS.fullmatch(value):
            raise ValueError("this is no e-mail address")
        return value


class _SignUp(_Address):
    password: str = Field(min_length=SHORTEST_PASSWORD, max_length=MAX_PASSWORD)


class _Otp(_Address):
    create_user: bool = True


class _Resend(_Address):
    type: Literal["signup"]


class _Grant(_Guarded):
    email: str = ""
    password: str = Field("", max_length=MAX_PASSWORD)
    refresh_token: str = Field("", max_length=2048)


class _Verification(BaseModel):
    type: Literal["signup", "magiclink", "recovery", "email"]
    token_hash: str = Field(max_length=200)


class _Change(BaseModel):
    password: str | None = Field(None, min_length=SHORTEST_PASSWORD, max_length=MAX_PASSWORD)


class _GoTrueRoute(APIRoute):
    """Answers errors as GoTrue does, which supabase-js reads: code, error_code and msg."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except ApiError as e:
                return _error(e.status, e.code or "unexpected_failure", str(e), e.headers)
            except Refused as e:
                return _error(e.status, "unexpected_failure", e.message)
            except Unavailable:
                return _error(503, "unavailable", BUSY, {"Retry-After": "5"})
            except RequestValidationError as e:
                first = e.errors()[0]
                if "password" in first["loc"]:
                    return _error(422, "weak_password", f"A password has {SHORTEST_PASSWORD} to {MAX_PASSWORD} characters.")
                return _error(400, "validation_failed", complaint(first)[0])

        return answered


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"code": status, "error_code": code, "msg": message}, status, headers)


class Signer:
    """The key that signs sessions, kept in one file. Made where it is not there yet."""

    def __init__(self, file: Path, issuer: str) -> None:
        self.issuer = issuer
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = ec.generate_private_key(ec.SECP256R1())
            _write(file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        self._id = hashlib.sha256((public["x"] + public["y"]).encode()).hexdigest()[:16]
        self.jwks = {"keys": [public | {"kid": self._id, "use": "sig", "alg": "ES256", "key_ops": ["verify"]}]}

    def sign(self, user: dict[str, Any], session_id: str, now: float) -> str:
        """A token that says who is signed in until SESSION_SECONDS from `now` (Unix seconds)."""
        claims = {
            "iss": self.issuer, "aud": "authenticated", "role": "authenticated", "sub": user["id"], "email": user["email"],
            "session_id": session_id, "aal": "aal1", "is_anonymous": False, "iat": int(now), "exp": int(now) + SESSION_SECONDS,
            "app_metadata": user["app_metadata"], "user_metadata": user["user_metadata"],
        }  # fmt: skip
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self._id})

    def read(self, token: str) -> tuple[str, str]:
        """The user's and the session's id. Raises ApiError 401 for what this key did not sign, or signed too long ago."""
        try:
            claims = jwt.decode(
                token, self._key.public_key(), algorithms=["ES256"], audience="authenticated", issuer=self.issuer, leeway=0,
                options={"require": ["exp", "sub", "aud", "iss", "session_id"]},
            )  # fmt: skip
        except jwt.InvalidTokenError:
            raise ApiError(401, "The session has ended; sign in again.", "bad_jwt") from None
        return claims["sub"], claims["session_id"]


class LocalAuth:
    """What signing in needs beside the database: the key, the mail's folder, and where things are."""

    def __init__(self, settings: Settings) -> None:
        self._signer = Signer(settings.directory / "session-key.pem", settings.issuer)
        self._mail = settings.directory / "mail"
        self._public_url, self._app = settings.public_url, settings.app
        self.jwks, self.read = self._signer.jwks, self._signer.read
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def turn(self, address: str) -> asyncio.Lock:
        """Held while a password from an address is looked at: guesses that are sent together are counted before the next is looked at."""
        return self._turns.setdefault(address, asyncio.Lock())

    async def open_session(self, database: Database, user: dict[str, Any]) -> dict[str, Any]:
        """A new session as GoTrue gives one."""
        refresh = secrets.token_urlsafe(32)
        opened = await database.call("local_open_session", user_id=user["id"], refresh_hash=_sha256(refresh))
        return self._session(opened, refresh)

    async def renew(self, database: Database, refresh: str) -> dict[str, Any]:
        """The session with its next tokens. Raises ApiError 400 when it has ended."""
        following = secrets.token_urlsafe(32)
        renewed = await database.call("local_renew_session", old_hash=_sha256(refresh), new_hash=_sha256(following))
        if renewed is None:
            raise ApiError(400, "The session has ended; sign in again.", "refresh_token_not_found")
        return self._session(renewed, following)

    async def send_link(self, database: Database, user: dict[str, Any], purpose: Purpose, back: str) -> None:
        """Write the user a link that signs in once, and leads to `back` in the app."""
        token = secrets.token_urlsafe(32)
        await database.call("local_create_token", user_id=user["id"], purpose=purpose, hash=_sha256(token), seconds=LINK_SECONDS)
        query = urlencode({"token": token, "type": purpose, "redirect_to": self.landing(back)})
        subject, words = _MESSAGES[purpose]
        link = f"{self._public_url}/auth/v1/verify?{query}"
        self.post(user["email"], subject, f"{words}\n\n{link}\n\nIt works once, for one hour.\n")
        if sys.stderr.isatty():  # a log that is kept must not hold a link that signs in
            print(f"Mail to {user['email']}: {words} {link}", file=sys.stderr, flush=True)

    def tell_of_account(self, email: str) -> None:
        """Somebody signed up with an address that has an account. A form must not tell strangers so: the address alone is told."""
        words = (
            f"Somebody, perhaps you, wanted an account for this address, which has one. Sign in, or choose a new password:\n\n{self._app}\n"
        )
        self.post(email, "You have an account already", words)

    def landing(self, redirect_to: str) -> str:
        """Where a link may lead: into the app, and nowhere else."""
        inside = redirect_to == self._app or redirect_to.startswith(f"{self._app}/")
        return redirect_to if inside and not re.search(r"[#\\\s]", redirect_to) else self._app

    def post(self, to: str, subject: str, text: str) -> None:
        """Put a message in the mail's folder."""
        message = EmailMessage()
        message["To"], message["Subject"] = to, subject
        message.set_content(text, cte="7bit")  # a long line stays whole: whoever reads the file can copy its link
        self._mail.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(self._mail / f"{time.time_ns()}.eml", message.as_bytes())

    def _session(self, opened: dict[str, Any], refresh: str) -> dict[str, Any]:
        now = time.time()
        return {
            "access_token": self._signer.sign(opened["user"], opened["session_id"], now), "token_type": "bearer", "refresh_token": refresh,
            "expires_in": SESSION_SECONDS, "expires_at": int(now) + SESSION_SECONDS, "user": opened["user"],
        }  # fmt: skip


async def create_user(database: Database, email: str, password: str | None, *, confirmed: bool) -> dict[str, Any] | None:
    """A new user as GoTrue shows one, or None where the address has one already. Without a password, links alone sign in."""
    hashed = None if password is None else await asyncio.to_thread(_hash_password, password)
    user: dict[str, Any] | None = await database.call("local_create_user", email=email, password_hash=hashed, confirmed=confirmed)
    return user


async def local_auth_of(request: Request) -> LocalAuth:
    """The app's authentication, made when it is first asked for."""
    state = request.app.state
    if not hasattr(state, "auth"):
        state.auth = LocalAuth(state.saas.settings)
    auth: LocalAuth = state.auth
    return auth


Auth = Annotated[LocalAuth, Depends(local_auth_of)]


async def signed_in(request: Request, auth: Auth) -> tuple[str, str]:
    """The ids of the user and the session that ask. Raises ApiError 401."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        raise ApiError(401, "This needs a session: sign in.", "no_authorization")
    return auth.read(token)


SignedIn = Annotated[tuple[str, str], Depends(signed_in)]
router = APIRouter(prefix="/auth/v1", route_class=_GoTrueRoute, include_in_schema=False)


@router.get("/.well-known/jwks.json")
async def jwks(auth: Auth) -> dict[str, Any]:
    """The key that sessions are verified by."""
    return auth.jwks


@router.get("/settings")
async def what_there_is() -> dict[str, Any]:
    """Which ways to sign in there are."""
    return {"external": {"email": True}, "disable_signup": False, "mailer_autoconfirm": False}


@router.post("/signup")
async def sign_up(body: _SignUp, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """A new user, once the link in the message is opened. The answer is the same where the address has an account: the id is nobody's."""
    await _may_write(request, state, body, "sign-up")
    user = await create_user(state.database, body.email, body.password, confirmed=False)
    if user is None:
        auth.tell_of_account(body.email)
    else:
        await auth.send_link(state.database, user, "signup", redirect_to)
    return {
        "id": str(uuid4()), "aud": "authenticated", "role": "authenticated", "email": body.email, "app_metadata": {}, "user_metadata": {},
        "identities": [], "created_at": datetime.now(UTC).isoformat(), "is_anonymous": False,
    }  # fmt: skip


@router.post("/resend")
async def resend(body: _Resend, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """The message of a sign-up once more."""
    await _may_write(request, state, body)
    user = await _find(state.database, body.email)
    if user is not None and not user["confirmed_at"]:
        await auth.send_link(state.database, user, "signup", redirect_to)
    return {}


@router.post("/otp")
async def magic_link(body: _Otp, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """A link that signs in."""
    await _may_write(request, state, body)
    user = await _find(state.database, body.email)
    if user is None and body.create_user:
        user = await create_user(state.database, body.email, None, confirmed=False)
    if user is not None:
        await auth.send_link(state.database, user, "magiclink", redirect_to)
    return {}


@router.post("/recover")
async def recover(body: _Address, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """A link that signs in to choose a new password."""
    await _may_write(request, state, body)
    user = await _find(state.database, body.email)
    if user is not None:
        await auth.send_link(state.database, user, "recovery", redirect_to)
    return {}


@router.post("/verify")
async def verify(body: _Verification, request: Request, state: AppState, auth: Auth) -> dict[str, Any]:
    """A session for a link's token."""
    return await auth.open_session(state.database, await _of_link(request, state, body.type, body.token_hash))


@router.get("/verify")
async def follow_link(request: Request, state: AppState, auth: Auth, token: str, type: str, redirect_to: str = "") -> RedirectResponse:
    """Open a link: on to the app, which finds the session behind the #."""
    try:
        opened = await auth.open_session(state.database, await _of_link(request, state, type, token))
        told = {k: opened[k] for k in ("access_token", "refresh_token", "expires_in", "expires_at", "token_type")} | {"type": type}
    except ApiError as e:
        told = {"error": "access_denied", "error_code": e.code, "error_description": str(e)}
    return RedirectResponse(f"{auth.landing(redirect_to)}#{urlencode(told, quote_via=quote)}", 303)


@router.post("/token")
async def token(body: _Grant, request: Request, state: AppState, auth: Auth, grant_type: str) -> dict[str, Any]:
    """A session for a password, or for a refresh token."""
    if grant_type == "password":
        async with auth.turn(state.limiter.address(request)):
            user = await _by_password(request, state, body)
        return await auth.open_session(state.database, user)
    if grant_type == "refresh_token":
        return await auth.renew(state.database, body.refresh_token)
    raise ApiError(400, f"There is no grant_type {grant_type[:40]!r} here; there are password and refresh_token.", "validation_failed")


@router.get("/user")
async def show_user(caller: SignedIn, state: AppState) -> dict[str, Any]:
    """Who is signed in."""
    return await _still(caller, state)


@router.put("/user")
async def change_user(body: _Change, caller: SignedIn, state: AppState) -> dict[str, Any]:
    """A new password; every other session ends."""
    await _still(caller, state)
    hashed = None if body.password is None else await asyncio.to_thread(_hash_password, body.password)
    changed: dict[str, Any] = await state.database.call("local_update_user", user_id=caller[0], session_id=caller[1], password_hash=hashed)
    return changed


@router.post("/logout", status_code=204)
async def sign_out(caller: SignedIn, state: AppState, scope: Literal["global", "local", "others"] = "global") -> None:
    """End this session, the others, or all."""
    await state.database.call("local_close_sessions", user_id=caller[0], session_id=caller[1], scope=scope)


async def _find(database: Database, email: str) -> dict[str, Any] | None:
    found = await database.call("local_find_user", email=email)
    return found["user"] if found else None


async def _may_write(request: Request, state: State, body: _Guarded, action: Action = "sign-in") -> None:
    """As `_person`, for what writes somebody a message: that is counted, so that nobody fills the disk or a mailbox."""
    name = f"mail:{state.limiter.address(request)}"
    await state.limiter.may_try(name, "password")
    await state.limiter.failed(name, "password")  # each counts, not only what fails
    await _person(request, state, body, action)


async def _person(request: Request, state: State, body: _Guarded, action: Action = "sign-in") -> None:
    """Refuse a robot, and an address that has tried too often."""
    await state.limiter.may_try(state.limiter.address(request), "password")
    if state.turnstile is not None:
        await state.turnstile.verify(body.gotrue_meta_security.captcha_token, action)


async def _by_password(request: Request, state: State, body: _Grant) -> dict[str, Any]:
    await _person(request, state, body)
    email = body.email.strip().lower()
    found = await state.database.call("local_find_user", email=email) if _ADDRESS.fullmatch(email) else None
    kept = found["password_hash"] if found else None
    right = await asyncio.to_thread(_is_password, body.password, kept or _NOBODY)
    if found is None or not kept or not right:
        await state.limiter.failed(state.limiter.address(request), "password")
        raise ApiError(400, "Incorrect email or password.", "invalid_credentials")
    user: dict[str, Any] = found["user"]
    if not user["confirmed_at"]:
        raise ApiError(400, "The address is not confirmed yet: open the link in the message.", "email_not_confirmed")
    return user


async def _of_link(request: Request, state: State, purpose: str, token: str) -> dict[str, Any]:
    address = state.limiter.address(request)
    await state.limiter.may_try(address, "password")
    for kind in ("magiclink", "signup") if purpose == "email" else (purpose,):
        user: dict[str, Any] | None = await state.database.call("local_use_token", purpose=kind, hash=_sha256(token))
        if user is not None:
            return user
    await state.limiter.failed(address, "password")
    raise ApiError(403, "The link has been used or is too old; ask for another.", "otp_expired")


async def _still(caller: tuple[str, str], state: State) -> dict[str, Any]:
    user: dict[str, Any] | None = await state.database.call("local_session_user", user_id=caller[0], session_id=caller[1])
    if user is None:
        raise ApiError(403, "The session has ended; sign in again.", "session_not_found")
    return user


def _hash_password(password: str) -> str:
    salt = secrets.token_bytes(18)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def _is_password(password: str, kept: str) -> bool:
    _, salt, digest = kept.split("$")
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(salt)).hex(), digest)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, maxmem=64 * 2**20, dklen=32, **_SCRYPT)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _write(file: Path, content: bytes) -> None:
    """A file that its owner alone can read, whole or not there."""
    half = file.with_suffix(f".{secrets.token_hex(4)}")
    with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    half.rename(file)
