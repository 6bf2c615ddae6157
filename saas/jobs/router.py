"""The routes of jobs: create, show, cancel, delete; OpenAI's speech route; RunPod's webhook."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from inference.audio.encode import FORMATS
from inference.errors import FishserveError
from inference.text.dialogue import voice_names
from inference.voices.aliases import OPENAI_VOICES
from inference.voices.notice import MINNOW, PITCH_ONLY, VOICE_NOTICE
from saas.auth.caller import Caller
from saas.auth.dependencies import caller
from saas.credits.aloud import has_speech
from saas.database import Refused
from saas.errors import ApiError
from saas.jobs.backend import BackendUnavailable, JobRejected, LeftForLater
from saas.jobs.outcomes import RUNNING
from saas.jobs.repository import JobRow
from saas.jobs.schemas import JobOut, Model, Models, OpenAIBody, SpeechBody, WebhookBody
from saas.jobs.service import Jobs
from saas.limits.dependencies import limited
from saas.observability import metrics
from saas.state import AppState, State
from saas.storage.bucket import Download
from saas.voices.service import check_blocked

router = APIRouter(tags=["speech"])
SpeechCaller = Annotated[Caller, Depends(limited("speech", "speak"))]
Canceller = Annotated[Caller, Depends(caller("speak"))]
Reader = Annotated[Caller, Depends(caller("read"))]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,200}$")]
OPENAI_SECONDS = 280.0
"""How long OpenAI's route waits for a backend that returns only whole files."""
_LOOK = 0.5
"""Seconds between checks that the client is still connected."""


@router.post("/api/tts", responses={202: {"model": JobOut}})
async def speak(body: SpeechBody, caller: SpeechCaller, state: AppState, idempotency_key: Key = None) -> Response:
    """Speak a text. 200 with the result's URL if it is ready within `wait_seconds`; otherwise 202, and you can poll the job."""
    await _check(body.text, "text", caller, state)
    user, voice = str(caller.user_id), str(body.voice_id) if body.voice_id else None
    try:
        taken = await state.jobs.submit(user, _key_id(caller), idempotency_key, body.text, voice, body.options)
    except Refused as e:
        if e.status == 404 and voice is not None:
            await state.voices.not_ready(user, voice)
        raise
    row = taken["job"]
    if body.wait_seconds and row["status"] in RUNNING:
        row = await state.jobs.wait(user, row["id"], body.wait_seconds)
    answer = _answer(row, state.jobs, 202 if row["status"] in RUNNING else 200)
    answer.headers.update(_voice_notice(voice, state))
    return answer


@router.get("/api/jobs")
async def jobs(
    caller: Reader, state: AppState, before: datetime | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50,
    search: Annotated[str | None, Query(max_length=200)] = None,
) -> list[JobOut]:  # fmt: skip
    """Your jobs, the newest first, without result URLs. For the next page, set `before` to the created_at of the last job you have."""
    return [JobOut.model_validate(row) for row in await state.jobs.list(str(caller.user_id), before, limit, search)]


@router.get("/api/jobs/{job_id}")
async def job(job_id: UUID, caller: Reader, state: AppState) -> JobOut:
    """One job, with a new URL of its result."""
    return _out(await state.jobs.wait(str(caller.user_id), str(job_id), 0), state.jobs)


@router.post("/api/jobs/{job_id}/cancel")
async def cancel(job_id: UUID, caller: Canceller, state: AppState) -> JobOut:
    """Cancel a job and get its credits back, less the price of what was already spoken. A job that has ended stays as it is.

    A job that streams to a client cannot be cancelled; it ends when that client disconnects.
    """
    return _out(await state.jobs.cancel(str(caller.user_id), str(job_id)), state.jobs)


@router.delete("/api/jobs/{job_id}", status_code=204)
async def delete(job_id: UUID, caller: Canceller, state: AppState) -> None:
    """Delete a job's text and its result. A job that has not ended is cancelled first."""
    await state.jobs.delete(str(caller.user_id), str(job_id))


async def _after_answer() -> AsyncIterator[ExitStack]:
    """What is to be closed when the answer has been sent, or cannot be."""
    with ExitStack() as stack:
        yield stack


