"""A training job's own metrics, read from what it prints.

Rule: of each metric the last value is the job's; a line in which a pattern finds no number tells nothing.

Source: MetricDefinition and FinalMetricDataList in botocore's model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from container.platform.logs import Stream


class Read(Stream):
    """A host's log of which figures are read. on_figure: told a metric's name and a value of it."""

    def __init__(
        self,
        client: Any,
        group: str,
        name: str,
        patterns: Mapping[str, re.Pattern[str]],
        on_figure: Callable[[str, float], None],
    ) -> None:
        super().__init__(client, group, name)
        self._patterns = patterns
        self._on_figure = on_figure

    def put(self, lines: list[bytes]) -> None:
        for line in lines:
            for name, pattern in self._patterns.items():
                value = _value(pattern, line.decode(errors="replace"))
                if value is not None:
                    self._on_figure(name, value)
        super().put(lines)


def _value(pattern: re.Pattern[str], line: str) -> float | None:
    found = pattern.search(line)
    try:
        return float(found.group(1)) if found else None
    except (IndexError, TypeError, ValueError):  # the pattern has no group, or what it found is no number
        return None
