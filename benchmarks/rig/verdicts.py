"""Figures held against what was promised: one line each, and 1 as the exit status when one misses.

Rule: a figure that was not taken is not met; it is left out by the benchmark that cannot take it, and said so there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure and its limit.

    is_      whether the limit is the least or the most that the figure may be
    form     how both are written, such as "{:.2f} x"
    """

    what: str
    figure: float
    is_: Literal["at least", "at most"]
    limit: float
    form: str = "{:.2f}"

    @property
    def is_met(self) -> bool:
        return self.figure >= self.limit if self.is_ == "at least" else self.figure <= self.limit

    @property
    def line(self) -> str:
        figure, limit = self.form.format(self.figure), self.form.format(self.limit)
        return f"{'met   ' if self.is_met else 'MISSED'}  {self.what:58} {figure:>12}   {self.is_} {limit}"

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "is_met": self.is_met}


def exit_status(verdicts: Sequence[Verdict]) -> int:
    """Print them; 0 when all are met."""
    for verdict in verdicts:
        print(verdict.line)
    n_missed = sum(not verdict.is_met for verdict in verdicts)
    print(f"{len(verdicts) - n_missed} of {len(verdicts)} met")
    return 1 if n_missed else 0


class Verdicts:
    """The same for figures that are words: each printed as it is found out."""

    def __init__(self) -> None:
        self._missed: list[str] = []
        self._lines: list[dict[str, Any]] = []

    def say(self, name: str, figure: str, target: str, is_met: bool) -> None:
        self._lines.append({"name": name, "figure": figure, "target": target, "is_met": is_met})
        if not is_met:
            self._missed.append(name)
        print(f"{name:<14} {figure}; target {target}: {'met' if is_met else 'MISSED'}")

    @property
    def lines(self) -> list[dict[str, Any]]:
        """For the record."""
        return self._lines

    @property
    def exit_status(self) -> int:
        return 1 if self._missed else 0
