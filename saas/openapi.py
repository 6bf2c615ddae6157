"""The API's OpenAPI document, from which the app's types are made: `python -m saas.openapi`.

It leaves out descriptions and summaries, which the app does not need.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from inference.errors import MissingExtra
from inference.extras import needs


def document() -> dict[str, Any]:
    """The document with the desk, the same in every environment. Raises MissingExtra when the API's packages are not installed."""
    with needs("saas", "`python -m saas.openapi`"):
        from saas import settings
        from saas.app import create_app
    given = settings.read(environment="development", supabase_url="http://127.0.0.1", operator_role="operator")
    whole: dict[str, Any] = _wordless(create_app(given).openapi())
    return whole


def _wordless(part: Any) -> Any:
    if isinstance(part, dict):
        return {k: _wordless(v) for k, v in part.items() if not (k in ("description", "summary") and isinstance(v, str))}
    return [_wordless(item) for item in part] if isinstance(part, list) else part


if __name__ == "__main__":
    try:
        json.dump(document(), sys.stdout, indent=1)
    except MissingExtra as e:
        sys.exit(f"error: {e}")
