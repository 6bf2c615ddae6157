"""elevenlabs-python."""

import base64

from elevenlabs.client import ElevenLabs
from report import LATER, SENTENCE, SOCKETS, URL, call

NAME, PACKAGE = "elevenlabs-python", "elevenlabs"
client = ElevenLabs(base_url=URL, api_key="any")
for output, ending in (("mp3_44100_128", "mp3"), ("opus_48000_64", "ogg"), ("wav_24000", "wav")):
    with call(NAME, PACKAGE, f"text_to_speech.convert, {output}") as made:
        made.file(b"".join(client.text_to_speech.convert("default", text=SENTENCE, output_format=output)), ending)
with call(NAME, PACKAGE, "text_to_speech.stream, pcm_24000") as made:
    heard = b""
    for piece in client.text_to_speech.stream("default", text=f"{SENTENCE} {LATER}", output_format="pcm_24000"):
        made.first()
        heard += piece
    made.sound(heard, 24_000, f"{SENTENCE} {LATER}")
with call(NAME, PACKAGE, "text_to_speech.stream_with_timestamps") as made:
    pieces = client.text_to_speech.stream_with_timestamps("default", text=SENTENCE, output_format="mp3_44100_64")
    made.file(b"".join(base64.b64decode(piece.audio_base_64) for piece in pieces), "mp3")
with call(NAME, PACKAGE, "text_to_speech.convert_realtime") as made:
    client.text_to_speech._ws_base_url = SOCKETS  # it asks for TLS, whatever the address says
    words = (f"{word} " for word in SENTENCE.split())
    made.sound(b"".join(client.text_to_speech.convert_realtime("default", text=words, output_format="pcm_44100")), 44_100)
with call(NAME, PACKAGE, "voices.get_all, models.list, user.get, history.list") as made:
    voices = [voice.voice_id for voice in client.voices.get_all().voices]
    client.user.get()
    client.history.list()
    made.note(f"{len(voices)} voices, model {client.models.list()[0].model_id}")
