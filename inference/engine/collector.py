"""Keeps Python's collector of reference cycles from walking through everything that was imported while an engine generates.

A full collection would take 100 ms, and every stream would wait for it. What is frozen is never collected, so nothing stays
frozen once the last engine has closed, and a second engine freezes nothing.
"""

from __future__ import annotations

import gc
import threading

_lock = threading.Lock()
_engines = 0


def freeze() -> None:
    """An engine starts. Garbage is collected first, or it would be kept."""
    global _engines  # noqa: PLW0603 - the collector is the process's, too
    with _lock:
        _engines += 1
        if _engines == 1:
            gc.collect()
            gc.freeze()


def unfreeze() -> None:
    """An engine has ended."""
    global _engines  # noqa: PLW0603
    with _lock:
        _engines -= 1
        if _engines == 0:
            gc.unfreeze()
