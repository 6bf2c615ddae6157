"""The API on a real port, and small stand-ins for the services it asks: they answer what they are told to, and remember what they were asked."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import httpx
import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec

from saas import create_app
from saas.settings import Settings
from tests.saas.conftest import Migrated
from tests.waiting import HANG_SECONDS

NOWHERE = "http://127.0.0.1:9"


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class StandIn:
    """A service: `answer` says what comes back, a status and bytes or something to be sent as JSON."""

    answer: Callable[[Asked], tuple[int, Any]]
    asked: list[Asked] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    @contextmanager
    def running(self) -> Iterator["StandIn"]:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                standin.asked.append(asked)
                status, content = standin.answer(asked)
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                for name, value in standin.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_DELETE = do_POST  # noqa: N815 - the base class's names

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


class Issuer:
    """Signs sessions as Supabase does, and shows its public keys."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.add("first")
        self.settings = {"mailer_autoconfirm": False, "external": {"email": True, "anonymous_users": False}}
        self.service = StandIn(
            lambda asked: (200, self.settings if asked.path.endswith("/settings") else {"keys": [self.public(kid) for kid in self.keys]})
        )

    def add(self, kid: str) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def public(self, kid: str) -> dict[str, Any]:
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.keys[kid].public_key()))
        return jwk | {"kid": kid, "alg": "ES256", "use": "sig"}

    @property
    def url(self) -> str:
        return f"{self.service.url}/auth/v1"

    def claims(self, user: UUID | str, **changed: Any) -> dict[str, Any]:
        return {
            "sub": str(user), "aud": "authenticated", "iss": self.url, "role": "authenticated", "email": "user@example.com",
            "exp": int(time.time()) + 3600,
        } | changed  # fmt: skip

    def token(self, user: UUID | str, *, kid: str = "first", key: Any = None, algorithm: str = "ES256", **changed: Any) -> str:
        claims = {name: value for name, value in self.claims(user, **changed).items() if value is not None}
        return jwt.encode(claims, key or self.keys[kid], algorithm, headers={"kid": kid})


@dataclass
class Api:
    """A running API, its database and who signs its sessions."""

    url: str
    database: Migrated
    issuer: Issuer

    def as_user(self, user: UUID) -> httpx.Client:
        return self.with_key(self.issuer.token(user))

    def with_key(self, key: str, **headers: str) -> httpx.Client:
        """Plain HTTP: to read no certificates saves most of the time that a client takes to be made."""
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"} | headers, timeout=HANG_SECONDS, verify=False)

    def new_key(self, user: UUID, *scopes: str) -> str:
        """A key made as the app makes it."""
        with self.as_user(user) as client:
            answer = client.post("/api/keys", json={"name": "a key", "scopes": list(scopes or ("speak", "read"))})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret"])


@contextmanager
def running(database: Migrated, **settings: Any) -> Iterator[Api]:
    """The API with those settings; what it does not need is nowhere."""
    issuer = Issuer()
    with issuer.service.running():
        given = {
            "environment": "development", "supabase_url": issuer.service.url, "database_url": database.url, "r2_endpoint": NOWHERE,
            "r2_access_key_id": "a", "r2_secret_access_key": "b", "r2_bucket_name": "c", "fishserve_url": NOWHERE,
        } | settings  # fmt: skip
        with serving(create_app(Settings(**given))) as url:
            yield Api(url, database, issuer)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """An ASGI app on a free port, in a thread."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, proxy_headers=False))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the API did not start"
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
