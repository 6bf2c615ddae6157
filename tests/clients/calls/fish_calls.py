"""fish-audio-sdk, both of its generations."""

from fish_audio_sdk import Session, TTSRequest, WebSocketSession
from fishaudio import FishAudio
from report import LATER, SENTENCE, URL, call

NAME, PACKAGE = "fish-audio-sdk", "fish-audio-sdk"


def words():
    yield from (f"{word} " for word in f"{SENTENCE} {LATER}".split())


client = FishAudio(api_key="any", base_url=URL)
for kind, ending in (("mp3", "mp3"), ("wav", "wav"), ("opus", "ogg")):
    with call(NAME, PACKAGE, f"fishaudio, tts.convert, {kind}") as made:
        made.file(client.tts.convert(text=SENTENCE, format=kind), ending)
with call(NAME, PACKAGE, "fishaudio, tts.stream_websocket") as made:
    heard = b""
    for piece in client.tts.stream_websocket(words(), format="wav"):
        made.first()
        heard += piece
    made.file(heard, "wav", f"{SENTENCE} {LATER}")
with call(NAME, PACKAGE, "fishaudio, voices.list") as made:
    made.note(f"{len(client.voices.list().items)} voices")
with call(NAME, PACKAGE, "fish_audio_sdk, Session.tts") as made:
    made.file(b"".join(Session("any", base_url=URL).tts(TTSRequest(text=SENTENCE))), "mp3")
with call(NAME, PACKAGE, "fish_audio_sdk, WebSocketSession.tts") as made, WebSocketSession("any", base_url=URL) as session:
    made.file(b"".join(session.tts(TTSRequest(text="", format="wav"), words())), "wav", f"{SENTENCE} {LATER}")
