"""Speak with OpenAI's client, into a file, as the audio arrives.

pip install openai
python openai_client.py [URL]
"""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
client = OpenAI(base_url=f"{url}/v1", api_key="any")  # a key of `fishserve keys add`, where the server has keys
with client.audio.speech.with_streaming_response.create(
    model="tts-1", voice="default", input="Hello from OpenAI's client.", response_format="mp3"
) as response:
    response.stream_to_file("openai.mp3")
print("openai.mp3")
