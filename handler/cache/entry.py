"""One model in memory, as the cache keeps it, and what is told of it.

Rule: an entry's fields are guarded by the cache's lock; only its model is used without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from handler.predictor import Scorer


class Prepared(Protocol):
    """An artifact fetched and examined: its cost is known, its memory not yet taken."""

    @property
    def version(self) -> str: ...
    @property
    def n_bytes(self) -> int: ...
    @property
    def downloaded_bytes(self) -> int: ...
    @property
    def download_us(self) -> int | None: ...
    @property
    def examine_us(self) -> int: ...
    @property
    def checked_s_ago(self) -> float: ...
    def load(self) -> Scorer: ...


@dataclass(frozen=True, slots=True)
class Resident:
    """What the cache tells of one model it holds. `idle_s` and `age_s` are since its last use and its load.

    trouble   why a newer version does not take its place, or why none could be looked for; empty when all is well
    """

    target: str
    version: str
    n_bytes: int
    hits: int
    age_s: float
    idle_s: float
    borrowers: int
    trouble: str = ""
    is_pinned: bool = False


class Entry:
    """A model in the index, or on its way out of it."""

    __slots__ = (
        "borrowers", "check_at", "hits", "is_leaving", "is_pinned", "loaded_at", "model", "n_bytes", "target",
        "trouble", "used_at", "version",
    )  # fmt: skip

    def __init__(self, target: str, version: str, model: Scorer, n_bytes: int, now: float) -> None:
        self.target = target
        self.version = version
        self.model = model
        self.n_bytes = n_bytes
        self.borrowers = 0
        self.hits = 0
        self.is_leaving = False
        self.is_pinned = False
        self.loaded_at = now
        self.used_at = now
        self.check_at = math.inf  # when to ask for a newer version; infinite while that is being done
        self.trouble = ""

    def told(self, now: float) -> Resident:
        return Resident(
            self.target,
            self.version,
            self.n_bytes,
            self.hits,
            now - self.loaded_at,
            now - self.used_at,
            self.borrowers,
            self.trouble,
            self.is_pinned,
        )
