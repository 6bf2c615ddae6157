"""Open WebUI's own speech functions, taken out of its package: the rest of it needs a database and gigabytes of models."""

import ast
import asyncio
import logging
from importlib.metadata import distribution
from types import SimpleNamespace
from typing import Any

import aiofiles
import aiohttp
from fastapi import HTTPException, Request
from report import FOLDER, SENTENCE, URL, call

NAME, PACKAGE = "Open WebUI", "open-webui"
WANTED = {"get_available_models", "get_available_voices", "_tts_openai", "_tts_elevenlabs", "_raise_tts_error"}
SETTINGS = {
    "audio.tts.openai.api_base_url": f"{URL}/v1", "audio.tts.openai.api_key": "any", "audio.tts.api_key": "any", "audio.tts.model": "tts-1",
    "audio.tts.voice": "default", "audio.tts.openai.params": {"response_format": "mp3"},
}  # fmt: skip


class Config:
    @staticmethod
    async def get(name: str) -> Any:
        return SETTINGS.get(name)


def functions(**names: Any) -> SimpleNamespace:
    """Its functions, with stand-ins for its settings and its session."""
    source = distribution(PACKAGE).locate_file("open_webui/routers/audio/__init__.py").read_text(encoding="utf-8")
    kept = [node for node in ast.parse(source).body if getattr(node, "name", None) in WANTED]
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and "_OPENAI_DEFAULT_VOICES" in ast.unparse(node.targets[0]):
            kept.insert(0, node)
    space = dict(names)
    exec(compile(ast.Module(kept, []), "open_webui", "exec"), space)
    return SimpleNamespace(**space)


async def main() -> None:
    async with aiohttp.ClientSession() as session:

        async def get_session() -> aiohttp.ClientSession:
            return session

        async def write(path: Any, content: bytes, *_: Any) -> None:
            path.write_bytes(content)

        theirs = functions(
            Config=Config, get_session=get_session, aiohttp=aiohttp, aiofiles=aiofiles, asyncio=asyncio, HTTPException=HTTPException, Request=Request,
            log=logging.getLogger("open_webui"), AIOHTTP_CLIENT_TIMEOUT_MODEL_LIST=30, AIOHTTP_CLIENT_SESSION_SSL=False, USE_SLIM=True,
            ENABLE_FORWARD_USER_INFO_HEADERS=False, ELEVENLABS_API_BASE_URL=URL, FileResponse=lambda path, **_: path,
            _write_tts_cache=write,
        )  # fmt: skip
        for engine, speak in (("openai", theirs._tts_openai), ("elevenlabs", theirs._tts_elevenlabs)):
            SETTINGS["audio.tts.engine"] = engine
            with call(NAME, PACKAGE, f"{engine} engine: get_available_models, get_available_voices") as made:
                models, voices = await theirs.get_available_models(None), await theirs.get_available_voices(None)
                if set(voices) != {"default", "anna"}:
                    raise ValueError(f"the voices are {voices}")
                made.note(f"models {', '.join(m['id'] for m in models)}; voices {', '.join(voices)}")
            with call(NAME, PACKAGE, f"{engine} engine: speech") as made:
                path = FOLDER / f"open-webui-{engine}.mp3"
                await speak(None, {"input": SENTENCE, "voice": "default"}, path, None, None)
                made.file(path.read_bytes(), "mp3")


asyncio.run(main())