AfterAnswer = Annotated[ExitStack, Depends(_after_answer)]


@router.post("/v1/audio/speech", response_class=Response, responses={200: {"content": {f.media_type: {} for f in FORMATS.values()}}})
async def openai_speech(
    body: OpenAIBody, caller: SpeechCaller, state: AppState, request: Request, after: AfterAnswer, idempotency_key: Key = None
) -> Response:
    """Speak a text, for OpenAI's clients. The file is streamed as it is generated, if the backend can.

    If you disconnect during the stream, you pay for the audio generated so far, which is kept with the job.
    If you disconnect before it starts, you pay nothing. Repeated with the same Idempotency-Key, the answer is that part, marked `X-Partial: true`.
    """
    await _check(body.input, "input", caller, state)
    user = str(caller.user_id)
    voice = await _voice(body.voice if isinstance(body.voice, str) else body.voice.id, user, state)
    wanted = body.stream or body.stream_format == "sse"
    taken = await state.jobs.submit(user, _key_id(caller), idempotency_key, body.input, voice, body.options, listened=wanted)
    row = taken["job"]
    headers = {"X-Job-Id": row["id"], "X-Sample-Rate": str(body.options.rate), **_voice_notice(voice, state)}
    if taken["claimed"] is not None:
        stream = state.jobs.stream(taken["claimed"])
        after.callback(stream.close)
        if not await _unless_gone(stream.begin(), request, lambda: state.jobs.abandon(row["id"])):
            return Response(status_code=499)
        pieces, frames = aiter(stream), lambda: stream.frames
    else:
        if not await _unless_gone(state.jobs.wait(user, row["id"], OPENAI_SECONDS), request, lambda: state.jobs.cancel(user, row["id"])):
            return Response(status_code=499)
        row = await state.jobs.wait(user, row["id"], 0)
        download = await _download(row, state.jobs)
        after.callback(download.close)
        pieces, frames = aiter(download), lambda: row["frames"] or 0
        if body.stream_format == "audio":
            headers["Content-Length"] = str(download.bytes)
        if row["partial"]:
            headers["X-Partial"] = "true"
    if body.stream_format == "sse":
        return StreamingResponse(_events(pieces, len(body.input), frames), media_type="text/event-stream", headers=headers)
    return StreamingResponse(pieces, media_type=body.options.media_type, headers=headers)


@router.get("/v1/models")
async def models(state: AppState) -> Models:
    """The model in use. `POST /v1/audio/speech` accepts any name for it."""
    return Models(data=[Model(id=state.settings.model)])


@router.get("/v1/models/{model}")
async def model(model: str) -> Model:
    """The model in use, under the requested name: `POST /v1/audio/speech` accepts any name."""
    return Model(id=model)


@router.post("/api/webhook/runpod", include_in_schema=False)
async def runpod(
    body: WebhookBody, state: AppState, job: UUID, token: Annotated[str, Query(min_length=1, max_length=200)],
    mark: Annotated[str, Query(max_length=200)] = "",
) -> dict[str, bool]:  # fmt: skip
    """RunPod reports that a job has ended."""
    try:
        await state.jobs.webhook(str(job), token, mark, body.id)
    except Refused as e:
        if e.status == 404:
            metrics.WEBHOOKS.labels("runpod", "forged").inc()
        raise
    except BackendUnavailable as e:  # RunPod retries the webhook
        raise ApiError(503, str(e), headers={"Retry-After": "10"}) from None
    return {"ok": True}


def _voice_notice(voice: str | None, state: State) -> dict[str, str]:
    return {VOICE_NOTICE: PITCH_ONLY} if voice and state.settings.model == MINNOW else {}


def _key_id(caller: Caller) -> str | None:
    return str(caller.key_id) if caller.key_id else None


async def _check(text: str, param: str, caller: Caller, state: State) -> None:
    """What is asked before anything is reserved. Raises ApiError."""
    await state.legal.require(caller)
    _check_text(text, param, state)
    if state.moderation is not None:
        await state.moderation.check(text, param)


