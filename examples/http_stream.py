"""Stream raw samples over plain HTTP to a speaker. Needs only Python's standard library.

python http_stream.py | aplay -q -t raw -f S16_LE -r 24000 -c 1
python http_stream.py [URL] | ffplay -nodisp -autoexit -f s16le -ar 24000 -
"""

import json
import sys
import urllib.request

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
body = {"model": "tts-1", "voice": "default", "input": "You hear this while the rest is still being made.", "response_format": "pcm"}
request = urllib.request.Request(f"{url}/v1/audio/speech", json.dumps(body).encode(), {"Content-Type": "application/json"})
with urllib.request.urlopen(request) as response:
    while chunk := response.read1(1 << 16):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
