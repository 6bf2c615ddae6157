"""An adapter that the reference implementation made and merged, against ours. Needs `make reference`."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import torch

from inference import SpeechEngine, SpeechRequest, Voice
from inference.model import random_checkpoint
from tests import layouts
from tests.drills.test_reference import PYTHON, ROOT
from tests.waiting import HANG_SECONDS

TEXT = "An adapter changes how it speaks."


def reference(module, *arguments):
    command = [PYTHON, "-m", f"bench.reference.{module}", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"LOGURU_LEVEL": "WARNING", "TQDM_DISABLE": "1"}, timeout=HANG_SECONDS)


@pytest.mark.drill
def test_an_adapter_of_the_reference_is_merged_as_it_merges_it(tmp_path):
    assert PYTHON.exists(), "run `make reference` first"
    base, theirs = tmp_path / "base", tmp_path / "theirs"
    random_checkpoint.write(base, "tiny", 5)
    layouts.talkative(base)
    shutil.copytree(base, theirs)
    adapter = tmp_path / "step_000001000.ckpt"
    reference("lora", base, adapter, theirs / "model.pth")
    request = {"text": TEXT, "references": [], "chunk_length": 200, "max_new_tokens": 40, "repetition_penalty": 1.2}
    (tmp_path / "request.json").write_text(json.dumps(request))
    reference("generate", theirs, tmp_path / "request.json", tmp_path / "out.npz")
    with SpeechEngine.load(base, "cpu", copies=tmp_path / "copies", adapter=str(adapter)) as engine:
        merged = torch.load(theirs / "model.pth", weights_only=True)
        ours = dict(engine.checkpoint.lm.named_parameters())
        assert merged.keys() == ours.keys()
        for name, weight in ours.items():
            torch.testing.assert_close(weight.data, merged[name], atol=1e-6, rtol=1e-5)
        spoken = engine.generate_codes(SpeechRequest(TEXT, Voice(()), temperature=0, compat="reference", max_new_tokens=40))
    assert spoken.tolist() == np.load(tmp_path / "out.npz")["codes"].tolist()
