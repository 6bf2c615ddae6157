"""`fishserve saas grant EMAIL CREDITS`."""

import asyncio

import pytest

from inference.errors import FishserveError, RequestError
from saas.admin.repository import Operator
from saas.grant import grant
from saas.settings import Settings
from tests.saas.api_harness import NOWHERE


@pytest.fixture(scope="module")
def database(postgres):
    return postgres.migrated()


def give(database, email, credits, reference=None, **more):
    return asyncio.run(grant(Settings(**{"database_url": database.url} | more), Operator("kim", "a test"), email, credits, reference))


def user(database, email):
    user_id = database.user()
    database.sql("update profiles set email = %s where id = %s", email, user_id)
    return user_id


def test_each_call_grants(database):
    user_id = user(database, "anna@example.com")
    assert give(database, "anna@example.com", 50) == (50, True)
    assert give(database, " Anna@Example.com", 25) == (75, True)
    assert [row["kind"] for row in database.sql("select kind from transactions where user_id = %s", user_id)] == ["grant", "grant"]


def test_a_reference_grants_once(database):
    user(database, "bob@example.com")
    assert give(database, "bob@example.com", 50, "ticket 17") == (50, True)
    assert give(database, "bob@example.com", 50, "ticket 17") == (50, False)


def test_what_is_wrong_is_one_sentence(database, tmp_path):
    with pytest.raises(RequestError, match=r"no user has the address nobody@example\.com"):
        give(database, "nobody@example.com", 50)
    with pytest.raises(RequestError, match="start `fishserve saas --embedded` on"):
        give(database, "anna@example.com", 50, database_url=None, directory=tmp_path)
    with pytest.raises(FishserveError, match="cannot be reached"):
        give(database, "anna@example.com", 50, database_url=f"postgresql://nobody@127.0.0.1:{NOWHERE.rpartition(':')[2]}/none")
