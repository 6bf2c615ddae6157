"""The Helm chart, rendered by Helm's own engine, is what Kubernetes, KEDA and Prometheus' operator take."""

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from kubernetes_validate import utils
from prometheus_client import Gauge

import inference.engine.metrics
from inference.settings import Settings
from saas.settings import Settings as SaasSettings
from saas.settings import variable
from tests.npm import packages
from tests.waiting import HANG_SECONDS

CHART = Path(__file__).parents[2] / "docker" / "helm"
OLDEST, NEWEST = "1.27", utils.latest_version()
RENDER = """
import json, sys
import helm_python as helm
chart, cases = sys.argv[1], json.load(sys.stdin)
found = {"lint": helm.lint(chart)}
with helm.Chart.load(chart) as loaded:
    for name, values in cases.items():
        try:
            loaded.validate_schema(values)
            found[name] = loaded.render(values, name="speech", namespace="voice")
        except helm.HelmError as e:
            found[name] = str(e)
print(json.dumps(found))
"""
ALL = {
    "imagePullSecrets": [{"name": "registry"}],
    "podMonitor": True,
    "server": {
        "secret": "hub", "keysSecret": "keys", "metricsKeySecret": "scrape", "voicesBucket": "s3://speech/voices", "modelsClaim": "models",
        "env": {"FISHSERVE_CHECKPOINT": "fishaudio/fish-speech-1.5", "FISHSERVE_SLOTS": 64, "FISHSERVE_CALIBRATE_TIMES": False,
                "FISHSERVE_MAX_UPLOAD_BYTES": 25_000_000},
        "nodeSelector": {"gpu": "h100"}, "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "autoscaling": {"by": "keda"},
    },
    "worker": {"enabled": True, "secret": "runpod", "voicesBucket": "s3://speech/voices"},
    "saas": {"enabled": True, "secret": "saas", "metricsKeySecret": "scrape", "env": {"FISHSERVE_SAAS_PUBLIC_URL": "https://tts.example.com"}},
}  # fmt: skip
CASES = {
    "default": {},
    "all": ALL,
    "hpa": {"server": {"autoscaling": {"by": "hpa"}}},
    "cpu": {"server": {"gpus": 0}},
    "saas alone": {"server": {"enabled": False}, "saas": {"enabled": True}},
    "typo": {"server": {"replica": 2}},
    "no bucket": {"server": {"voicesBucket": "speech"}},
    "no scaler": {"server": {"autoscaling": {"by": "hope"}}},
    "no variable": {"server": {"env": {"not a name": "x"}}},
}
CUSTOM = ("PodMonitor", "ScaledObject")


