"""Alert rules and dashboards in a real Prometheus: promtool reads and tries the rules; a server's queries are asked of metrics from real speech."""

import base64
import hashlib
import hmac
import json
import math
import re
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.processes import Started
from tests.saas.conftest import free_port
from tests.saas.jobs.conftest import REFUSED, SMALL, Account, Api
from tests.waiting import HANG_SECONDS, wait
from tests.worker.conftest import answers

DOCKER = Path(__file__).parents[3] / "docker"
SERVER, PROMTOOL = "/usr/bin/prometheus", "/usr/bin/promtool"
SECRET, METRICS_KEY = "whsec_test", "the-metrics-key"
CLUSTER_ONLY = "replica"
"""A label that pages of a cluster alone have."""

pytestmark = pytest.mark.system(SERVER, "prometheus")


def promtool(*arguments):
    done = subprocess.run(
        [PROMTOOL, *arguments], capture_output=True, text=True, check=False, cwd=DOCKER / "prometheus", timeout=HANG_SECONDS
    )
    return done.returncode, done.stdout + done.stderr


def queries():
    """Each query of each panel: its dashboard and panel, the query, and how its series are named."""
    for file in sorted((DOCKER / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"], target["legendFormat"]


def test_prometheus_takes_the_rules():
    code, said = promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")
    assert code == 0, said


def test_each_alert_is_given_when_it_should_be_and_not_before():
    code, said = promtool("test", "rules", str(Path(__file__).with_name("alerts.yml")))
    assert code == 0, said


def test_each_alert_is_tried():
    rules = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    tried = [
        case["alert_rule_test"] for case in yaml.safe_load(Path(__file__).with_name("alerts.yml").read_text(encoding="utf-8"))["tests"]
    ]
    for rule in [rule["alert"] for group in rules for rule in group["rules"]]:
        outcomes = {bool(alert["exp_alerts"]) for case in tried for alert in case if alert["alertname"] == rule}
        assert outcomes == {True, False}, rule


class Prometheus(Started):
    """The server with docker's configuration, at other addresses and with a round every second."""

    def __init__(self, folder, **targets):
        address = f"127.0.0.1:{free_port()}"
        self.http = httpx.Client(base_url=f"http://{address}", timeout=HANG_SECONDS, verify=False)
        told = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
        told["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        told["rule_files"] = [str(DOCKER / "prometheus" / name) for name in told["rule_files"]]
        (folder / "key").write_text(METRICS_KEY)
        for job in told["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"].replace("-", "_")].removeprefix("http://")]}]
            if "authorization" in job:
                job["authorization"]["credentials_file"] = str(folder / "key")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(told))
        command = [SERVER, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        self.start([*command, f"--web.listen-address={address}"], lambda: answers(f"http://{address}/-/ready"))

    def ask(self, path, **arguments):
        answer = self.http.get(f"/api/v1/{path}", params=arguments).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    def shown(self, expression, began):
        """The series that Grafana would draw: those with a number, by their labels."""
        found = self.ask("query_range", query=expression.replace("$__rate_interval", "4s"), start=began, end=time.time(), step=1)["result"]
        return [series["metric"] for series in found if any(math.isfinite(float(value)) for _, value in series["values"])]

    def kill(self):
        self.http.close()
        super().kill()


@pytest.fixture(scope="module")
def api(data, bucket, speaker):
    settings = {
        "FISHSERVE_URL": speaker.url, "STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": SECRET, "STRIPE_BASE_URL": "http://127.0.0.1:9",
        "FISHSERVE_SAAS_METRICS_KEY": METRICS_KEY, "FISHSERVE_SAAS_WEBHOOK_LOOPBACK": "true", "FISHSERVE_SAAS_SMTP_URL": "smtp://127.0.0.1:9",
        "FISHSERVE_SAAS_MAIL_FROM": "no-reply@example.com", "FISHSERVE_SAAS_REQUESTS_AT_ONCE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    with Api(data, bucket, **settings) as api:
        yield api


def pay(api, user):
    """A payment as Stripe tells of it."""
    session = {
        "id": "cs_1", "object": "checkout.session", "client_reference_id": str(user), "payment_status": "paid", "payment_intent": "pi_1",
        "customer": "cus_1", "metadata": {"fishserve_credits": "1000", "user_id": str(user), "pack": "small"}, "amount_total": 500, "currency": "usd",
    }  # fmt: skip
    told = {
        "id": "evt_1",
        "object": "event",
        "type": "checkout.session.completed",
        "created": int(time.time()),
        "data": {"object": session},
    }
    body, now = json.dumps(told).encode(), int(time.time())
    signature = hmac.new(SECRET.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    answer = httpx.post(f"{api.url}/api/webhook/stripe", content=body, headers={"Stripe-Signature": f"t={now},v1={signature}"})
    assert answer.json() == {"outcome": "applied"}, answer.text


@pytest.mark.drill
def test_each_panel_of_each_dashboard_shows_something_of_a_real_run(tmp_path, data, speaker, api):
    began = time.time()
    with Prometheus(tmp_path, fishserve=speaker.url, fishserve_saas=api.url) as prometheus, Account(data, api.url) as account:
        wait(lambda: [target["health"] for target in prometheus.ask("targets", state="active")["activeTargets"]] == ["up", "up"])
        pay(api, account.id)
        clip = httpx.get(account.spoken()["url"]).content
        assert account.spoken(REFUSED)["status"] == "failed"
        cloned = {"text": SMALL, "references": [{"audio": base64.b64encode(clip).decode(), "text": SMALL}]}
        for _ in range(2):
            assert httpx.post(f"{speaker.url}/v1/tts", json=cloned, timeout=HANG_SECONDS).status_code == 200
        ended = time.time()
        # The API asks the database for its figures every five seconds.
        for rounds in ("min(timestamp(up)) > %f" % (ended + 3), "min(count_over_time(fishserve_saas_money_cents[1m])) > 3"):
            wait(lambda rounds=rounds: prometheus.ask("query", query=rounds)["result"])

        empty = []
        for name, expression, legend in queries():
            series = prometheus.shown(expression, began)
            wanted = set(re.findall(r"{{(\w+)}}", legend))
            if CLUSTER_ONLY in wanted:
                continue
            if not series or not all(wanted <= set(labels) for labels in series):
                empty.append((name, expression, series))
        assert not empty, "\n".join(map(str, empty))

        groups = prometheus.ask("rules", type="alert")["groups"]
        assert {(rule["name"], rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]} == {
            (rule["name"], "ok", "") for group in groups for rule in group["rules"]
        }
        assert sum(len(group["rules"]) for group in groups) >= 10
        assert [alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"] == []
