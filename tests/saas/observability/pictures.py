"""Draws docs/img/dashboard-*.svg from real runs under load, in about six minutes: `.venv/bin/python -m pytest tests/saas/observability/pictures.py`.

Grafana draws none of them: `bench.dashboards` does, from the dashboards' files and what a real Prometheus answers.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time

import httpx
import pytest

from bench.dashboards import Span, ask, drawing, empty, words
from inference.hub import EMBEDDED_VOICE
from tests.inference.cluster.conftest import Cluster
from tests.inference.server.conftest import Server
from tests.saas.api_harness import StandIn
from tests.saas.jobs.conftest import REFUSED, Account
from tests.saas.mail.test_sending import listening
from tests.saas.observability.conftest import DOCKER, PROMETHEUS, Prometheus, pay, watched_api
from tests.saas.webhooks.test_delivering import hook
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import ROOT

pytestmark = [
    pytest.mark.system(PROMETHEUS, "prometheus"),
    pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning"),  # the SMTP server is on this machine
]
SCRAPE = 1.0
SENTENCE = "The old lighthouse keeper climbed the stairs one last time, and below him the harbour was quiet."


def bench(*words):
    """A load that `fishserve bench` makes."""
    subprocess.run([sys.executable, "-m", "inference.cli", "bench", *map(str, words)], check=True, cwd=ROOT, timeout=10 * HANG_SECONDS)


def draw(prometheus, began, **pictures):
    """Each picture from its dashboard. It prints which panels have nothing to show."""
    span = Span(began, time.time(), SCRAPE)
    for name, dashboard in pictures.items():
        file = DOCKER / "grafana" / f"{dashboard}.json"
        told = json.loads(file.read_text(encoding="utf-8"))
        answers = ask(prometheus.http, told, span)
        (ROOT / "docs" / "img" / f"dashboard-{name}.svg").write_text(drawing(told, answers, span, words(file.name, span)), encoding="utf-8")
        print(f"{name}: no data in {empty(told, answers)}")


@contextlib.contextmanager
def beside(work):
    """`work(round)` again and again in a thread beside the block."""
    ended = threading.Event()

    def rounds():
        number = 0
        while not ended.is_set():
            number += 1
            work(number)

    thread = threading.Thread(target=rounds)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_server_and_the_saas_api(tmp_path, data, bucket):
    """minnow under `bench http`, and beside it customers of the SaaS API: jobs, a refused text, payments, webhooks and mail."""
    (tmp_path / "voices").mkdir()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(EMBEDDED_VOICE, tmp_path / "voices", FISHSERVE_SLOTS="4", FISHSERVE_QUEUE="8").wait_ready())
        inbox = stack.enter_context(listening())
        receiver = stack.enter_context(StandIn(lambda _: (200, b"") if len(receiver.asked) % 4 else (503, b"")).running())
        api = stack.enter_context(watched_api(data, bucket, server, FISHSERVE_SAAS_SMTP_URL=f"smtp://{inbox.where}"))
        account = stack.enter_context(Account(data, api.url))
        prometheus = stack.enter_context(Prometheus(tmp_path, fishserve=server.url, fishserve_saas=api.url))
        prometheus.wait_up()
        hook(data, account.id, receiver.url)
        began = time.time()

        def customer(number):
            account.spoken(SENTENCE)
            if number % 4 == 0:
                account.spoken(REFUSED)
            if number % 6 == 1:
                pay(api, account.id, number)

        with beside(customer):
            bench("http", server.url, "--what", "latency", "--concurrency", "1,3,6", "--seconds", 35, "-o", tmp_path / "load.json")
            burst(server.url, 16)
        time.sleep(10)
        draw(prometheus, began, server="fishserve-server", saas="fishserve-saas")


def burst(url, requests):
    """More requests at once than the server takes."""
    body = {"input": SENTENCE, "response_format": "pcm"}
    ask = lambda: httpx.post(f"{url}/v1/audio/speech", json=body, timeout=HANG_SECONDS)  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_cluster(tmp_path, checkpoint):
    """Three replicas of random weights, under `bench voices`: 1,000 voices."""
    (tmp_path / "voices").mkdir()
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(Cluster(checkpoint, tmp_path / "voices", "--min-replicas", "3").wait_ready())
        wait(lambda: len(cluster.replicas()) == 3)
        prometheus = stack.enter_context(Prometheus(tmp_path, fishserve=cluster.url))
        prometheus.wait_up()
        began = time.time()
        bench(
            "voices",
            cluster.url,
            "--directory",
            tmp_path / "voices",
            "--concurrency",
            "4,12",
            "--seconds",
            25,
            "-o",
            tmp_path / "load.json",
        )
        time.sleep(5)
        draw(prometheus, began, cluster="fishserve-server")
