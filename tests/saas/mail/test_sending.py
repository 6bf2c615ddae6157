"""Mail on its way: a real SMTP server on this machine, the real outbox, and servers that refuse, hang or are gone."""

import asyncio
import contextlib
import email
import email.policy
import logging
import socket
import ssl
import threading
from functools import partial

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from saas.mail import service, transport
from saas.mail.messages import compose
from saas.mail.service import Mails
from saas.mail.transport import MailRefused, Smtp
from saas.postgres import PostgresDatabase
from saas.settings import Settings
from tests.certificates import self_signed
from tests.saas.conftest import free_port
from tests.saas.mail.test_messages import DATA, GIVEN
from tests.waiting import HANG_SECONDS, wait

# aiosmtpd warns where a password may be sent without TLS, and that is how it is asked here
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")


class Inbox:
    """Takes all messages, or answers what it is told to."""

    def __init__(self):
        self.messages, self.answer, self.recipient, self.logins = [], "250 OK", "250 OK", []

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802, ARG002 - aiosmtpd's names
        envelope.rcpt_tos.append(address)
        return self.recipient

    async def handle_DATA(self, server, session, envelope):  # noqa: N802, ARG002
        if self.answer.startswith("250"):
            self.messages.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return self.answer

    def authenticate(self, server, session, envelope, mechanism, data):  # noqa: ARG002
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=data.password == b"s/cret")


@contextlib.contextmanager
def listening(host="127.0.0.1", **options):
    inbox = Inbox()
    given = {"authenticator": inbox.authenticate, "auth_require_tls": False, "ready_timeout": HANG_SECONDS} | options
    controller = Controller(inbox, hostname=host, port=free_port(), **given)
    controller.start()
    try:
        inbox.where = f"{host}:{controller.port}"
        yield inbox
    finally:
        controller.stop()


@pytest.fixture
def inbox():
    with listening() as inbox:
        yield inbox


@contextlib.contextmanager
def sending(database, **settings):
    """A process's mail, in a thread."""
    given = {"environment": "development", "supabase_url": "http://127.0.0.1", "mail_from": "Speech <no-reply@example.com>"} | settings
    over, loop = asyncio.Event(), asyncio.new_event_loop()

    async def send():
        store = PostgresDatabase(database.url)
        running = asyncio.create_task(Mails(Settings(**given), store).run())
        await over.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(send(),))
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


@pytest.fixture(name="database")
def _database(data, monkeypatch):
    """The module's database, with nothing to send, that is looked at all the time."""
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.02)
    data.sql("delete from mails; delete from api_keys")
    return data


def new_key(database, name="laptop"):
    who = database.user()
    database.sql("delete from mails")
    database.call("create_api_key", user_id=who, name=name, prefix="0123456789ab", hash="0" * 64, scopes=["speak"])
    return who


def left(database):
    return database.sql("select * from mails")


def test_a_message_arrives_and_leaves_the_outbox(database, inbox):
    who = new_key(database)
    with sending(database, smtp_url=f"smtp://me:s%2Fcret@{inbox.where}"):
        wait(lambda: not left(database))
    (message,) = inbox.messages
    assert (message["To"], message["From"]) == (f"{who.hex}@example.com", "Speech <no-reply@example.com>")
    assert message["Subject"] == "A new API key: laptop"
    assert inbox.logins == [("me", "s/cret")]


@pytest.mark.parametrize(
    ("given", "to"), [({"operator_email": "The boss <boss@example.com>"}, "boss@example.com"), ({}, "no-reply@example.com")]
)
def test_the_operator_s_mail_goes_to_the_operator(database, inbox, given, to):
    database.sql(
        """insert into mails (kind, data) values ('dispute', '{"reference": "pi_0", "dispute": "dp_1", "cents": 100, "user_id": null}')"""
    )
    with sending(database, smtp_url=f"smtp://{inbox.where}", **given):
        wait(lambda: not left(database))
    assert [message["To"] for message in inbox.messages] == [to]


