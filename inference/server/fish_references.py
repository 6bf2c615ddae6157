"""The routes of Fish's self-hosted server that add, list, rename and delete voices."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from inference.errors import RequestError
from inference.server.request_bodies import Bytes, Lenient, accepts, read, validated
from inference.server.state import AppState

PATHS = ("/v1/references/",)
"""Paths whose errors use the format of Fish's self-hosted server."""
router = APIRouter(prefix="/v1/references", tags=["voices"])


class AddBody(Lenient):
    """A new voice: its name, a clip and the clip's transcript."""

    id: str
    audio: Bytes
    text: str


class DeleteBody(Lenient):
    """The voice to delete."""

    reference_id: str


class UpdateBody(Lenient):
    """A voice's name, and its new name."""

    old_reference_id: str
    new_reference_id: str


@router.post("/add", openapi_extra=accepts(AddBody, form=True))
async def add(request: Request, state: AppState) -> dict[str, Any]:
    """Add a voice from a clip of 1 to 90 s, in any format, and its transcript."""
    body = await _form(request) if "form" in request.headers.get("content-type", "") else await read(request, AddBody)
    await state.references.add(body.id, body.audio, body.text)
    return {"success": True, "message": f"{body.id} was added", "reference_id": body.id}


@router.get("/list")
async def names(state: AppState) -> dict[str, Any]:
    """The names of all voices."""
    found = state.voices.names()
    return {"success": True, "reference_ids": found, "message": f"{len(found)} voices"}


@router.delete("/delete", openapi_extra=accepts(DeleteBody))
async def delete(request: Request, state: AppState) -> dict[str, Any]:
    """Delete a voice."""
    name = (await read(request, DeleteBody)).reference_id
    await asyncio.to_thread(state.voices.delete, name)
    return {"success": True, "message": f"{name} was deleted", "reference_id": name}


@router.post("/update", openapi_extra=accepts(UpdateBody))
async def update(request: Request, state: AppState) -> dict[str, Any]:
    """Rename a voice."""
    body = await read(request, UpdateBody)
    await asyncio.to_thread(state.voices.rename, body.old_reference_id, body.new_reference_id)
    names = {"old_reference_id": body.old_reference_id, "new_reference_id": body.new_reference_id}
    return {"success": True, "message": f"{body.old_reference_id} is now {body.new_reference_id}", **names}


def error(status: int, message: str, headers: dict[str, str] | None) -> JSONResponse:
    """An error in the format of Fish's self-hosted server."""
    return JSONResponse({"success": False, "message": message}, status, headers)


async def _form(request: Request) -> AddBody:
    async with request.form(max_files=1) as form:
        fields: dict[str, Any] = dict(form)
        if not isinstance(fields.get("audio"), UploadFile):
            raise RequestError("audio is missing, or is not a file", "audio")
        return validated(AddBody, fields | {"audio": await fields["audio"].read()})
