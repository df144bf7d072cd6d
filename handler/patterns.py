"""Patterns an operator writes to name many targets: `eu/*, us/Houston_TX.tar.gz` or `all`.

Rule: a pattern is matched against the whole target, and `*` matches slashes too, as it does in IAM policies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate

from handler.stores import Store

ALL = "all"
_WILD = re.compile(r"[*?\[]")


class Patterns:
    """Shell patterns (`*`, `?`, `[a-z]`), compared case by case. Without any, nothing matches."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple("*" if pattern == ALL else pattern for pattern in patterns)
        self._expressions = tuple(re.compile(translate(pattern)) for pattern in self._patterns)

    @classmethod
    def parse(cls, text: str) -> Patterns:
        """From a list with commas."""
        return cls([part.strip() for part in text.split(",") if part.strip()])

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, target: str) -> bool:
        return any(expression.match(target) for expression in self._expressions)

    def targets(self, store: Store) -> Iterator[str]:
        """Every target in the store that matches, each once, listing no more than the patterns' fixed beginnings.

        raises   ArtifactError when the store cannot be listed
        """
        prefixes = sorted(_WILD.split(pattern, maxsplit=1)[0] for pattern in self._patterns)
        listed: str | None = None
        for prefix in prefixes:
            if listed is not None and prefix.startswith(listed):
                continue
            listed = prefix
            for found in store.list(prefix):
                if self.match(found.target):
                    yield found.target
