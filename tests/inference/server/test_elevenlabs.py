"""ElevenLabs' door, asked by its own client."""

import asyncio
import base64
import io
import re
from http import HTTPStatus
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import soundfile
from elevenlabs import VoiceSettings
from elevenlabs.client import AsyncElevenLabs, ElevenLabs
from elevenlabs.core.api_error import ApiError

from inference.model.config import SAMPLE_RATE
from inference.server.elevenlabs import OUTPUTS
from tests.waiting import HANG_SECONDS

ROOT = Path(__file__).parents[3]


@pytest.fixture
def server(minnow):
    """Comes to an end by itself: there is no limit of frames to ask for here."""
    return minnow


@pytest.fixture
def client(server):
    with httpx.Client(timeout=HANG_SECONDS) as http:
        yield ElevenLabs(base_url=server.url, api_key="xi-anything", httpx_client=http)


def spoken(client, text="Hello.", voice="anna", **fields):
    return b"".join(client.text_to_speech.convert(voice, text=text, seed=1, **fields))


def seconds(content):
    with av.open(io.BytesIO(content)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def test_voices_are_listed_found_and_shown(client):
    assert [(v.voice_id, v.name, v.category) for v in client.voices.get_all().voices] == [
        ("default", "default", "premade"),
        ("anna", "anna", "cloned"),
    ]
    assert [v.voice_id for v in client.voices.search(search="ANN").voices] == ["anna"]
    assert client.voices.get("anna").name == "anna"


def sound(duration=2.0, rate=16_000):
    """A WAV file of a tone."""
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.3 * np.sin(np.arange(int(duration * rate)) * 0.2), rate, format="WAV")
    return buffer.getvalue()


def test_a_voice_is_added_spoken_with_and_deleted(client):
    added = client.voices.ivc.create(name="Bert", files=[("bert.wav", sound())], labels={"text": "What Bert says."}, description="any")
    assert (added.voice_id, added.requires_verification) == ("Bert", False)
    assert spoken(client, voice="Bert")
    with pytest.raises(ApiError) as refused:
        client.voices.ivc.create(name="Bert", files=[("bert.wav", sound())], labels={"text": "Again."})
    assert refused.value.status_code == HTTPStatus.BAD_REQUEST
    assert "there is a voice 'Bert' already" in refused.value.body["detail"]["message"]
    assert client.voices.delete("Bert").status == "ok"
    with pytest.raises(ApiError) as gone:
        spoken(client, voice="Bert")
    assert gone.value.status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("files", "labels", "words"),
    [
        ([sound()], {}, "1 files without the label `text` were sent"),
        ([sound()], {"text": 3}, "without the label"),
        ([sound(), sound()], {"text": "said"}, "2 files with the label `text` were sent"),
        ([b"nonsense"], {"text": "said"}, "not audio"),
        ([sound(0.5)], {"text": "said"}, "lasts 0.5 s"),
        ([sound()], {"text": ""}, "0 characters"),
    ],
)
def test_what_makes_no_voice_is_refused_in_their_shape(client, files, labels, words):
    with pytest.raises(ApiError) as refused:
        client.voices.ivc.create(name="Carl", files=[("c", content) for content in files], labels=labels)
    assert refused.value.status_code == HTTPStatus.BAD_REQUEST
    assert words in refused.value.body["detail"]["message"]


def test_a_voice_without_labels_says_what_is_missing(client):
    with pytest.raises(ApiError) as refused:
        client.voices.ivc.create(name="Carl", files=[("c", sound())])
    assert 'labels={"text": ...}' in refused.value.body["detail"]["message"]


def test_what_is_spoken_whole_and_streamed_is_the_same(client):
    whole = spoken(client, output_format="pcm_44100")
    streamed = list(client.text_to_speech.stream("anna", text="Hello.", seed=1, output_format="pcm_44100"))
    assert len(streamed) > 1
    assert b"".join(streamed) == whole
    assert np.abs(np.frombuffer(whole, "<i2")).max() > 100