def tried(database):
    """The one message, once it was tried and waits for the next attempt."""
    return wait(lambda: database.sql("select * from mails where attempts = 1 and next_at < now() + interval '1 minute'"))


@pytest.mark.parametrize("answer", ["451 try again ann@example.com", "554 you are a spammer"])
def test_a_refused_message_is_kept_and_sent_later(database, inbox, answer, caplog):
    new_key(database)
    inbox.answer = answer
    with sending(database, smtp_url=f"smtp://{inbox.where}"):
        tried(database)
        inbox.answer = "250 OK"
        database.sql("update mails set next_at = now()")
        wait(lambda: not left(database))
    assert len(inbox.messages) == 1
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING and record.name == "saas.mail.service"]
    assert line == f"a key_created message is tried again later: the server answered {answer[:3]}"


def test_a_mailbox_that_does_not_exist_is_given_up(database, inbox, caplog):
    new_key(database)
    inbox.recipient = "550 no such mailbox"
    with sending(database, smtp_url=f"smtp://{inbox.where}"):
        wait(lambda: not left(database))
    assert inbox.messages == []
    assert "a key_created message is given up: the server refuses the recipient (550)" in caplog.text


def test_a_dead_server_loses_and_blocks_nothing(database, inbox):
    new_key(database)
    with sending(database, smtp_url=f"smtp://127.0.0.1:{free_port()}"):
        tried(database)
    database.sql("update mails set next_at = now()")
    with sending(database, smtp_url=f"smtp://{inbox.where}"):
        wait(lambda: not left(database))
    assert len(inbox.messages) == 1


def test_a_server_that_says_nothing_is_left(monkeypatch):
    monkeypatch.setattr(transport, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(MailRefused, match="the server cannot be used") as e:
        send(Smtp(f"smtp://127.0.0.1:{silent.getsockname()[1]}"))
    assert not e.value.final


def send(where):
    where.send(compose("credits_low", DATA["credits_low"], to="ann@example.com", **GIVEN))


def test_another_machine_is_spoken_to_by_tls_alone():
    with listening("127.0.0.2") as inbox:
        with pytest.raises(MailRefused, match="SMTPNotSupportedError"):
            send(Smtp(f"smtp://me:s%2Fcret@{inbox.where}"))
        assert inbox.logins == []
        assert inbox.messages == []


def test_a_certificate_must_be_good(monkeypatch, tmp_path):
    pem = self_signed(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with listening(ssl_context=context) as inbox:
        port = inbox.where.partition(":")[2]
        with pytest.raises(MailRefused, match="SSLCertVerificationError"):
            send(Smtp(f"smtps://localhost:{port}"))
        monkeypatch.setattr(ssl, "create_default_context", partial(ssl.create_default_context, cafile=str(pem)))
        send(Smtp(f"smtps://localhost:{port}"))
        with pytest.raises(MailRefused, match="SSLCertVerificationError"):
            send(Smtp(f"smtps://127.0.0.1:{port}"))
    assert len(inbox.messages) == 1


def test_embedded_mode_writes_files(database, tmp_path):
    who = new_key(database, "<b>&")
    with sending(database, environment="embedded", directory=tmp_path):
        wait(lambda: not left(database))
    (file,) = (tmp_path / "mail").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    message = email.message_from_bytes(file.read_bytes(), policy=email.policy.default)
    assert message["To"] == f"{who.hex}@example.com"
    assert "&lt;b&gt;&amp;" in message.get_body(["html"]).get_content()


def test_without_a_way_to_send_nothing_is_claimed(database):
    new_key(database)
    database.sql("insert into mails (kind, created_at) values ('dispute', now() - interval '5 days')")
    with sending(database):
        (row,) = wait(lambda: len(found := left(database)) == 1 and found)
    assert (row["kind"], row["attempts"]) == ("key_created", 0)
