"""What is promised is held: one line each, and the exit status."""

from __future__ import annotations

import pytest

from benchmarks.rig.verdicts import Verdict, exit_status


@pytest.mark.parametrize(
    ("verdict", "is_met"),
    [
        (Verdict("speed", 1.2, "at least", 1.2), True),
        (Verdict("speed", 1.19, "at least", 1.2), False),
        (Verdict("memory", 100.0, "at most", 100.0), True),
        (Verdict("memory", 100.1, "at most", 100.0), False),
        (Verdict("speed", float("nan"), "at least", 1.2), False),
        (Verdict("memory", float("nan"), "at most", 1.2), False),
    ],
)
def test_a_limit_is_held_to_the_figure_itself_and_nothing_is_nothing(verdict: Verdict, is_met: bool) -> None:
    assert verdict.is_met is is_met


def test_one_that_misses_makes_the_status_one(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Verdict("speed", 2.0, "at least", 1.0, "{:.1f} x"), Verdict("memory", 2.0, "at most", 1.0, "{:.0f} MB")
    assert exit_status([good, good]) == 0
    capsys.readouterr()
    assert exit_status([good, bad]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["met", "MISSED", "1"]
    assert lines[0].endswith("2.0 x   at least 1.0 x")
    assert lines[1].endswith("2 MB   at most 1 MB")
