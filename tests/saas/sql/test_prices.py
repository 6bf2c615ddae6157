"""A price is kept as it was sold; another one is another row."""

import psycopg
import pytest

from saas.database import Refused
from tests.saas.sql.test_life import RESULT, ask


def test_a_job_is_charged_by_the_price_that_it_was_sold_at(database):
    """Before, the documented way to change a price changed what was sold already: a job sold at 90 was charged 9."""
    who = database.user(credits=1000)
    job = ask(database, who, text="x" * 130)
    new = database.call("set_price", credits_per_second=1, minimum=1)
    assert (new["credits_per_second"], new["minimum"], new["characters_per_second"]) == (1, 1, 13)
    assert database.call("estimate_credits", text="x" * 130)["credits"] == 14
    done = database.call("settle_job", job_id=job["id"], object_key="k", **RESULT | {"seconds": 9})
    assert done["job"]["charged"] == 90
    assert database.sql("select count(*) as n from prices where active") == [{"n": 1}]


@pytest.mark.parametrize(
    "statement",
    ["update prices set credits_per_second = 1", "update prices set minimum = 0, active = false", "delete from prices", "truncate prices cascade"],
)  # fmt: skip
def test_a_price_cannot_be_changed(database, statement):
    with pytest.raises(psycopg.errors.RaiseException, match="set_price"):
        database.sql(statement)


def test_what_is_no_price_is_refused(database):
    for given in ({"credits_per_second": -1}, {"credits_per_second": "NaN"}, {"credits_per_second": 1, "characters_per_second": 0}):
        with pytest.raises(Refused):
            database.call("set_price", **given)
    database.sql("update prices set active = false")
    with pytest.raises(Refused, match="nothing is for sale"):
        ask(database, database.user(credits=100))
    assert database.call("set_price", credits_per_second=3)["active"]
