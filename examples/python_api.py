"""The engine in your own program, without a server.

python python_api.py
"""

from pathlib import Path

from fishserve import SpeechEngine, SpeechRequest
from inference.audio.write import wav

with SpeechEngine.load() as engine:  # minnow; or a directory, or "fishaudio/fish-speech-1.5"
    audio = engine.synthesize(SpeechRequest("Hello from Python.", seed=1))
Path("python.wav").write_bytes(wav(audio.samples, audio.sample_rate))
print(f"python.wav, {audio.seconds:.1f} s")
