"""The routes of embedded sign-in: the part of GoTrue's HTTP protocol that supabase-js uses, so that the app signs in as it does at Supabase."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode
from uuid import uuid4

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from inference.http.error_responses import complaint
from saas.auth.local.passwords import NO_PASSWORD, hash_password, is_password
from saas.auth.local.repository import LocalRepository, Used
from saas.auth.local.schemas import ADDRESS, MAX_PASSWORD, MIN_PASSWORD, Address, Change, Grant, Guarded, Otp, Resend, SignUp, Verification
from saas.auth.local.sessions import LocalAuth, create_user, make_code, meets, token_hash
from saas.auth.turnstile import Action
from saas.database import Database, Refused, Unavailable
from saas.errors import BUSY, ApiError
from saas.state import AppState, State


class _GoTrueRoute(APIRoute):
    """Returns errors in GoTrue's format, which supabase-js reads: code, error_code and msg."""

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
                    return _error(422, "weak_password", f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
                return _error(400, "validation_failed", complaint(first)[0])

        return answered


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"code": status, "error_code": code, "msg": message}, status, headers)


async def local_auth_of(request: Request) -> LocalAuth:
    """The app's authentication, created on first use."""
    state = request.app.state
    if not hasattr(state, "auth"):
        state.auth = LocalAuth(state.saas.settings)
    auth: LocalAuth = state.auth
    return auth


Auth = Annotated[LocalAuth, Depends(local_auth_of)]


async def signed_in(request: Request, auth: Auth) -> tuple[str, str]:
    """The ids of the caller's user and session. Raises ApiError 401."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        raise ApiError(401, "This needs a session: sign in.", "no_authorization")
    return auth.read(token)


SignedIn = Annotated[tuple[str, str], Depends(signed_in)]
router = APIRouter(prefix="/auth/v1", route_class=_GoTrueRoute, include_in_schema=False)


@router.get("/.well-known/jwks.json")
async def jwks(auth: Auth) -> dict[str, Any]:
    """The public key that verifies sessions."""
    return auth.jwks


@router.get("/settings")
async def what_there_is() -> dict[str, Any]:
    """The available ways to sign in."""
    return {"external": {"email": True}, "disable_signup": False, "mailer_autoconfirm": False}


@router.post("/signup")
async def sign_up(body: SignUp, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """Sign up; opening the emailed link confirms the user. The answer is the same if the address has an account: its id is random.

    Of two who sign up with one address before it is confirmed, one may be a stranger. So neither password counts: each link signs in the owner
    of the mailbox, and the second one's leads to where a new password is chosen.
    """
    await _may_write(request, state, body, "sign-up")
    before = await _find(state.database, body.email)
    contested = before is not None and not before["confirmed_at"]
    user = await create_user(state.database, body.email, None if contested else body.password, confirmed=False)
    if user is None:
        auth.tell_of_account(body.email)
    elif contested:
        await auth.send_link(state.database, user, "recovery", redirect_to, body.challenge)
    else:
        await auth.send_link(state.database, user, "signup", redirect_to, body.challenge)
    return {
        "id": str(uuid4()), "aud": "authenticated", "role": "authenticated", "email": body.email, "app_metadata": {}, "user_metadata": {},
        "identities": [], "created_at": datetime.now(UTC).isoformat(), "is_anonymous": False,
    }  # fmt: skip


@router.post("/resend")
async def resend(body: Resend, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """Send the sign-up message again."""
    await _may_write(request, state, body)
    user = await _find(state.database, body.email)
    if user is not None and not user["confirmed_at"]:
        await auth.send_link(state.database, user, "signup", redirect_to, body.challenge)
    return {}


@router.post("/otp")
async def magic_link(body: Otp, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """Send a link that signs in."""
    await _may_write(request, state, body)
    user = await _find(state.database, body.email)
    if user is None and body.create_user:
        user = await create_user(state.database, body.email, None, confirmed=False)
    if user is not None:
        await auth.send_link(state.database, user, "magiclink", redirect_to, body.challenge)
    return {}


@router.post("/recover")
async def recover(body: Address, request: Request, state: AppState, auth: Auth, redirect_to: str = "") -> dict[str, Any]:
    """Send a link that signs in to choose a new password."""
    await _may_write(request, state, body)
    user = await _find(state.database, body.email)
    if user is not None:
        await auth.send_link(state.database, user, "recovery", redirect_to, body.challenge)
    return {}


@router.post("/verify")
async def verify(body: Verification, request: Request, state: AppState, auth: Auth) -> dict[str, Any]:
    """Exchange a link's token for a session."""
    used = await _of_link(request, state, body.type, body.token_hash)
    return await auth.open_session(state.database, used["user"])


