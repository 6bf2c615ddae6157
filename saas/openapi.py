"""The API's OpenAPI document, from which the app's types are made: `python -m saas.openapi`."""

from __future__ import annotations

import json
import sys
from typing import Any

from saas import settings
from saas.app import create_app


def document() -> dict[str, Any]:
    """The same whatever the environment says: no route depends on it."""
    return create_app(settings.read(environment="development", supabase_url="http://127.0.0.1")).openapi()


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
