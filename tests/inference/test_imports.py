"""What may be loaded where, run as it would be."""

import subprocess
import sys

from tests.waiting import HANG_SECONDS

ONLY = "torch numpy safetensors tiktoken regex vector_quantize_pytorch prometheus_client einops einx"

BARE_IMAGE = f"""
import sys
from importlib.metadata import packages_distributions
foreign = set(packages_distributions()) - set({ONLY.split()!r}) - {{"inference"}}
blocked = {{m for m in foreign if m.lower() in ("pydantic", "litserve", "fastapi", "av", "soundfile", "soxr", "typer", "rich", "huggingface_hub", "httpx", "triton")}}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{{name}} is not on a bare GPU image")
sys.meta_path.insert(0, Block())
assert blocked
from inference import SpeechEngine, SpeechRequest
with SpeechEngine.load(sys.argv[1], "cpu") as engine:
    assert engine.synthesize(SpeechRequest("Hello.", max_new_tokens=3)).samples.size
"""

NO_COMPILER = """
import sys
from inference import SpeechEngine, SpeechRequest
with SpeechEngine.load(sys.argv[1], "cpu") as engine:
    assert engine.synthesize(SpeechRequest("Hello.", max_new_tokens=3)).samples.size
assert "torch._dynamo" not in sys.modules
"""

NO_TORCH = """
import sys
sys.modules["torch"] = None
import inference, inference.cli, inference.settings, inference.server.app, inference.server.litserve_host, inference.hub
import saas
assert inference.SpeechRequest("hello").text == "hello"
assert not [m for m in sys.modules if m.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]
"""


ENGINE_ALONE = """
import sys
import inference.server.litserve_engine, inference.engine.startup
assert not {"inference.server.app", "inference.audio.encode", "av"} & sys.modules.keys()
"""


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stderr


def test_speaking_on_a_cpu_loads_no_compiler(golden_directory):
    """It takes 2 s and 140 MB of each process."""
    run(NO_COMPILER, golden_directory)


def test_the_engine_runs_on_a_bare_gpu_image(golden_directory):
    run(BARE_IMAGE, str(golden_directory))


def test_the_doors_the_command_and_saas_start_without_torch():
    run(NO_TORCH)


def test_a_devices_process_loads_no_doors():
    run(ENGINE_ALONE)
