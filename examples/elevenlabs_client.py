"""Speak with ElevenLabs' client.

pip install elevenlabs
python elevenlabs_client.py [URL]
"""

import sys

from elevenlabs.client import ElevenLabs

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = ElevenLabs(api_key="any", base_url=url)
with open("elevenlabs.mp3", "wb") as file:
    for chunk in client.text_to_speech.stream("default", text="Hello from ElevenLabs' client."):
        file.write(chunk)
print("elevenlabs.mp3")
