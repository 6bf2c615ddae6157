"""Keeps Python's collector of reference cycles from walking through everything that was imported while an engine generates.

A full collection would take 100 ms and stall every stream. Python never collects frozen objects, so closing the last engine
unfreezes them, and a second engine freezes nothing more.
"""

from __future__ import annotations

import gc
import threading

_lock = threading.Lock()
_engines = 0


def freeze() -> None:
    """Call this when an engine starts. It collects garbage first; otherwise the garbage would be kept."""
    global _engines  # noqa: PLW0603 - the collector is global, too
    with _lock:
        _engines += 1
        if _engines == 1:
            gc.collect()
            gc.freeze()


def unfreeze() -> None:
    """Call this when an engine has ended."""
    global _engines  # noqa: PLW0603
    with _lock:
        _engines -= 1
        if _engines == 0:
            gc.unfreeze()
