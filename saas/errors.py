"""Error answers of the API: in OpenAI's format, with a sentence for people and never a traceback."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from inference.errors import AudioError, FishserveError, Overloaded, RequestError
from inference.http.error_responses import complaint, error
from saas.database import Refused, Unavailable

BUSY = "the database cannot be reached just now; try again in a few seconds"


class Complaint(BaseModel):
    """What was wrong: a sentence for people, and codes for programs."""

    message: str
    type: str
    code: str | None
    param: str | None


class Problem(BaseModel):
    """The body of every answer that is not 2xx."""

    error: Complaint


ANSWERS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": Problem,
        "description": "The request is invalid, not allowed or names something that does not exist; or there were too many requests.",
    },
    "503": {
        "model": Problem,
        "description": "A service that the API needs does not answer now. The message says what is known of the request.",
    },
}
"""The OpenAPI descriptions of error answers."""


class ApiError(FishserveError):
    """A request cannot be answered. `code` is for programs, `param` the field at fault; `headers` go with the answer."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.headers = status, code, param, headers


def refusal(path: str, status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:  # noqa: ARG001
    """An error in the middlewares' format."""
    return error(status, message, headers=headers)


def register(app: FastAPI) -> None:
    """Register handlers that return every error in this format."""

    @app.exception_handler(ApiError)
    async def api(_: Request, e: ApiError) -> JSONResponse:
        return error(e.status, str(e), e.param, e.headers, e.code)

    @app.exception_handler(Refused)
    async def refused(_: Request, e: Refused) -> JSONResponse:
        headers = {"Retry-After": "10"} if e.status == 429 else None
        return error(e.status, e.message, headers=headers, code={402: "insufficient_credits", 429: "too_many_jobs"}.get(e.status))

    @app.exception_handler(Unavailable)
    async def unavailable(_: Request, __: Unavailable) -> JSONResponse:
        return error(503, BUSY, headers={"Retry-After": "5"}, code="unavailable")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, e: RequestValidationError) -> JSONResponse:
        message, param = complaint(e.errors()[0])
        return error(400, message, param)

    @app.exception_handler(HTTPException)
    async def http(_: Request, e: HTTPException) -> JSONResponse:
        return error(e.status_code, str(e.detail), headers=dict(e.headers) if e.headers else None)

    @app.exception_handler(FishserveError)
    async def ours(_: Request, e: FishserveError) -> JSONResponse:
        if isinstance(e, RequestError | AudioError):
            return error(400, str(e), e.param)
        if isinstance(e, Overloaded):
            return error(429, str(e), headers={"Retry-After": str(max(1, round(e.retry_after)))})
        return error(503, str(e), headers={"Retry-After": "5"})
