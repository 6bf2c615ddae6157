"""Traces of the SaaS API: who speaks for a job is told which span it belongs to."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inference import tracing
from inference.hub import EMBEDDED_VOICE
from saas.jobs.backend import Options, Order
from saas.jobs.fishserve import Fishserve
from saas.jobs.runpod import RunPod
from saas.storage.bucket import Bucket
from tests.inference.server.conftest import Server
from tests.otlp import PARENT, TRACE, TRACEPARENT, receiver  # noqa: F401 - a fixture
from tests.saas.api_harness import NOWHERE
from tests.saas.jobs.conftest import SMALL, Account, Api
from tests.waiting import wait
from worker.job import parse

INTERNAL, SERVER, CLIENT = 1, 2, 3
ORDER = Order("00000000-0000-4000-8000-000000000000", "u", "k", "A private text.", Options("pcm"), None, None)


@asynccontextmanager
async def listening():
    """A server that keeps each request's headers and body, and answers as a fishserve and as RunPod."""
    asked = []

    async def answer(request):
        asked.append((request.headers, await request.read() if request.path == "/v1/tts" else await request.json()))
        return web.Response(body=bytes(2000)) if request.path == "/v1/tts" else web.json_response({"id": "j", "status": "IN_QUEUE"})

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/"), asked


async def ask():
    """Have a job spoken by a fishserve and one by RunPod: the traceparent that each was given."""
    bucket = Bucket(NOWHERE, "a", "b", "c")
    try:
        async with listening() as (url, asked), httpx.AsyncClient() as http:
            async with Fishserve(http, bucket, [url], None).open(ORDER) as speech:
                async for _ in speech:
                    pass
            runpod = RunPod(bucket, url, "ep", "rpa_secret", "https://y")
            try:
                await runpod.send(ORDER)
            finally:
                await runpod.close()
        (headers, _), (_, job) = asked
        return headers.get("traceparent", ""), parse(job["input"]).traceparent
    finally:
        bucket.close()


def test_a_job_hands_its_span_on(receiver):  # noqa: F811
    async def request():
        """As in a request to the API, which streams."""
        given = []

        async def route(*_):
            given.extend(await ask())

        scope = {"type": "http", "method": "POST", "path": "/v1/audio/speech", "headers": [(b"traceparent", TRACEPARENT.encode())]}
        await tracing.TraceRequests(route, frozenset())(scope, None, None)
        return given

    given = asyncio.run(request())
    spans = receiver.of(TRACE, 3)
    request_span, call, job = spans["POST"], spans["POST /v1/tts"], spans["RunPod job"]
    assert [parent.split("-")[1:3] for parent in given] == [[TRACE, call.id], [TRACE, job.id]]
    assert (request_span.parent, call.parent, job.parent) == (PARENT, request_span.id, request_span.id)
    assert call.attributes == job.attributes == {"fishserve.job": ORDER.job_id}
    assert not any(b"private" in body or b"rpa_secret" in body for body in receiver.bodies)


def test_a_job_that_nobody_waits_for_begins_a_trace(receiver):  # noqa: F811
    for given in asyncio.run(ask()):
        (span,) = receiver.of(given.split("-")[1], 1).values()
        assert (span.id, span.parent) == (given.split("-")[2], "")


def test_without_a_receiver_nothing_is_handed_on():
    assert asyncio.run(ask()) == ("", "")


@pytest.mark.drill
def test_a_stream_of_the_api_and_the_server_that_speaks_are_one_trace(data, bucket, tmp_path, receiver):  # noqa: F811
    to = {tracing.ENDPOINT: receiver.url}
    with (
        Server(EMBEDDED_VOICE, tmp_path, **to).wait_ready() as speaker,
        Api(data, bucket, FISHSERVE_URL=speaker.url, **to) as api,
        Account(data, api.url) as account,
    ):
        answer = account.http.post(
            "/v1/audio/speech", json={"input": SMALL, "response_format": "pcm"}, headers={"traceparent": TRACEPARENT}
        )
        assert answer.status_code == 200
        spans = wait(lambda: found if len(found := [s for s in receiver.spans if s.trace == TRACE]) == 8 else None)
    stages = {s.name: s.parent for s in spans if s.kind == INTERNAL}
    asked, served = sorted((s for s in spans if s.kind == SERVER), key=lambda s: s.began)
    (call,) = (s for s in spans if s.kind == CLIENT)
    assert (asked.parent, call.parent, served.parent) == (PARENT, asked.id, call.id)
    assert (asked.name, call.name, served.name) == ("POST /v1/audio/speech", "POST /v1/tts", "POST /v1/tts")
    assert stages == dict.fromkeys(("queue", "prefill", "first frame", "vocoder", "encode"), served.id)
    assert call.attributes["fishserve.job"] == answer.headers["x-job-id"]
    assert not any(account.key.encode() in body or SMALL.encode() in body for body in receiver.bodies)