@router.get("/verify")
async def follow_link(request: Request, state: AppState, auth: Auth, token: str, type: str, redirect_to: str = "") -> RedirectResponse:
    """Open a link: redirect to the app, with a code where a browser asked for it with a challenge, else with the session after the #."""
    landing = auth.landing(redirect_to)
    try:
        used = await _of_link(request, state, type, token)
    except ApiError as e:
        told = {"error": "access_denied", "error_code": e.code, "error_description": str(e)}
    else:
        if used["challenge"] is not None:
            back = {"code": await make_code(state.database, used["user"], used["challenge"]), "type": type}
            return RedirectResponse(f"{landing}{'&' if '?' in landing else '?'}{urlencode(back)}", 303)
        opened = await auth.open_session(state.database, used["user"])
        told = {k: opened[k] for k in ("access_token", "refresh_token", "expires_in", "expires_at", "token_type")} | {"type": type}
    return RedirectResponse(f"{landing}#{urlencode(told, quote_via=quote)}", 303)


@router.post("/token")
async def token(body: Grant, request: Request, state: AppState, auth: Auth, grant_type: str) -> dict[str, Any]:
    """Exchange a password, a refresh token, or a link's code with its verifier for a session."""
    if grant_type == "password":
        async with auth.lock(state.limiter.address(request)):
            user = await _by_password(request, state, body)
        return await auth.open_session(state.database, user, "password")
    if grant_type == "refresh_token":
        return await auth.renew(state.database, body.refresh_token)
    if grant_type == "pkce":
        return await auth.open_session(state.database, await _by_code(request, state, body))
    raise ApiError(
        400, f"There is no grant_type {grant_type[:40]!r} here; there are password, refresh_token and pkce.", "validation_failed"
    )


@router.get("/user")
async def show_user(caller: SignedIn, state: AppState) -> dict[str, Any]:
    """The signed-in user."""
    return await _still(caller, state)


@router.put("/user")
async def change_user(body: Change, caller: SignedIn, state: AppState) -> dict[str, Any]:
    """Set a new password and end every other session."""
    await _still(caller, state)
    hashed = None if body.password is None else await asyncio.to_thread(hash_password, body.password)
    return await LocalRepository(state.database).update_user(*caller, hashed)


@router.post("/logout", status_code=204)
async def sign_out(caller: SignedIn, state: AppState, scope: Literal["global", "local", "others"] = "global") -> None:
    """End this session, the user's other sessions, or all, depending on `scope`."""
    await LocalRepository(state.database).close_sessions(*caller, scope)


async def _find(database: Database, email: str) -> dict[str, Any] | None:
    found = await LocalRepository(database).find_user(email)
    return found["user"] if found else None


async def _may_write(request: Request, state: State, body: Guarded, action: Action = "sign-in") -> None:
    """As `_person`, for routes that send a message. It counts each message, so that nobody can fill the disk or a mailbox."""
    name = f"mail:{state.limiter.address(request)}"
    await state.limiter.may_try(name, "password")
    await state.limiter.failed(name, "password")  # each attempt counts, not only failures
    await _person(request, state, body, action)


async def _person(request: Request, state: State, body: Guarded, action: Action = "sign-in") -> None:
    """Refuse a robot, and a network address that has tried too often."""
    await state.limiter.may_try(state.limiter.address(request), "password")
    if state.turnstile is not None:
        await state.turnstile.verify(body.gotrue_meta_security.captcha_token, action)


async def _by_password(request: Request, state: State, body: Grant) -> dict[str, Any]:
    await _person(request, state, body)
    email = body.email.strip().lower()
    found = await LocalRepository(state.database).find_user(email) if ADDRESS.fullmatch(email) else None
    kept = found["password_hash"] if found else None
    right = await asyncio.to_thread(is_password, body.password, kept or NO_PASSWORD)
    if found is None or not kept or not right:
        await state.limiter.failed(state.limiter.address(request), "password")
        raise ApiError(400, "Incorrect email or password.", "invalid_credentials")
    user: dict[str, Any] = found["user"]
    if not user["confirmed_at"]:
        raise ApiError(400, "The address is not confirmed yet: open the link in the message.", "email_not_confirmed")
    return user


async def _by_code(request: Request, state: State, body: Grant) -> dict[str, Any]:
    """The user of a code, which only the browser that asked for the link can use."""
    address = state.limiter.address(request)
    await state.limiter.may_try(address, "password")
    used = await LocalRepository(state.database).use_code(token_hash(body.auth_code))
    if used is None or used["challenge"] is None or not meets(body.code_verifier, used["challenge"]):
        await state.limiter.failed(address, "password")
        raise ApiError(403, "The link signs in the browser that asked for it, once; request a new one.", "bad_code_verifier")
    return used["user"]


async def _of_link(request: Request, state: State, purpose: str, token: str) -> Used:
    address = state.limiter.address(request)
    await state.limiter.may_try(address, "password")
    for kind in ("magiclink", "signup") if purpose == "email" else (purpose,):
        used = await LocalRepository(state.database).use_token(kind, token_hash(token))
        if used is not None:
            return used
    await state.limiter.failed(address, "password")
    raise ApiError(403, "The link has been used or has expired; request a new one.", "otp_expired")


async def _still(caller: tuple[str, str], state: State) -> dict[str, Any]:
    user = await LocalRepository(state.database).session_user(*caller)
    if user is None:
        raise ApiError(403, "The session has ended; sign in again.", "session_not_found")
    return user
