"""Keys and values kept beyond the slot they were computed in, so that no prompt is computed twice.

A whole voice is small (12 KB a position in FP16 at the released shape): copying it into a slot takes microseconds on a GPU
and about a millisecond on a CPU, so there are no pages, only copies.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from inference.engine import metrics
from inference.model.dual_ar import KVCache

KEPT_SHARE = 4
"""The cached prefixes of voices may take a quarter of the slots' memory, and so may the prefixes that waiting requests keep."""


@dataclass(frozen=True)
class KVPrefix:
    """Columns (1 + codebooks, n) int64 and the slow layers' keys and values for them, (layers, 2, kv_heads, n, head_dim)."""

    columns: Tensor
    kept: Tensor

    @staticmethod
    def of(cache: KVCache, row: int, columns: Tensor) -> KVPrefix:
        """Copy the first positions of a row, which were computed from `columns`."""
        return KVPrefix(columns, cache.both[:, :, row, :, : columns.shape[1]].clone())

    @property
    def bytes(self) -> int:
        return self.kept.nbytes

    def shared(self, prompt: Tensor) -> int:
        """How many leading columns `prompt` has in common with this prefix."""
        n = min(self.columns.shape[1], prompt.shape[1])
        differs = (self.columns[:, :n] != prompt[:, :n]).any(0)
        return int(differs.int().argmax()) if bool(differs.any()) else n

    def restore(self, cache: KVCache, row: int, length: int) -> None:
        """Copy the first `length` positions into a row."""
        cache.both[:, :, row, :, :length] = self.kept[:, :, :, :length]


class PrefixCache:
    """The KV prefixes of voices. When together they exceed `budget` bytes, the least recently used are dropped first."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._prefixes: OrderedDict[bytes, KVPrefix] = OrderedDict()
        for result in ("hit", "miss"):  # that is 0 at first: a counter that begins at 1 has not grown
            metrics.PREFIXES.labels(result)

    @property
    def bytes(self) -> int:
        return sum(prefix.bytes for prefix in self._prefixes.values())

    def get(self, columns: Tensor) -> KVPrefix | None:
        """The prefix of exactly these columns, or None."""
        key = _key(columns)
        found = self._prefixes.get(key)
        metrics.PREFIXES.labels("hit" if found else "miss").inc()
        if found:
            self._prefixes.move_to_end(key)
        return found

    def put(self, prefix: KVPrefix) -> None:
        """Keep a prefix, unless it alone exceeds the budget."""
        if prefix.bytes > self._budget:
            return
        self._prefixes[_key(prefix.columns)] = prefix
        while self.bytes > self._budget:
            self._prefixes.popitem(last=False)
        metrics.PREFIX_BYTES.set(self.bytes)


def _key(columns: Tensor) -> bytes:
    return columns.contiguous().numpy().tobytes()
