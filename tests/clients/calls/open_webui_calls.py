"""Open WebUI's own routes for speech, taken out of its package: the rest of it needs a database and gigabytes of models."""

import ast
import asyncio
import base64
import hashlib
import io
import json
import logging
import os
import uuid
import wave
from importlib.metadata import distribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiofiles
import aiohttp
from fastapi import Depends, HTTPException, Request, status
from fastapi.responses import FileResponse
from report import FOLDER, SENTENCE, URL, call

NAME, PACKAGE = "Open WebUI", "open-webui"
WANTED = {
    "get_available_models", "get_available_voices", "get_models", "get_voices", "speech", "transcode_audio_to_mp3", "_tts_openai",
    "_tts_openai_realtime", "_tts_elevenlabs", "_tts_azure", "_tts_transformers", "_tts_mistral", "_raise_tts_error", "_write_tts_cache",
}  # fmt: skip
TABLES = ("_OPENAI_DEFAULT_VOICES", "_TTS_ENGINES")
SETTINGS = {
    "audio.tts.openai.api_base_url": f"{URL}/v1", "audio.tts.openai.api_key": "any", "audio.tts.api_key": "any", "audio.tts.model": "tts-1",
    "audio.tts.voice": "default", "audio.tts.openai.params": {"response_format": "mp3"},
}  # fmt: skip
ENGINES = {"openai": "default", "elevenlabs": "default", "openai-realtime": "marin"}
"""The engines that can speak with this server, and a voice of each engine's list."""
USER = SimpleNamespace(role="admin", id="1")


class Config:
    @staticmethod
    async def get(name: str) -> Any:
        return SETTINGS.get(name)


class Codec:
    loads = staticmethod(json.loads)
    dumps = staticmethod(json.dumps)


def request(body: dict[str, Any]) -> Request:
    """What a route gets from Open WebUI's page."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def functions(session: aiohttp.ClientSession, events: list[dict[str, Any]]) -> SimpleNamespace:
    """Its functions, with stand-ins for its settings, users and events."""

    async def get_session() -> aiohttp.ClientSession:
        return session

    async def publish_event(*_: Any, data: dict[str, Any], **__: Any) -> None:
        events.append(data)

    space: dict[str, Any] = {
        "Config": Config, "JSONCodec": Codec, "get_session": get_session, "publish_event": publish_event, "Path": Path, "aiohttp": aiohttp,
        "aiofiles": aiofiles, "asyncio": asyncio, "base64": base64, "hashlib": hashlib, "io": io, "os": os, "uuid": uuid, "wave": wave,
        "urlencode": urlencode, "urlsplit": urlsplit, "urlunsplit": urlunsplit, "HTTPException": HTTPException, "Request": Request,
        "Depends": Depends, "FileResponse": FileResponse, "status": status, "get_verified_user": None, "has_permission": None,
        "EVENTS": SimpleNamespace(AUDIO_SPEECH_REQUESTED=""), "log": logging.getLogger("open_webui"), "SPEECH_CACHE_DIR": FOLDER,
        "AIOHTTP_CLIENT_TIMEOUT_MODEL_LIST": 30, "AIOHTTP_CLIENT_SESSION_SSL": False, "USE_SLIM": False, "BYPASS_PYDUB_PREPROCESSING": False,
        "ENABLE_FORWARD_USER_INFO_HEADERS": False, "ELEVENLABS_API_BASE_URL": URL, "DEFAULT_REALTIME_TTS_PROMPT_TEMPLATE": "Read the text.",
    }  # fmt: skip
    source = distribution(PACKAGE).locate_file("open_webui/routers/audio/__init__.py").read_text(encoding="utf-8")
    kept: list[ast.stmt] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in WANTED:
            node.decorator_list = []  # its router
            kept.append(node)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in TABLES:
            kept.append(node)
    exec(compile(ast.Module(kept, []), "open_webui", "exec"), space)
    return SimpleNamespace(**space)


async def main() -> None:
    async with aiohttp.ClientSession() as session:
        events: list[dict[str, Any]] = []
        theirs = functions(session, events)
        for engine, voice in ENGINES.items():
            SETTINGS["audio.tts.engine"] = engine
            with call(NAME, PACKAGE, f"{engine} engine: /models, /voices") as made:
                models = [model["id"] for model in (await theirs.get_models(None, USER))["models"]]
                voices = [one["id"] for one in (await theirs.get_voices(None, USER))["voices"]]
                if voice not in voices or (engine != "openai-realtime" and set(voices) != {"default", "anna"}):
                    raise ValueError(f"the voices are {voices}")
                made.note(f"models {', '.join(models)}; voices {', '.join(voices)}")
            with call(NAME, PACKAGE, f"{engine} engine: /speech, and again from its cache") as made:
                asked = {"input": SENTENCE, "voice": voice}
                first = await theirs.speech(request(asked), USER)
                made.file(Path(first.path).read_bytes(), Path(first.path).suffix[1:])
                again = await theirs.speech(request(asked), USER)
                if again.path != first.path or [event["cached"] for event in events[-2:]] != [False, True]:
                    raise ValueError(f"the same text was spoken twice: {events[-2:]}")
        with call(NAME, PACKAGE, "openai engine: an unknown voice is refused") as made:
            SETTINGS["audio.tts.engine"] = "openai"
            try:
                await theirs.speech(request({"input": SENTENCE, "voice": "nobody"}), USER)
            except HTTPException as e:
                if e.status_code != 404:
                    raise
                made.note(e.detail)
            else:
                raise ValueError("nobody spoke")


asyncio.run(main())
