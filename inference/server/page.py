"""The playground at `/`: its files, read once, with strict headers."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-cache",
}
"""Browsers load and run only this server's own files, and check on every visit whether they have changed."""
_FILES = Path(__file__).with_name("page")
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


_SERVED = {file.relative_to(_FILES).as_posix(): file.read_bytes() for file in _FILES.rglob("*") if file.suffix in _TYPES}
_TAGS = {name: f'"{hashlib.sha256(content).hexdigest()[:24]}"' for name, content in _SERVED.items()}
router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
@router.api_route("/page/{name:path}", methods=["GET", "HEAD"])
async def page(request: Request, name: str = "index.html") -> Response:
    """A file of the playground."""
    if name not in _SERVED:
        raise HTTPException(404, "Not Found")
    headers = HEADERS | {"ETag": _TAGS[name]}
    if _TAGS[name] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(_SERVED[name], media_type=_TYPES[Path(name).suffix], headers=headers)
