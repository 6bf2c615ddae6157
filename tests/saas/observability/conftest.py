"""A real Prometheus that watches a server and the SaaS API, and Stripe's word of a payment."""

import hashlib
import hmac
import json
import time

import httpx
import yaml

from tests.processes import Started
from tests.saas.conftest import free_port
from tests.saas.jobs.conftest import Api
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import ROOT, answers

DOCKER = ROOT / "docker"
DASHBOARDS = sorted((DOCKER / "grafana").glob("*.json"))
PROMETHEUS = "/usr/bin/prometheus"
SECRET, METRICS_KEY = "whsec_test", "the-metrics-key"


class Prometheus(Started):
    """The server with docker's configuration, at other addresses and with a round every second. `targets` are URLs by job."""

    def __init__(self, folder, **targets):
        self.url = f"http://127.0.0.1:{free_port()}"
        self.http = httpx.Client(base_url=self.url, timeout=HANG_SECONDS, verify=False)
        told = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
        told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        told["rule_files"] = [str(DOCKER / "prometheus" / name) for name in told["rule_files"]]
        (folder / "key").write_text(METRICS_KEY)
        told["scrape_configs"] = [job for job in told["scrape_configs"] if job["job_name"].replace("-", "_") in targets]
        for job in told["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"].replace("-", "_")].removeprefix("http://")]}]
            if "authorization" in job:
                job["authorization"]["credentials_file"] = str(folder / "key")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(told))
        command = [PROMETHEUS, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        self.start([*command, f"--web.listen-address={self.url.removeprefix('http://')}"], lambda: answers(f"{self.url}/-/ready"))

    def ask(self, path, **arguments):
        answer = self.http.get(f"/api/v1/{path}", params=arguments).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def wait_up(self):
        """Wait until every target has been scraped."""
        wait(lambda: {target["health"] for target in self.ask("targets", state="active")["activeTargets"]} == {"up"})

    def kill(self):
        self.http.close()
        super().kill()


def watched_api(data, bucket, speaker, **settings):
    """The API before this speaker, whose metrics METRICS_KEY opens, and which books payments that SECRET signs."""
    own = {
        "FISHSERVE_URL": speaker.url, "STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": SECRET, "STRIPE_BASE_URL": "http://127.0.0.1:9",
        "FISHSERVE_SAAS_METRICS_KEY": METRICS_KEY, "FISHSERVE_SAAS_WEBHOOK_LOOPBACK": "true", "FISHSERVE_SAAS_SMTP_URL": "smtp://127.0.0.1:9",
        "FISHSERVE_SAAS_MAIL_FROM": "no-reply@example.com", "FISHSERVE_SAAS_REQUESTS_AT_ONCE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    return Api(data, bucket, **own | settings)


def pay(api, user, number=1):
    """A payment as Stripe tells of it."""
    session = {
        "id": f"cs_{number}", "object": "checkout.session", "client_reference_id": str(user), "payment_status": "paid",
        "payment_intent": f"pi_{number}", "customer": "cus_1", "amount_total": 500, "currency": "usd",
        "metadata": {"fishserve_credits": "1000", "user_id": str(user), "pack": "small"},
    }  # fmt: skip
    told = {
        "id": f"evt_{number}",
        "object": "event",
        "type": "checkout.session.completed",
        "created": int(time.time()),
        "data": {"object": session},
    }
    body, now = json.dumps(told).encode(), int(time.time())
    signature = hmac.new(SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    answer = httpx.post(f"{api.url}/api/webhook/stripe", content=body, headers={"Stripe-Signature": f"t={now},v1={signature}"})
    assert answer.json() == {"outcome": "applied"}, answer.text
