"""The SaaS API as one ASGI app: what is mounted, what watches over it, and what lives as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from saas import errors
from saas.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The API. Its state is made when it starts. Raises RequestError for settings that must not be served with."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack():
            yield

    app = FastAPI(
        title="fishserve SaaS", summary="Speech for sale: sign-in, credits, voices, jobs", redirect_slashes=False, lifespan=lifespan
    )
    errors.register(app)
    app.state.settings = settings
    return app
