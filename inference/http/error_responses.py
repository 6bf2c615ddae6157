"""Error responses: OpenAI's format, and pydantic's findings as one sentence. Independent of the engine."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse


def error(
    status: int, message: str, param: str | None = None, headers: dict[str, str] | None = None, code: str | None = None
) -> JSONResponse:
    """An error in OpenAI's format."""
    kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(status)
    kind = kind or ("invalid_request_error" if status < 500 else "server_error")
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


def complaint(error: Any) -> tuple[str, str | None]:
    """One of pydantic's errors as a sentence, and the field at fault."""
    where = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    if error["type"] == "model_attributes_type" and not where:
        return "the request body is not a JSON object; send one, with Content-Type: application/json", None
    if error["type"] == "json_invalid":
        return "the request body is not valid JSON", None
    given = error["input"]
    # Name only the type of a value that may be large: formatting it would take time in proportion to its size.
    shown = repr(str(given)[:80]) if given is None or isinstance(given, str | int | float) else f"a {type(given).__name__}"
    value = "" if error["type"] == "missing" or not where else f" is {shown}"
    wrong = "Input should be an object" if error["type"] in ("model_attributes_type", "model_type") else error["msg"]
    return f"{'.'.join(where) or 'the request body'}{value}: {wrong}", where[0] if where else None
