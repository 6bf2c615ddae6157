"""Alert rules and dashboards in a real Prometheus: promtool reads and tries the rules; a server's queries are asked of metrics from real speech."""

import base64
import json
import re
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
import yaml

from bench.dashboards import Span, ask, drawing, query
from tests.saas.jobs.conftest import REFUSED, SMALL, Account
from tests.saas.observability.conftest import DASHBOARDS, DOCKER, PROMETHEUS, Prometheus, pay, watched_api
from tests.waiting import HANG_SECONDS, wait

PROMTOOL = "/usr/bin/promtool"
CLUSTER_ONLY = "replica"
"""A label that pages of a cluster alone have."""

pytestmark = pytest.mark.system(PROMETHEUS, "prometheus")


def promtool(*arguments):
    done = subprocess.run(
        [PROMTOOL, *arguments], capture_output=True, text=True, check=False, cwd=DOCKER / "prometheus", timeout=HANG_SECONDS
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def api(data, bucket, speaker):
    with watched_api(data, bucket, speaker) as api:
        yield api


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


@pytest.mark.drill
def test_each_panel_of_each_dashboard_shows_something_of_a_real_run(tmp_path, data, speaker, api):
    began = time.time()
    with Prometheus(tmp_path, fishserve=speaker.url, fishserve_saas=api.url) as prometheus, Account(data, api.url) as account:
        prometheus.wait_up()
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

        span, empty = Span(began, time.time(), 1), []
        for file in DASHBOARDS:
            dashboard = json.loads(file.read_text(encoding="utf-8"))
            for panel in dashboard["panels"]:
                for target in panel.get("targets", ()):
                    wanted = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                    series = query(prometheus.http, target, span)
                    if CLUSTER_ONLY not in wanted and not (series and all(wanted <= set(labels) for labels, _ in series)):
                        empty.append((file.stem, panel["title"], target["expr"], series))
            assert ElementTree.fromstring(drawing(dashboard, ask(prometheus.http, dashboard, span), span, file.name)).tag.endswith("svg")
        assert not empty, "\n".join(map(str, empty))

        groups = prometheus.ask("rules", type="alert")["groups"]
        assert {(rule["name"], rule["health"], rule.get("lastError", "")) for group in groups for rule in group["rules"]} == {
            (rule["name"], "ok", "") for group in groups for rule in group["rules"]
        }
        assert sum(len(group["rules"]) for group in groups) >= 10
        assert [alert["labels"]["alertname"] for alert in prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"] == []
