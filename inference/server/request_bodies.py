"""Parses request bodies as JSON or msgpack, where FastAPI reads JSON only."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Annotated, Any, TypeVar

import ormsgpack
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema, model_validator

from inference.errors import RequestError

MSGPACK = "application/msgpack"
Body = TypeVar("Body", bound=BaseModel)


def _bytes(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


Bytes = Annotated[bytes, BeforeValidator(_bytes), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
"""Raw bytes in msgpack, base64 in JSON."""


class Lenient(BaseModel):
    """Unknown fields are ignored, and null means the default."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data


async def read(request: Request, model: type[Body]) -> Body:
    """Read a body as msgpack or JSON, according to its Content-Type. Raises RequestValidationError, RequestError."""
    packed = request.headers.get("content-type", "").partition(";")[0].strip() == MSGPACK
    content = await request.body()
    return await asyncio.to_thread(lambda: validated(model, unpacked(content) if packed else _json(content)))  # it may be large


def validated(model: type[Body], data: Any) -> Body:
    """Validate `data` against the model. Raises RequestValidationError."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        raise RequestValidationError(e.errors()) from None


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise RequestError("the request body is not valid JSON; for msgpack send Content-Type: application/msgpack") from None


def unpacked(content: bytes) -> Any:
    """Decode msgpack. Raises RequestError."""
    try:
        return ormsgpack.unpackb(content, option=ormsgpack.OPT_NON_STR_KEYS)
    except ValueError:
        raise RequestError("what was sent is not valid msgpack") from None


def accepts(model: type[BaseModel], *, form: bool = False) -> dict[str, Any]:
    """The OpenAPI description of a body that the route parses itself. `form`: clients may also send it as a form with a file."""
    schema = {"schema": model.model_json_schema()}
    content = {"application/json": schema, MSGPACK: schema}
    if form:
        fields = {name: {"type": "string"} | ({"format": "binary"} if name == "audio" else {}) for name in model.model_fields}
        content["multipart/form-data"] = {"schema": {"type": "object", "required": list(fields), "properties": fields}}
    return {"requestBody": {"required": True, "content": content}}
