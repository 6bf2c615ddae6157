"""sql/tests, by pg_prove: every table's policies as a stranger, its owner, another user and the service, and every function's grants."""

import os
import subprocess

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from saas.schema import SQL
from tests.waiting import HANG_SECONDS

FILES = sorted((SQL / "tests").glob("*.sql"))
pytestmark = [
    pytest.mark.system("/usr/bin/pg_prove", "libtap-parser-sourcehandler-pgtap-perl"),
    pytest.mark.system("/usr/share/postgresql/15/extension/pgtap.control", "postgresql-15-pgtap"),
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pgtap(pgtap_url, file):
    where = conninfo_to_dict(pgtap_url)
    there = {
        f"PG{name.upper()}": str(where[key])
        for name, key in [("host", "host"), ("port", "port"), ("user", "user"), ("database", "dbname")]
        if key in where
    }
    command = ["pg_prove", "--verbose", file]
    done = subprocess.run(command, env=os.environ | there, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_table_has_a_file(pgtap_url):
    with psycopg.connect(pgtap_url) as connection:
        tables = {name for (name,) in connection.execute("select tablename from pg_tables where schemaname = 'public'")}
    assert tables <= {file.stem for file in FILES}
