"""Figures beside their targets: printed line by line, and whether all were met."""

from __future__ import annotations

from typing import Any


class Verdicts:
    """What a benchmark found out."""

    def __init__(self) -> None:
        self._missed: list[str] = []
        self._lines: list[dict[str, Any]] = []

    def say(self, name: str, figure: str, target: str, is_met: bool) -> None:
        self._lines.append({"name": name, "figure": figure, "target": target, "is_met": is_met})
        if not is_met:
            self._missed.append(name)
        print(f"{name:<15}{figure}; target {target}: {'met' if is_met else 'MISSED'}")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """For the record."""
        return self._lines

    @property
    def exit_status(self) -> int:
        return 1 if self._missed else 0