async def _async_speech(url):
    async with httpx.AsyncClient(timeout=HANG_SECONDS) as http:
        client = AsyncElevenLabs(base_url=url, api_key="xi-anything", httpx_client=http)
        stream = client.text_to_speech.stream("anna", text="Hello.", seed=1, output_format="pcm_44100")
        return b"".join([chunk async for chunk in stream])


def test_the_client_for_asyncio_hears_the_same(server, client):
    assert asyncio.run(_async_speech(server.url)) == spoken(client, output_format="pcm_44100")


@pytest.fixture(scope="module")
def samples(minnow):
    """How many there are at 44.1 kHz."""
    with httpx.Client(timeout=HANG_SECONDS) as http:
        return len(spoken(ElevenLabs(base_url=minnow.url, api_key="any", httpx_client=http), output_format="pcm_44100")) / 2


@pytest.mark.parametrize("name", OUTPUTS)
def test_every_output_format_holds_all_the_sound(client, samples, name):
    kind, rate, _ = OUTPUTS[name]
    content = spoken(client, output_format=name)
    if kind in ("pcm", "ulaw", "alaw"):
        length = len(content) / (2 if kind == "pcm" else 1) / rate
    elif kind == "wav":
        info = soundfile.info(io.BytesIO(content))
        assert info.samplerate == rate
        length = info.duration
    else:
        length = seconds(content)
    assert abs(length - samples / SAMPLE_RATE) < 0.06


def test_more_bits_a_second_make_a_larger_file(client):
    sizes = [len(spoken(client, output_format=f"mp3_44100_{k}")) for k in (32, 128, 192)]
    assert sizes == sorted(sizes)
    assert sizes[2] > 4 * sizes[0]


def test_mu_law_sounds_as_the_original(client):
    """Decoded by another hand (soundfile), it is the 8 kHz PCM to within its 8 bits."""
    original = np.frombuffer(spoken(client, output_format="pcm_8000"), "<i2") / 32768
    for name, subtype in (("ulaw_8000", "ULAW"), ("alaw_8000", "ALAW")):
        content = io.BytesIO(spoken(client, output_format=name))
        heard, _ = soundfile.read(content, samplerate=8000, channels=1, format="RAW", subtype=subtype)
        n = min(len(heard), len(original))
        assert np.abs(heard[:n] - original[:n]).max() < 0.05
        assert np.corrcoef(heard[:n], original[:n])[0, 1] > 0.99


def test_speed_counts_and_other_settings_are_let_through(client):
    plain = spoken(client, output_format="pcm_8000")
    settings = VoiceSettings(speed=2.0, similarity_boost=0.5, style=0.1, use_speaker_boost=True)
    fast = spoken(client, output_format="pcm_8000", voice_settings=settings, model_id="eleven_v3", language_code="en", next_text="Then.")
    assert abs(len(fast) * 2 - len(plain)) < 0.06 * 2 * 8000 * 2


def test_more_stability_is_less_temperature(client):
    free, firm, firmest = (
        spoken(client, output_format="pcm_8000", voice_settings=VoiceSettings(stability=s)) for s in (0.0, 0.9, 1.0)
    )  # fmt: skip
    assert free != firm == firmest  # the temperature is never below 0.1
    with pytest.raises(ApiError) as refused:
        spoken(client, voice_settings=VoiceSettings(stability=1.1))
    assert "stability is 1.1; it must be between 0 and 1" in refused.value.body["detail"]["message"]


