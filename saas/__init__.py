"""The SaaS plugin: sign-in, credits, storage, dispatch. Never imports torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saas.app import create_app

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    if name != "create_app":
        raise AttributeError(f"module 'saas' has no attribute {name!r}")
    from saas.app import create_app

    return create_app
