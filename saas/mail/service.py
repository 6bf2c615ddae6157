"""Mail: sends what the database's outbox holds. Processes share it; a message may be sent twice where a process dies in the middle."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parseaddr

from saas.database import Database, DatabaseError
from saas.jobs.loop import again, words
from saas.mail.messages import NAME, compose
from saas.mail.repository import Mail, MailRepository
from saas.mail.transport import Folder, MailRefused, Smtp, Transport
from saas.observability import metrics
from saas.settings import Settings

log = logging.getLogger(__name__)
LOOK_SECONDS = 5.0
LEASE_SECONDS = 600.0
"""How long a process owns a message: longer than an SMTP server may take over all its answers."""
EXPIRE_SECONDS = 600.0
AT_ONCE = 4


class Mails:
    """The mail of one process. `run` works until it is cancelled."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._mails, self._settings = MailRepository(database), settings
        self._transport = transport_of(settings)
        self._sender = settings.mail_from or f"{NAME} <{NAME}@localhost>"
        self._threads = ThreadPoolExecutor(AT_ONCE, "mail")  # an SMTP server that does not answer holds up nothing else
        for outcome in ("sent", "retried", "failed"):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.MAILS.labels(outcome)

    async def run(self) -> None:
        """Send what is due, where there is a way to, and forget what nobody has sent for days, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(again(self._expire, EXPIRE_SECONDS))
                if self._transport is not None:
                    group.create_task(again(self._send_due, 0))
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _send_due(self) -> None:
        mails = await self._mails.claim(AT_ONCE, LEASE_SECONDS)
        await asyncio.gather(*(self._send(mail) for mail in mails))
        if not mails:
            await asyncio.sleep(LOOK_SECONDS)

    async def _send(self, mail: Mail) -> None:
        error, final = await self._attempt(mail)
        try:
            left = await self._mails.end(mail["id"], mail["attempts"], error, final=final)
        except DatabaseError as e:  # its lease ends, and it is sent again
            log.warning("what came of a %s message could not be recorded: %s", mail["kind"], words(e))
            return
        metrics.MAILS.labels("sent" if error is None else "retried" if left else "failed").inc()
        if error is not None:
            log.warning("a %s message %s: %s", mail["kind"], "is tried again later" if left else "is given up", error)

    async def _attempt(self, mail: Mail) -> tuple[str | None, bool]:
        """Send a message. Returns what was wrong, None where nothing was, and whether that is final."""
        assert self._transport is not None
        operator = parseaddr(self._settings.operator_email or self._settings.mail_from)[1]
        to = mail["address"] or operator
        if not to:
            return "the operator has no address: set FISHSERVE_SAAS_OPERATOR_EMAIL", True
        try:
            message = compose(
                mail["kind"], mail["data"], sender=self._sender, to=to, reply_to=operator, app=self._settings.app, name=f"{mail['kind']}-{mail['id']}",
                written_at=datetime.fromisoformat(mail["created_at"]),
            )  # fmt: skip
        except (ValueError, KeyError) as e:  # an address that is none, or data of another revision
            return f"it cannot be written: {type(e).__name__}", True
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._transport.send, message)
        except MailRefused as e:
            return str(e), e.final
        return None, False

    async def _expire(self) -> None:
        expired = await self._mails.expire()
        if expired and self._transport is not None:
            log.warning("%d messages were not sent for days, and are given up", expired)


def transport_of(settings: Settings) -> Transport | None:
    """Where mail goes; None where it is not set up."""
    if settings.smtp_url:
        return Smtp(settings.smtp_url.get_secret_value())
    return Folder(settings.directory / "mail") if settings.environment == "embedded" else None