def test_speech_with_times_is_the_same_file_and_has_every_character(client):
    text, output = "Hi, it is $5. ", "wav_24000"
    whole = spoken(client, text, output_format=output)
    timed = client.text_to_speech.convert_with_timestamps("anna", text=text, seed=1, output_format=output)
    assert base64.b64decode(timed.audio_base_64) == whole
    assert "".join(timed.alignment.characters) == text
    assert "".join(timed.normalized_alignment.characters).strip() == "Hi, it is five dollars."
    starts, ends = timed.alignment.character_start_times_seconds, timed.alignment.character_end_times_seconds
    assert starts == sorted(starts)
    assert 0 <= starts[0] < ends[-1] <= seconds(whole) + 0.0005  # times are whole milliseconds
    pieces = list(client.text_to_speech.stream_with_timestamps("anna", text=text, seed=1, output_format=output))
    assert len(pieces) > 1
    assert b"".join(base64.b64decode(piece.audio_base_64) for piece in pieces)[44:] == whole[44:]
    aligned = [piece.alignment for piece in pieces if piece.alignment]
    assert [c for a in aligned for c in a.characters] == timed.alignment.characters
    assert [t for a in aligned for t in a.character_start_times_seconds] == starts
    assert [t for a in aligned for t in a.character_end_times_seconds] == ends
    with pytest.raises(ApiError, match="no voice 'nobody'"):
        client.text_to_speech.convert_with_timestamps("nobody", text="Hello.")


def test_models_user_settings_and_history_have_answers(server, client):
    (model,) = client.models.list()
    assert (model.model_id, model.can_do_text_to_speech) == (httpx.get(f"{server.url}/ready").json()["model"], True)
    assert client.user.get().subscription.character_limit > 0
    assert client.user.subscription.get().status == "active"
    assert client.voices.settings.get_default().speed == client.voices.settings.get("anna").speed == 1
    assert client.history.list().history == []
    with pytest.raises(ApiError, match="no voice 'nobody'"):
        client.voices.settings.get("nobody")
    assert httpx.get(f"{server.url}/v1/models").json()["object"] == "list"  # for everybody else


def test_numbers_are_written_out_on_demand(client):
    on, off = (spoken(client, "12", output_format="pcm_8000", apply_text_normalization=mode) for mode in ("on", "off"))
    assert on == spoken(client, "twelve", output_format="pcm_8000", apply_text_normalization="off")
    assert on != off


@pytest.mark.parametrize(
    ("voice", "fields", "status", "words"),
    [
        ("nobody", {}, 404, "there is no voice 'nobody'; known voices: default, anna"),
        ("..%2f..%2fetc", {}, 404, None),
        ("anna", {"text": ""}, 400, "text"),
        ("anna", {"output_format": "mp3_1_1"}, 400, "output_format is 'mp3_1_1'; it can be mp3_22050_32"),
        ("anna", {"voice_settings": VoiceSettings(speed=9)}, 400, "speed is 9.0; it must be between 0.25 and 4.0"),
        ("anna", {"apply_text_normalization": "maybe"}, 400, "apply_text_normalization is 'maybe'"),
    ],
)
def test_what_cannot_be_spoken_is_refused_in_their_shape(client, voice, fields, status, words):
    with pytest.raises(ApiError) as refused:
        spoken(client, **{"voice": voice} | fields)
    assert refused.value.status_code == status
    if words:
        assert words in refused.value.body["detail"]["message"]
        assert refused.value.body["detail"]["status"] in ("not_found", "invalid_request")


def test_other_doors_keep_their_own_shape(server):
    theirs = httpx.post(f"{server.url}/v1/text-to-speech/anna", content=b"{")
    ours = httpx.post(f"{server.url}/v1/audio/speech", content=b"{")
    assert theirs.status_code == ours.status_code == HTTPStatus.BAD_REQUEST
    assert set(theirs.json()) == {"detail"}
    assert set(ours.json()) == {"error"}
    large = httpx.post(f"{server.url}/v1/text-to-speech/anna", content=b" " * 3_000_000)
    assert large.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert large.json()["detail"]["status"] == "payload_too_large"


def test_the_page_s_example_runs(server, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/elevenlabs.md").read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.m4a").write_bytes(sound())
    names = {}
    exec("".join(blocks).replace("http://127.0.0.1:8080", server.url).replace('"anna"', '"example"'), names)
    names["client"].voices.delete("example")
    names["client"]._client_wrapper.httpx_client.httpx_client.close()
    assert "['default', 'anna']" in capsys.readouterr().out
    assert seconds((tmp_path / "hello.mp3").read_bytes()) > 0.3
