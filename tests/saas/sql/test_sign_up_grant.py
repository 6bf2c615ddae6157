"""The credits of a new account: once for each address, for ever, and only when the address is confirmed."""

from uuid import uuid4

import pytest

from saas import schema
from tests.saas.conftest import Migrated


@pytest.fixture
def granting(database):
    database.sql("update settings set grant_on_sign_up = 500")
    return database


def signed_up(database, email, confirmed=True):
    who = uuid4()
    database.sql(
        "insert into auth.users (id, email, email_confirmed_at) values (%s, %s, case when %s then now() end)", who, email, confirmed
    )
    return who


def balance(database, who):
    return database.call("get_profile", user_id=who)["balance"]


def test_credits_come_with_the_confirmation_and_once(granting):
    who = signed_up(granting, "ann@example.com", confirmed=False)
    assert balance(granting, who) == 0
    for _ in range(2):
        granting.sql("update auth.users set email_confirmed_at = now() where id = %s", who)
        assert balance(granting, who) == 500
        granting.sql("update auth.users set email_confirmed_at = null where id = %s", who)


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("ann@example.com", "ann@example.com"), ("ann@example.com", " ANN@Example.COM"), ("ann@example.com", "ann+2@example.com"),
        ("an.n@gmail.com", "ann+x@googlemail.com"),
    ],
)  # fmt: skip
def test_an_account_that_is_closed_and_opened_again_gets_none(granting, first, again):
    who = signed_up(granting, first)
    assert balance(granting, who) == 500
    granting.call("close_account", user_id=who)
    assert balance(granting, signed_up(granting, again)) == 0
    assert balance(granting, signed_up(granting, "another@example.com")) == 500
    assert granting.call("audit_ledger") == []


def test_no_address_is_kept_that_could_be_read(granting):
    who = signed_up(granting, "ann@example.com")
    granting.call("close_account", user_id=who)
    (row,) = granting.sql("select * from fishserve.granted_addresses")
    assert len(row["hash"]) == 64
    assert "ann" not in str(row)


def test_an_anonymous_user_gets_none(granting):
    """Supabase has the column; a PostgreSQL of one's own has no such users."""
    granting.sql("alter table auth.users add column is_anonymous boolean not null default false")
    who = uuid4()
    granting.sql("insert into auth.users (id, email, email_confirmed_at, is_anonymous) values (%s, 'a@example.com', now(), true)", who)
    assert balance(granting, who) == 0
    nobody = uuid4()
    granting.sql("insert into auth.users (id, email_confirmed_at) values (%s, now())", nobody)
    assert balance(granting, nobody) == 0


def test_who_changes_the_address_gets_none_for_the_new_one(granting):
    who = signed_up(granting, "ann@example.com")
    granting.sql("update auth.users set email = 'new@example.com', email_confirmed_at = null where id = %s", who)
    granting.sql("update auth.users set email_confirmed_at = now() where id = %s", who)
    assert balance(granting, who) == 500


def test_a_confirmation_survives_whatever_is_broken_here(granting):
    who = signed_up(granting, "ann@example.com", confirmed=False)
    granting.sql("alter table settings rename to gone")
    granting.sql("update auth.users set email_confirmed_at = now() where id = %s", who)
    granting.sql("alter table gone rename to settings")
    assert granting.sql("select email_confirmed_at is not null as confirmed from auth.users where id = %s", who) == [{"confirmed": True}]


def test_addresses_that_had_the_credits_before_this_was_kept_get_none_again(postgres, monkeypatch):
    """The migration, on a database that was in use."""
    files = schema.migrations()
    old = [file for file in files if file.stem < "20261126000400"]
    name = f"test_{uuid4().hex}"
    postgres.run(f"create database {name}")
    database = Migrated(postgres, name)
    with monkeypatch.context() as then:
        then.setattr(schema, "migrations", lambda: old)
        schema.migrate(database.owner_url)
    database.sql("update settings set grant_on_sign_up = 500")
    who = signed_up(database, "ann@example.com")
    assert balance(database, who) == 500
    schema.migrate(database.owner_url)
    database.call("close_account", user_id=who)
    assert balance(database, signed_up(database, "ann+again@example.com")) == 0
    postgres.run(f"drop database {name} with (force)")
