"""Which model stands in for a segment that has none: the nearest default up the target's path.

    us/tx/Houston.tar.gz -> us/tx/_default.tar.gz -> us/_default.tar.gz -> _default.tar.gz

Rule: only what is missing has a stand-in. A model that is broken, forbidden or not here yet is an error as ever: another
model's answer in its place would hide it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from handler.cache.model_cache import Borrowed
from handler.errors import ArtifactMissing

# What custom attributes and their values may not hold besides what is not ASCII, see attributes.py.
_PLAIN = "/._-~ +:@()'!$&*%#?[]"


@dataclass(frozen=True, slots=True)
class StandIn:
    """target: of the model that answers."""

    target: str
    borrowed: Borrowed

    @property
    def told(self) -> str:
        """For the answer's custom attributes; what cannot stand there is written as in a URL."""
        return f"model={quote(self.target, safe=_PLAIN)}"


class Fallback:
    """name: a file's name, looked for in the target's folder and in each above; with a slash in it that one key alone."""

    def __init__(
        self, name: str, borrow: Callable[[str, float], Borrowed], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._borrow = borrow
        self._clock_s = clock_s

    def borrow(self, target: str, wait_s: float, missing: ArtifactMissing) -> StandIn:
        """The stand-in, borrowed. Raises `missing` when there is none either, and what borrowing one raises.

        wait_s   for all candidates together: a caller's target may have hundreds of folders
        """
        ends_s = self._clock_s() + wait_s
        for candidate in self.candidates(target):
            try:
                return StandIn(candidate, self._borrow(candidate, max(0.0, ends_s - self._clock_s())))
            except ArtifactMissing:
                continue
        raise missing

    def candidates(self, target: str) -> Iterator[str]:
        """The nearest first, never the target itself."""
        if "/" in self._name:
            found = [self._name]
        else:
            folders = target.split("/")[:-1]
            found = ["/".join([*folders[:depth], self._name]) for depth in range(len(folders), -1, -1)]
        return (candidate for candidate in found if candidate != target)
