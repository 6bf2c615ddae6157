"""The database's functions about jobs, with the types of what they take and return."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypedDict

from saas.database import Database


class VoiceRow(TypedDict):
    """The voice of a claimed job."""

    object_key: str
    sha256: str | None
    transcript: str


class JobRow(TypedDict):
    """A job. Numbers and addresses of the result are None until it has succeeded."""

    id: str
    user_id: str
    api_key_id: str | None
    idempotency_key: str
    text: str | None
    voice_id: str | None
    options: dict[str, Any]
    status: str
    attempts: int
    backend: str | None
    backend_id: str | None
    started_at: str
    object_key: str | None
    seconds: float | None
    frames: int | None
    bytes: int | None
    sha256: str | None
    error: str | None
    charged: int
    partial: bool


class ClaimedRow(JobRow):
    """A job that this process has claimed, with its voice if it names one that is ready.

    `budget_seconds`: the seconds of audio that its reservation buys, None where audio costs nothing.
    """

    voice: VoiceRow | None
    budget_seconds: float | None


class Taken(TypedDict):
    """A submitted job. `replayed` when its idempotency key was used before; `claimed` if it was claimed at once."""

    job: JobRow
    replayed: bool
    balance: int
    voice: VoiceRow | None
    claimed: ClaimedRow | None


class Changed(TypedDict):
    """A job after a call, and whether the call changed it."""

    job: JobRow
    changed: bool


class JobRepository:
    """Each method is one transaction. All raise Refused and Unavailable.

    One class, since each is a call of one function about jobs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def submit(
        self, *, user_id: str, api_key_id: str | None, idempotency_key: str, fingerprint: str, text: str, voice_id: str | None,
        options: dict[str, Any], token_hash: str, letters: float, silence: float, lease_seconds: int,
    ) -> Taken:  # fmt: skip
        """Reserve the credits and queue the job, or return the job of this idempotency key. With a lease, claim it in the same transaction.

        Raises Refused 429 above the user's limit.
        """
        taken: Taken = await self._database.call(
            "request_speech", user_id=user_id, idempotency_key=idempotency_key, fingerprint=fingerprint, text=text, voice_id=voice_id,
            options=options, api_key_id=api_key_id, token_hash=token_hash, letters=letters, silence=silence, lease_seconds=lease_seconds,
        )  # fmt: skip
        return taken

    async def give_up(self, user_id: str, idempotency_key: str) -> JobRow | None:
        """End the job of a request whose answer was lost, without a cost. Returns it, None where there is none."""
        answer = await self._database.call("give_up_request", user_id=user_id, idempotency_key=idempotency_key)
        row: JobRow | None = answer["job"]
        return row

    async def get(self, user_id: str, job_id: str) -> JobRow:
        """A user's job."""
        row: JobRow = await self._database.call("get_job", user_id=user_id, job_id=job_id)
        return row

    async def of_user(self, user_id: str, before: datetime | None, limit: int, search: str | None) -> list[JobRow]:
        """A user's jobs, the newest first."""
        at = before.isoformat() if before else None
        rows: list[JobRow] = await self._database.call("list_jobs", user_id=user_id, before=at, limit=limit, search=search)
        return rows

    async def cancel(self, user_id: str, job_id: str, seconds: float) -> Changed:
        """Cancel a job that has not ended. It costs what was made: `seconds` of audio, or more where another process has told of more."""
        changed: Changed = await self._database.call("cancel_job", user_id=user_id, job_id=job_id, seconds=seconds)
        return changed

    async def delete(self, user_id: str, job_id: str) -> str | None:
        """Delete a job that has ended. Returns the key of its result, if it had one."""
        gone = await self._database.call("delete_job", user_id=user_id, job_id=job_id)
        key: str | None = gone["object_key"]
        return key

    async def claim_due(self, limit: int, lease_seconds: int) -> list[ClaimedRow]:
        """Claim jobs that no process works on: users take turns."""
        rows: list[ClaimedRow] = await self._database.call("claim_jobs", limit=limit, lease_seconds=lease_seconds)
        return rows

    async def start(self, job_id: str, backend: str, *, backend_id: str | None = None, heard: bool = False) -> JobRow:
        """Record that a backend has the job. `heard`: a client is listening. Raises Refused 409 when the job has ended."""
        row: JobRow = await self._database.call("start_job", job_id=job_id, backend=backend, backend_id=backend_id, heard=heard)
        return row

    async def renew_lease(self, job_id: str, lease_seconds: int, seconds: float = 0) -> bool:
        """Keep a job for this process, which has made so many seconds of audio. False when the job has ended."""
        answer = await self._database.call("renew_lease", job_id=job_id, lease_seconds=lease_seconds, seconds=seconds)
        return bool(answer["renewed"])

    async def settle(
        self, job_id: str, object_key: str, *, seconds: float, frames: int, bytes: int, sha256: str, partial: bool
    ) -> None:  # fmt: skip
        """Charge a job for its result."""
        await self._database.call(
            "settle_job", job_id=job_id, object_key=object_key, seconds=seconds, frames=frames, bytes=bytes, sha256=sha256, partial=partial
        )

    async def refund(self, job_id: str, status: str, error: str, seconds: float) -> JobRow:
        """End a job without a result; its client pays for what it has heard, `seconds` or more. Returns the job, which may have been settled."""
        answer: Changed = await self._database.call("refund_job", job_id=job_id, status=status, error=error, seconds=seconds)
        return answer["job"]

    async def of_token(self, job_id: str, token_hash: str) -> JobRow:
        """The job whose webhook carries this token. Raises Refused 404."""
        row: JobRow = await self._database.call("job_of_token", job_id=job_id, token_hash=token_hash)
        return row

    async def running(self, limit: int, skip: list[str]) -> list[JobRow]:
        """Jobs that a backend has, those checked longest ago first, without those in `skip`."""
        rows: list[JobRow] = await self._database.call("running_jobs", limit=limit, skip=skip)
        return rows

    async def expire_reservations(self, older_than_seconds: int) -> list[JobRow]:
        """Refund forgotten jobs, and return them."""
        rows: list[JobRow] = await self._database.call("expire_reservations", older_than_seconds=older_than_seconds)
        return rows

    async def expire_results(self) -> None:
        """Put expired results on the list of objects to delete."""
        await self._database.call("expire_results")

    async def expire_texts(self) -> int:
        """Delete the texts of jobs that ended long ago. Returns how many, at most 1000."""
        answer = await self._database.call("expire_texts")
        return int(answer["expired"])

    async def objects_to_delete(self, limit: int) -> list[str]:
        """Keys of objects whose rows are gone."""
        keys: list[str] = await self._database.call("objects_to_delete", limit=limit)
        return keys

    async def put_off_object(self, key: str, error: Exception) -> None:
        """Try to delete an object later: it failed."""
        await self._database.call("put_off", kind="object", item=key, error=type(error).__name__)

    async def object_deleted(self, key: str) -> None:
        """Take a key off that list."""
        await self._database.call("object_deleted", key=key)
