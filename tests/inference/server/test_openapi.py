"""What the OpenAPI document says may be sent, and what it says may not: schemathesis sends both, and nothing may break the server."""

import contextlib

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.inference.server.conftest import Server
from tests.waiting import HANG_SECONDS


@pytest.fixture(scope="module")
def api(checkpoint, tmp_path_factory):
    """A server of its own, whose voices schemathesis may add and delete."""
    with Server(checkpoint, tmp_path_factory.mktemp("voices")).wait_ready() as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("examples", [4, pytest.param(40, marks=pytest.mark.drill)])
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda m: m.value)
def test_nothing_that_is_sent_breaks_the_server(api, mode, examples):
    for result in api.get_all_operations():
        operation = result.ok()

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def hold(case):
            if isinstance(case.body, dict) and isinstance(case.body.get("max_new_tokens", 0), int):
                case.body["max_new_tokens"] = case.body.get("max_new_tokens", 0) % 5 + 1  # else the tiny model would speak for long
            response = case.call(timeout=HANG_SECONDS)
            assert response.status_code < 500, (case.method, case.path, response.text)

        with contextlib.suppress(Unsatisfiable):  # where nothing can be sent that is not allowed
            hold()


def test_every_route_says_what_it_is_for_and_what_it_refuses(server):
    document = httpx.get(f"{server.url}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (path, method)
            assert operation.get("description"), (path, method)
            assert operation.get("tags"), (path, method)
