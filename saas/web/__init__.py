"""The app for people, as Vite built it, under /app. If it is not built, a page says how to build it; everything else works without it."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from saas.settings import Settings

DIST = Path(__file__).with_name("dist")
TURNSTILE = "https://challenges.cloudflare.com"
_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json",
    ".woff2": "font/woff2",
}  # fmt: skip
_HASHED = re.compile(r"assets/[\w.-]+-[\w-]{8}\.\w+")
_FOREVER = "public, max-age=31536000, immutable"
_UNBUILT = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>fishserve</title>
<h1>The app is not built yet</h1>
<p>The API runs without it. To have the app here, too: on a machine with Node 20.19 or newer run <code>make web</code> in fishserve's folder,
and start this server again.</p></html>
"""


def is_built() -> bool:
    """Whether there is an app to serve."""
    return (DIST / "index.html").is_file()


def policy(settings: Settings) -> str:
    """The app's Content-Security-Policy: its own files, Turnstile's script, and connections to the API, Supabase and the bucket."""
    own = {"'self'", _origin(settings.public_url), _origin(settings.supabase_url), _bucket(settings)} - {""}
    turnstile = f" {TURNSTILE}" if settings.turnstile_site_key else ""
    rules = {
        "default-src": "'none'", "script-src": f"'self'{turnstile}", "frame-src": turnstile.strip() or "'none'", "style-src": "'self'",
        "img-src": "'self' data:", "connect-src": " ".join(sorted(own)), "media-src": "'self' blob:", "base-uri": "'none'",
        "form-action": "'self'", "frame-ancestors": "'none'",
    }  # fmt: skip
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def address(settings: Settings) -> str:
    """The app's address, or what it takes to build the app."""
    return settings.app if settings.app_url or is_built() else "not built; it takes Node 20.19 or newer and `make web`"


def router(settings: Settings, dist: Path = DIST) -> APIRouter:
    """/app and the paths under it. A path that is not a file is a page of the app; the app itself knows whether that page exists."""
    plain = {str(f.relative_to(dist)): f.read_bytes() for f in dist.rglob("*") if f.suffix in _TYPES} if dist.is_dir() else {}
    files = {name: {"": content, "gzip": gzip.compress(content, 9, mtime=0)} for name, content in plain.items()}
    tags = {name: hashlib.sha256(content).hexdigest()[:24] for name, content in plain.items()}
    guard = {
        "Content-Security-Policy": policy(settings), "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin", "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=()",
    }  # fmt: skip
    routes = APIRouter(include_in_schema=False)

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def home() -> RedirectResponse:
        return RedirectResponse(f"{settings.app}/", 307)

    @routes.api_route("/app", methods=["GET", "HEAD"])
    async def top(request: Request) -> RedirectResponse:
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{request.scope.get('root_path', '')}/app/{query}", 307)

    @routes.api_route("/app/{path:path}", methods=["GET", "HEAD"])
    async def file(request: Request, path: str) -> Response:
        if not files:
            return Response(_UNBUILT, 503, guard | {"Cache-Control": "no-store"}, "text/html")
        if path not in files:
            if path.startswith("assets/") or Path(path).suffix in _TYPES:
                return Response("There is no such file.", 404, guard, "text/plain")
            path = "index.html"
        coding = "gzip" if "gzip" in request.headers.get("accept-encoding", "") else ""
        tag = f'"{tags[path]}{coding}"'
        headers = guard | {"ETag": tag, "Vary": "Accept-Encoding", "Cache-Control": _FOREVER if _HASHED.fullmatch(path) else "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if coding:
            headers["Content-Encoding"] = coding
        return Response(files[path][coding], headers=headers, media_type=_TYPES[Path(path).suffix])

    return routes


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""


def _bucket(settings: Settings) -> str:
    """The bucket's origin, for uploading clips and downloading results."""
    return _origin(settings.r2_endpoint)