def _check_text(text: str, param: str, state: State) -> None:
    """Refuse what no backend speaks, before anything is reserved: a fishserve server would answer signs with silence, which has a price."""
    most = state.settings.max_characters
    if len(text) > most:
        raise ApiError(400, f"{param} has {len(text):,} characters; at most {most:,} are spoken in one request", "too_long", param)
    if any("\ud800" <= c <= "\udfff" or c == "\0" for c in text):
        raise ApiError(400, f"{param} holds what is no character of text: a NUL or half of a surrogate pair", "not_text", param)
    if names := voice_names(text):
        raise ApiError(
            400, f"{param} names the voice {names[0][:80]!r} in a mark; this service speaks each text with one voice", "one_voice", param
        )
    if not has_speech(text):
        raise ApiError(400, f"{param} has nothing to speak: no letter and no digit; nothing was charged", "nothing_to_speak", param)


def _out(row: JobRow, service: Jobs) -> JobOut:
    return JobOut.model_validate(row | {"url": service.url(row), "captions_url": service.captions_url(row)})


def _answer(row: JobRow, service: Jobs, status: int) -> JSONResponse:
    return JSONResponse(_out(row, service).model_dump(mode="json"), status, {"Location": f"/api/jobs/{row['id']}"})


async def _voice(asked: str, user_id: str, state: State) -> str | None:
    """The id of the voice with this id or name; None for the model's own voice. Raises ApiError."""
    if asked == "default":
        return None
    voices = await state.voices.list(user_id)
    rows = [row for row in voices if row["status"] == "ready"]
    for row in rows:
        if asked in (row["id"], row["name"]):
            return str(row["id"])
    for row in voices:
        if asked in (row["id"], row["name"]):
            check_blocked(row)
    if asked in OPENAI_VOICES:
        return None
    names = ", ".join(row["name"] for row in rows[:20]) or "none"
    raise ApiError(404, f"you have no voice {asked[:80]!r}; you have {names}", "voice_not_found", "voice")


async def _unless_gone(work: Any, request: Request, give_up: Callable[[], Awaitable[object]]) -> bool:
    """Wait for `work` before the answer begins. If the client disconnects first, call `give_up` and return False."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=_LOOK)
            if not task.done() and await request.is_disconnected():
                await give_up()
                return False
        task.result()
        return True
    except JobRejected as e:
        raise ApiError(400, str(e), "cannot_be_spoken", "input") from None
    except LeftForLater as e:
        raise ApiError(503, str(e), "unavailable", headers={"Retry-After": "5"}) from None
    except Refused:  # the job was cancelled meanwhile
        raise ApiError(409, "the job was cancelled", "cancelled") from None
    except FishserveError as e:
        raise ApiError(503, f"{e}; nothing was charged, try again", "unavailable", headers={"Retry-After": "5"}) from None
    finally:
        task.cancel()


async def _download(row: JobRow, service: Jobs) -> Download:
    """The file of a job. Raises ApiError that says why there is none."""
    if row["status"] == "succeeded":
        download = await service.result(row)
        if download is not None:
            return download
        raise ApiError(410, "the result of this job has been deleted", "gone")
    if row["status"] in RUNNING:
        raise ApiError(504, f"it is not ready yet; GET /api/jobs/{row['id']} says when it is", "not_ready")
    status = 409 if row["status"] == "cancelled" else 502
    cost = f"{row['charged']} credits were charged for what was spoken" if row["charged"] else "nothing was charged"
    raise ApiError(status, f"{row['error'] or 'it could not be spoken'}; {cost}", row["status"])


async def _events(pieces: AsyncIterator[bytes], characters: int, frames: Callable[[], int]) -> AsyncIterator[str]:
    """Server-sent events: the file in base64 pieces, then the numbers of characters spoken and frames generated."""
    async for piece in pieces:
        yield _event("speech.audio.delta", audio=base64.b64encode(piece).decode())
    spoken = frames()
    yield _event("speech.audio.done", usage={"input_tokens": characters, "output_tokens": spoken, "total_tokens": characters + spoken})


def _event(kind: str, **fields: Any) -> str:
    return f"data: {json.dumps({'type': kind, **fields})}\n\n"
