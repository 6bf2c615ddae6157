"""Speak each line of a file into a file of its own, as many at once as the server likes.

pip install httpx
python batch.py LINES.txt [URL]
"""

import asyncio
import sys
from pathlib import Path

import httpx

lines = [line for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines() if line.strip()]
url = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8080"
AT_ONCE = 8


async def speak(client: httpx.AsyncClient, number: int, line: str, turn: asyncio.Semaphore) -> None:
    """Line 1 becomes 001.mp3. A full server says when to come back."""
    async with turn:
        while True:
            answer = await client.post("/v1/audio/speech", json={"model": "tts-1", "voice": "default", "input": line})
            if answer.status_code != 429:
                break
            await asyncio.sleep(float(answer.headers["Retry-After"]))
    if answer.is_error:
        sys.exit(f"line {number}: {answer.text}")
    Path(f"{number:03}.mp3").write_bytes(answer.content)


async def main() -> None:
    """All lines."""
    turn = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        await asyncio.gather(*(speak(client, number, line, turn) for number, line in enumerate(lines, 1)))


asyncio.run(main())
print(f"{len(lines)} files")
