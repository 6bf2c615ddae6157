"""fishserve's front door: `from fishserve import SpeechEngine, SpeechRequest, Voice`, and `python -m fishserve`.

The engine itself is in the package `inference`, which defines these names.
"""

from typing import TYPE_CHECKING, Any

import inference

if TYPE_CHECKING:
    from inference import *  # noqa: F403 - the same names

__all__ = inference.__all__


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fishserve' has no attribute {name!r}")
    return getattr(inference, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
