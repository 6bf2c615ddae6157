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
MAX_PACKED_VALUES = 10_000
"""Values in a msgpack body or message, each of which becomes an object."""
_PARSING = asyncio.Semaphore(2)
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


async def read(request: Request, model: type[Body], most: int = MAX_PACKED_VALUES) -> Body:
    """Read a body as msgpack, of at most `most` values, or as JSON, according to its Content-Type. Raises RequestValidationError, RequestError."""
    packed = request.headers.get("content-type", "").partition(";")[0].strip() == MSGPACK
    content = await request.body()
    async with _PARSING:  # a body may be large: other requests must not wait, and outgoing audio uses the same threads
        return await asyncio.to_thread(lambda: validated(model, unpacked(content, most) if packed else _json(content)))


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


def unpacked(content: bytes, most: int = MAX_PACKED_VALUES) -> Any:
    """Decode msgpack of at most `most` values. Raises RequestError."""
    try:
        if _values(content, most) > most:
            raise RequestError(f"what was sent holds more than {most:,} values")
        return ormsgpack.unpackb(content, option=ormsgpack.OPT_NON_STR_KEYS)
    except (ValueError, IndexError):
        raise RequestError("what was sent is not valid msgpack") from None


_LENGTH_BYTES = {
    0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
}  # fmt: skip
"""How many bytes say the length of binary data, extensions, strings, arrays and maps (msgpack's specification, "Formats")."""
_VALUE_BYTES = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
"""How many bytes numbers and extensions of a fixed length have."""


def _values(content: bytes, most: int) -> int:
    """How many values msgpack holds, counted to `most` and no further, without making them. Raises IndexError when it ends too early."""
    at, left, found = 0, 1, 0
    while left and found <= most:
        kind = content[at]
        at, left, found = at + 1, left - 1, found + 1
        if 0x80 <= kind < 0x90:
            left += 2 * (kind & 15)
        elif 0x90 <= kind < 0xA0:
            left += kind & 15
        elif 0xA0 <= kind < 0xC0:
            at += kind & 31
        elif kind in _LENGTH_BYTES:
            length = int.from_bytes(content[at : at + _LENGTH_BYTES[kind]])
            at += _LENGTH_BYTES[kind]
            if kind >= 0xDC:
                left += length if kind < 0xDE else 2 * length
            else:
                at += length + (0xC7 <= kind <= 0xC9)
        else:
            at += _VALUE_BYTES.get(kind, 0)
    return found


def accepts(model: type[BaseModel], *, form: bool = False) -> dict[str, Any]:
    """The OpenAPI description of a body that the route parses itself. `form`: clients may also send it as a form with a file."""
    schema = {"schema": model.model_json_schema()}
    content = {"application/json": schema, MSGPACK: schema}
    if form:
        fields = {name: {"type": "string"} | ({"format": "binary"} if name == "audio" else {}) for name in model.model_fields}
        content["multipart/form-data"] = {"schema": {"type": "object", "required": list(fields), "properties": fields}}
    return {"requestBody": {"required": True, "content": content}}
