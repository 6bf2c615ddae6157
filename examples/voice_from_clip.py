"""Add a voice from a clip, then speak with it. minnow, the bundled model, follows its pitch and little else; FishSpeech 1.5 imitates it.

pip install httpx
python voice_from_clip.py CLIP "What is said in the clip" [URL]
"""

import sys
from pathlib import Path

import httpx

clip, transcript = Path(sys.argv[1]), sys.argv[2]
url = sys.argv[3] if len(sys.argv) > 3 else "http://127.0.0.1:8080"
with httpx.Client(base_url=url, timeout=300) as client:
    client.request("DELETE", "/v1/references/delete", json={"reference_id": "example"})  # from the last time
    added = client.post("/v1/references/add", data={"id": "example", "text": transcript}, files={"audio": clip.read_bytes()})
    if added.is_error:
        sys.exit(added.text)
    body = {"model": "tts-1", "voice": "example", "input": "This is another sentence in the same voice.", "response_format": "wav"}
    spoken = client.post("/v1/audio/speech", json=body)
    if spoken.is_error:
        sys.exit(spoken.text)
Path("voice.wav").write_bytes(spoken.content)
print("voice.wav")
