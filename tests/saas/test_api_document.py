"""What the OpenAPI document says may be sent, and what it says may not: schemathesis sends both, signed in, and nothing may break the API."""

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from saas import create_app
from saas.settings import Settings
from tests.saas.api_harness import StandIn, running
from tests.waiting import HANG_SECONDS

OFTEN = {"speech_per_minute": 10**6, "requests_per_minute": 10**6, "sensitive_per_minute": 10**6, "failures_per_minute": 10**6}
SESSION = {"id": "cs_1", "object": "checkout.session", "url": "https://checkout.stripe.com/c/pay/cs_1"}


@pytest.fixture(scope="module")
def api(postgres, bucket):
    """With a bucket that is there and Stripe played, so that only what was sent can be at fault."""
    with StandIn(lambda _: (200, SESSION)).running() as stripe:
        given = {
            "r2_endpoint": bucket.endpoint, "r2_access_key_id": bucket.key, "r2_secret_access_key": bucket.secret, "r2_bucket_name": "results",
            "stripe_secret_key": "sk_test_x", "stripe_webhook_secret": "whsec_x", "stripe_base_url": stripe.url,
        }  # fmt: skip
        with running(postgres.migrated(), operator_role="operator", **given, **OFTEN) as api:
            yield api


@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module"
)  # the API, in another thread of this process, may draw while Hypothesis does
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # Stripe's library speaks to httpx in an older way
@pytest.mark.parametrize("examples", [4, pytest.param(40, marks=pytest.mark.drill)])
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda m: m.value)
def test_nothing_that_is_sent_breaks_the_api(api, mode, examples):
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()
        operator = {"app_metadata": {"role": "operator"}, "amr": [{"method": "password", "timestamp": 2**31}]}
        token = api.issuer.token(api.database.user(credits=100), exp=2**31, **operator)  # a user each: one operation ends the account
        if operation.path == "/v1/audio/speech":
            continue  # no speech backend runs here, so 503 is right; tests/saas/jobs has one

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case):
            case.headers = dict(case.headers or {}) | {"Authorization": f"Bearer {token}"}  # noqa: B023 - it is called before the next turn
            if isinstance(case.body, dict) and "wait_seconds" in case.body:
                case.body["wait_seconds"] = 0
            response = case.call(timeout=HANG_SECONDS)
            assert response.status_code < 500, (case.method, case.path, case.body, case.query, response.text)

        with contextlib.suppress(Unsatisfiable):  # where nothing can be sent that is not allowed
            hold()


def test_every_route_says_what_it_is_for():
    paths = create_app(Settings(environment="development", supabase_url="http://127.0.0.1", operator_role="operator")).openapi()["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation.get("description"), (method, path)
            assert operation.get("tags"), (method, path)
