"""OpenAI's Realtime API, speech only, asked by OpenAI's own client."""

import base64
import contextlib
import json

import openai
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.inference.server.test_elevenlabs_live import SENTENCE
from tests.inference.server.test_fish_live import seconds
from tests.waiting import wait

LONG = "The kettle is on, and tea will be ready soon. " * 40


@contextlib.contextmanager
def session(server):
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client,
        client.realtime.connect(model="gpt-realtime") as connection,
    ):
        assert connection.recv().type == "session.created"
        yield connection


def say(connection, *texts):
    for text in texts:
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
        assert connection.recv().type == "conversation.item.added"
    connection.response.create()


def events(connection, last="response.done"):
    heard = [connection.recv()]
    while heard[-1].type != last:
        heard.append(connection.recv())
    return heard


def audio(heard):
    return b"".join(base64.b64decode(e.delta) for e in heard if e.type == "response.output_audio.delta")


def test_texts_are_spoken_one_response_after_another(minnow):
    with session(minnow) as connection:
        say(connection, SENTENCE)
        first = events(connection)
        say(connection, SENTENCE, SENTENCE)
        second = events(connection)
    kinds = [e.type for e in first]
    deltas = ["response.output_audio.delta", "response.output_audio_transcript.delta"]
    dones = ["response.output_audio.done", "response.output_audio_transcript.done"]
    assert kinds[0] == "response.created"
    assert kinds[-3:] == [*dones, "response.done"]
    assert set(kinds[1:-3]) == set(deltas)
    assert "".join(e.delta for e in second if e.type == deltas[1]) == second[-2].transcript == f"{SENTENCE} {SENTENCE}"
    (item,) = first[-1].response.output
    assert (item.status, item.content[0].transcript) == ("completed", SENTENCE)
    assert (first[0].response.status, first[-1].response.status) == ("in_progress", "completed")
    assert first[-1].response.id == first[0].response.id == first[1].response_id != second[0].response.id
    assert 0.5 < seconds("pcm", audio(first), 24_000) < seconds("pcm", audio(second), 24_000)


def test_voice_format_and_speed_are_set_in_both_generations(minnow):
    several = " ".join([SENTENCE] * 4)  # of one alone, another take may be twice as long
    with session(minnow) as connection:
        output = {"voice": "anna", "format": {"type": "audio/pcmu"}, "speed": 2.0}
        connection.session.update(session={"type": "realtime", "output_modalities": ["audio"], "audio": {"output": output}})
        updated = connection.recv()
        assert (updated.type, updated.session.audio.output.voice) == ("session.updated", "anna")
        say(connection, several)
        fast = len(audio(events(connection))) / 8000
        slower = {"voice": "alloy", "output_audio_format": "pcm16", "audio": {"output": {"speed": 1.0}}}
        connection.send({"type": "session.update", "session": slower})
        assert connection.recv().session.audio.output.format.type == "audio/pcm"
        connection.response.create(
            response={"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": several}]}]}
        )
        assert len(audio(events(connection))) / 2 / 24_000 > fast > 0.3


def test_a_response_is_cancelled_and_the_next_one_spoken(minnow):
    before = minnow.metric("fishserve_requests_total", reason="cancelled")
    with session(minnow) as connection:
        say(connection, LONG)
        events(connection, "response.output_audio.delta")
        connection.response.create()
        assert events(connection, "error")[-1].error.code == "response_already_active"
        connection.response.cancel()
        assert events(connection)[-1].response.status == "cancelled"
        wait(lambda: minnow.metric("fishserve_requests_total", reason="cancelled") > before)
        connection.response.cancel()
        assert connection.recv().error.code == "response_cancel_not_active"
        say(connection, "...")
        heard = events(connection)
    assert heard[-1].response.status == "completed"
    assert audio(heard) == bytes(round(0.2 * 24_000) * 2)


def test_an_interrupted_agent_learns_what_was_heard(minnow):
    text = "One two three. " + LONG
    with session(minnow) as connection:
        say(connection, text)
        heard = events(connection, "response.output_audio_transcript.delta")
        connection.response.cancel()
        heard += events(connection)
        (item,) = heard[-1].response.output
        said = item.content[0].transcript
        assert (heard[-1].response.status, item.status) == ("cancelled", "incomplete")
        assert text.startswith(said)
        assert said.startswith("One")
        connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=0)
        nothing = connection.recv()
        assert (nothing.type, nothing.transcript, nothing.last_word) == ("conversation.item.truncated", "", None)
        sent = 1000 * seconds("pcm", audio(heard), 24_000)
        connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=int(sent) - 1)
        most = connection.recv()
        assert most.transcript == said
        assert said[most.last_word["start_char"] :].startswith(most.last_word["word"])
        for wrong, words in (({"item_id": "x"}, "not the last item"), ({"audio_end_ms": 10**8}, "ms of audio")):
            connection.conversation.item.truncate(**{"item_id": item.id, "content_index": 0, "audio_end_ms": 1} | wrong)
            assert words in connection.recv().error.message


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"type": "response.create"}, "nothing to speak"),
        ({"type": "input_audio_buffer.append", "audio": ""}, "'input_audio_buffer.append' is not an event of this server"),
        ({"type": "conversation.item.create"}, "lacks a field"),
        ({"type": "conversation.item.create", "item": {"type": "function_call"}}, "item.type is 'function_call'"),
        ({"type": "session.update", "session": {"turn_detection": {"type": "server_vad"}}}, "turn_detection must be null"),
        ({"type": "session.update", "session": {"audio": {"input": {"turn_detection": {}}}}}, "turn_detection must be null"),
        ({"type": "session.update", "session": {"audio": {"output": {"speed": 9}}}}, "speed is 9"),
        ({"type": "session.update", "session": {"audio": {"output": {"format": {"type": "audio/x"}}}}}, "format.type is 'audio/x'"),
        ({}, "type: Field required"),
        ("{", "not valid JSON"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_and_the_session_goes_on(minnow, event, words):
    with connect(f"ws://127.0.0.1:{minnow.port}/v1/realtime", subprotocols=["realtime"], max_size=None) as socket:
        assert socket.subprotocol == "realtime"
        assert json.loads(socket.recv())["type"] == "session.created"
        socket.send(event if isinstance(event, str) else json.dumps(event))
        error = json.loads(socket.recv())
        assert (error["type"], words in error["error"]["message"]) == ("error", True), error
        socket.send(json.dumps({"type": "session.update", "session": {"voice": "nobody"}}))
        assert json.loads(socket.recv())["type"] == "session.updated"
        socket.send(json.dumps({"type": "response.create", "response": {"input": [{"content": [{"text": "Hi."}]}]}}))
        assert "no voice 'nobody'" in json.loads(socket.recv())["error"]["message"]


def test_a_client_that_leaves_cancels_what_is_spoken(minnow):
    before = minnow.metric("fishserve_requests_total", reason="cancelled")
    with contextlib.suppress(ConnectionClosed), session(minnow) as connection:
        say(connection, LONG)
        events(connection, "response.output_audio.delta")
    wait(lambda: minnow.metric("fishserve_requests_total", reason="cancelled") > before, "speech went on without its client")
