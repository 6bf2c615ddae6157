"""The guard against bad takes as the HTTP APIs offer it. A limit of few frames makes every take end too early."""

import json
import re

import httpx
import numpy as np
import pytest

from tests.waiting import HANG_SECONDS, wait

TEXT = "This sentence needs far more frames than it may have."
FEW = {"seed": 1, "max_new_tokens": 12}


def post(server, path, **body):
    response = httpx.post(f"{server.url}{path}", json=body, timeout=HANG_SECONDS)
    assert response.status_code == 200, response.text
    return response


def reported(response):
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+),", response.headers["x-quality-guard"])}


def test_a_whole_file_says_what_the_guard_did(minnow):
    before = minnow.metric("fishserve_guard_retries_total")
    bad = reported(post(minnow, "/v1/audio/speech", input=TEXT, stream=False, quality_guard=True, **FEW))
    assert bad["retries"] >= 2
    assert bad["rests"] >= 1
    good = reported(post(minnow, "/v1/audio/speech", input="A good day.", seed=1, stream=False, quality_guard=True))
    assert good == {"segments": 1, "retries": 0, "rests": 0, "unmended": 0}
    assert minnow.metric("fishserve_guard_retries_total") == before + bad["retries"]
    logged = wait(lambda: [json.loads(line)["guard"] for line in re.findall(r'\{"time".*"guard": \{.*', minnow.words())])
    assert bad["retries"] in [line["retries"] for line in logged]


def test_ordinary_speech_has_no_faults(minnow):
    text = "The kettle is on. It cost $3.50 in 1998. Where would you like to go, and when? The FBI has no comment. Call 0800 555 0134."
    spoken = reported(post(minnow, "/v1/audio/speech", input=text, seed=2, stream=False, quality_guard=True))
    assert spoken["segments"] >= 5
    assert spoken["retries"] == spoken["rests"] == spoken["unmended"] == 0


def test_no_guard_says_nothing_and_changes_nothing(minnow):
    body = {"input": TEXT, "seed": 1, "stream": False, "response_format": "pcm", "sample_rate": 44100}
    plain, guarded = (post(minnow, "/v1/audio/speech", **body, quality_guard=guard) for guard in (None, True))
    assert "x-quality-guard" not in plain.headers
    first, second = (np.frombuffer(response.content, np.int16).astype(int) for response in (plain, guarded))
    assert np.abs(first - second).max() <= 1  # other chunks round in another way


def test_server_sent_events_end_with_the_cost(minnow):
    body = {"input": TEXT, "stream_format": "sse", "quality_guard": True, "guard_look_ahead": 5}
    events = post(minnow, "/v1/audio/speech", **body, **FEW).text
    usage = json.loads(events.strip().rpartition("data: ")[2])["usage"]
    assert usage["quality_guard"]["retries"] >= 2
    assert "too_short" in usage["quality_guard"]["faults"]


def test_fish_audios_feature_turns_it_on(minnow):
    assert reported(post(minnow, "/v1/tts", text=TEXT, features=["quality-guard"], **FEW))["retries"] >= 2
    assert "x-quality-guard" not in post(minnow, "/v1/tts", text=TEXT, features=["another"], **FEW).headers


@pytest.mark.parametrize("value", [-1, "soon"])
def test_a_look_ahead_that_is_none_is_refused(minnow, value):
    response = httpx.post(f"{minnow.url}/v1/audio/speech", json={"input": TEXT, "guard_look_ahead": value}, timeout=HANG_SECONDS)
    assert response.status_code == 400
    assert "guard_look_ahead" in response.text
