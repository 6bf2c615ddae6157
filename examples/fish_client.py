"""Speak with Fish Audio's client, sentence by sentence as the text is written.

pip install fish-audio-sdk
python fish_client.py [URL]
"""

import sys
from collections.abc import Iterator

from fishaudio import FishAudio

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = FishAudio(api_key="any", base_url=url)


def words() -> Iterator[str]:
    """What a language model would write."""
    yield "The kettle is on. "
    yield "Tea will be "
    yield "ready soon."


with open("fish.mp3", "wb") as file:
    for chunk in client.tts.stream_websocket(words()):
        file.write(chunk)
print("fish.mp3")
