"""What `litserve_host` uses of LitServe's inside: after an upgrade of LitServe this fails first, and says what is gone."""

import dataclasses
import inspect
from types import SimpleNamespace

import litserve
import pytest
import uvicorn
from litserve.loops import LitLoop
from litserve.utils import LitAPIStatus, LoopResponseType, ResponseBufferItem

from inference.server import litserve_host
from inference.settings import Settings

ATTRIBUTES = {
    "_get_request_queue", "_monitor_workers", "_perform_graceful_shutdown", "_shutdown_event", "_start_server", "app", "inference_workers", "launch_inference_worker",
    "litapi_connector", "response_buffer", "uvicorn_graceful_timeout", "verify_worker_status", "workers_setup_status",
}  # fmt: skip


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_the_server_has_what_is_used_of_it(checkpoint):
    """Some are set only when it runs: LitServe's source does so."""
    server = litserve_host.build(Settings(checkpoint=str(checkpoint)))
    source = inspect.getsource(litserve.server)
    assert {name for name in ATTRIBUTES if not hasattr(server, name) and f"self.{name} = " not in source} == set()
    assert [api.api_path for api in server.litapi_connector.lit_apis] == ["/_engine0"]


@pytest.mark.parametrize("alive", [True, False])
def test_the_http_process_is_told_to_end_when_it_can_hear_it(checkpoint, monkeypatch, alive):
    heard = []
    monkeypatch.setattr(litserve.LitServer, "_perform_graceful_shutdown", lambda *_: heard.append(server.answering.is_set()))
    server, looks = litserve_host.build(Settings(checkpoint=str(checkpoint))), []

    def is_alive():
        looks.append(alive)
        if looks == [True] * 3:
            server.answering.set()
        return alive

    server._shutdown_event, server.http_processes = SimpleNamespace(is_set=bool), [SimpleNamespace(is_alive=is_alive)]
    server._perform_graceful_shutdown()
    assert (heard, len(looks)) == ([alive], 3 if alive else 1)


def test_responses_are_put_and_found_as_before():
    common = ["self", "transport", "response_queue_id", "uid"]
    assert parameters(LitLoop.put_response) == [*common, "response_data", "status", "response_type"]
    assert parameters(LitLoop.put_error_response) == [*common, "error", "response_type"]
    assert {f.name for f in dataclasses.fields(ResponseBufferItem)} >= {"event", "response_queue"}
    assert {LitAPIStatus.OK, LitAPIStatus.ERROR, LitAPIStatus.FINISH_STREAMING, LoopResponseType.STREAMING}


def test_uvicorn_asks_its_configuration_for_the_socket():
    assert parameters(uvicorn.Config.bind_socket) == ["self"]


def test_the_engines_process_runs_litserves_function_in_ours():
    assert parameters(litserve.LitServer.launch_inference_worker) == ["self", "lit_api"]
    assert "target=inference_worker," in inspect.getsource(litserve.LitServer.launch_inference_worker)