@pytest.fixture(scope="module")
def rendered():
    """What each case gives. In a process of its own, since Helm is a library in Go."""
    done = subprocess.run(
        [sys.executable, "-c", RENDER, CHART], input=json.dumps(CASES), capture_output=True, text=True, timeout=HANG_SECONDS, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def objects(rendered):
    """The objects of a case, by kind and name."""

    def of(case):
        assert isinstance(rendered[case], dict), rendered[case]
        documents = [d for name, text in rendered[case].items() if name.endswith(".yaml") for d in yaml.safe_load_all(text) if d]
        found = {(d["kind"], d["metadata"]["name"]): d for d in documents}
        assert len(found) == len(documents)
        return found

    return of


def pod(objects, part):
    spec = objects["Deployment", f"speech-{part}"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container, {e["name"]: e.get("value") for e in container["env"]}


def test_helm_finds_nothing_wrong(rendered):
    assert rendered["lint"]["errors"] == []
    assert [message["error"] for message in rendered["lint"]["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("case", ["default", "all", "hpa", "cpu", "saas alone"])
def test_kubernetes_takes_every_object(objects, monkeypatch, case):
    monkeypatch.setattr(utils, "schema_contents", cache(utils.schema_contents))
    for (kind, _), found in objects(case).items():
        for version in (OLDEST, NEWEST) if kind not in CUSTOM else ():
            utils.validate(found, version, strict=True)


def test_the_schemas_refuse_what_is_none(objects):
    found = objects("default")["Deployment", "speech-server"]
    found["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(utils.ValidationError, match="imagePullPolice"):
        utils.validate(found, NEWEST, strict=True)


def validated(resources):
    folder = Path(__file__).parent
    packages(folder)
    return subprocess.run(
        ["node", folder / "validate.js"], input=json.dumps(resources), cwd=folder, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )  # fmt: skip


@pytest.mark.system("/usr/bin/node", "nodejs")
def test_keda_and_prometheus_operator_take_their_objects(objects):
    ours = [found for (kind, _), found in objects("all").items() if kind in CUSTOM]
    assert len(ours) == 4
    done = validated(ours)
    assert done.returncode == 0, done.stderr
    ours[0]["spec"].clear()
    assert validated(ours).returncode != 0


def test_the_default_is_one_server_with_a_gpu(objects):
    found = objects("default")
    assert {kind for kind, _ in found} == {"Deployment", "Service", "PodDisruptionBudget"}
    spec, container, environment = pod(found, "server")
    for amounts in ("requests", "limits"):
        assert container["resources"][amounts]["nvidia.com/gpu"] == 1
    assert found["Deployment", "speech-server"]["spec"]["replicas"] == 1
    assert environment["FISHSERVE_DEVICE"] == "cuda"
    names = environment["FISHSERVE_HOSTS"].split(",")
    assert names == ["speech-server", "speech-server.voice", "speech-server.voice.svc", "speech-server.voice.svc.cluster.local"]
    assert "FISHSERVE_KEYS_FILE" not in environment
    assert spec["terminationGracePeriodSeconds"] == 45
    assert spec["enableServiceLinks"] is False


def test_without_a_gpu_it_speaks_on_the_cpu(objects):
    _, container, environment = pod(objects("cpu"), "server")
    assert environment["FISHSERVE_DEVICE"] == "cpu"
    assert "nvidia.com/gpu" not in json.dumps(container["resources"])


def test_what_is_set_arrives(objects):
    found = objects("all")
    spec, container, environment = pod(found, "server")
    wanted = {"FISHSERVE_SLOTS": "64", "FISHSERVE_CALIBRATE_TIMES": "false", "FISHSERVE_MAX_UPLOAD_BYTES": "25000000"}
    assert environment | wanted == environment
    assert environment["FISHSERVE_VOICES_BUCKET"] == "s3://speech/voices"
    assert environment["FISHSERVE_KEYS_FILE"].startswith(f"{container['volumeMounts'][-1]['mountPath']}/")
    assert container["envFrom"] == [{"secretRef": {"name": "hub"}}]
    assert spec["volumes"][0] == {"name": "models", "persistentVolumeClaim": {"claimName": "models"}}
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    for part in ("server", "saas"):
        (endpoint,) = found["PodMonitor", f"speech-{part}"]["spec"]["podMetricsEndpoints"]
        assert endpoint["authorization"]["credentials"] == {"name": "scrape", "key": "key"}


def test_each_object_means_the_pods_of_its_part(objects):
    found = objects("all")
    for (kind, name), one in found.items():
        part = name.removeprefix("speech-").removesuffix("-pods")
        deployment = found["Deployment", f"speech-{part}"]["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        (container,) = deployment["template"]["spec"]["containers"]
        ports = {p["name"]: p["containerPort"] for p in container.get("ports", [])}
        match kind:
            case "Service":
                assert one["spec"]["selector"] == labels
                assert [p["targetPort"] for p in one["spec"]["ports"]] == ["http"]
                assert one["spec"]["ports"][0]["port"] == ports["http"]
            case "ScaledObject":
                assert one["spec"]["scaleTargetRef"]["name"] == f"speech-{part}"
                assert "replicas" not in deployment
            case "Deployment":
                probes = [container[p] for p in ("startupProbe", "readinessProbe", "livenessProbe") if p in container]
                assert {p["httpGet"]["port"] for p in probes} <= set(ports)
                assert one["spec"]["selector"]["matchLabels"] == labels
            case "PodMonitor":
                assert one["spec"]["podMetricsEndpoints"][0]["port"] in ports
                assert one["spec"]["selector"]["matchLabels"] == labels
            case _:
                assert one["spec"]["selector"]["matchLabels"] == labels


def test_the_saas_api_finds_each_replica_of_the_server(objects, monkeypatch):
    found = objects("all")
    _, container, environment = pod(found, "saas")
    monkeypatch.setenv("FISHSERVE_URL", environment["FISHSERVE_URL"])
    (url,) = SaasSettings().fishserve_urls
    service = found["Service", url.removeprefix("dns+http://").partition(":")[0]]
    assert service["spec"]["clusterIP"] == "None"
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert environment["TMPDIR"] == container["volumeMounts"][0]["mountPath"]
    assert "FISHSERVE_URL" not in pod(objects("saas alone"), "saas")[2]


@pytest.mark.parametrize("case", ["all", "hpa"])
def test_scaling_asks_for_metrics_that_there_are(objects, case):
    metrics = {m.describe()[0].name for m in vars(inference.engine.metrics).values() if isinstance(m, Gauge)}
    text = json.dumps([one for (kind, _), one in objects(case).items() if kind in ("ScaledObject", "HorizontalPodAutoscaler")])
    asked = {f"fishserve_requests_{end}" for end in ("running", "waiting")}
    assert asked <= metrics
    assert asked <= set(re.findall(r"fishserve_\w+", text)) | {
        f"fishserve_requests_{end}" for end in re.findall(r"(running|waiting)[|)]", text)
    }


def test_every_variable_is_a_setting(objects):
    known = {f"FISHSERVE_{name.upper()}" for name in Settings.model_fields} | {variable(name) for name in SaasSettings.model_fields}
    for part in ("server", "worker", "saas"):
        assert set(pod(objects("all"), part)[2]) <= known | {"TMPDIR"}


@pytest.mark.parametrize(
    ("case", "words"), [("typo", "replica"), ("no bucket", "voicesBucket"), ("no scaler", "by"), ("no variable", "not a name")]
)
def test_a_value_that_is_none_is_refused_with_its_name(rendered, case, words):
    assert isinstance(rendered[case], str)
    assert words in rendered[case]
