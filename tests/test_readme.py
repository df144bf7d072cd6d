"""What the README says that code can check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from container.settings import every_setting
from handler.telemetry.recorder import as_markdown

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_table_of_metrics_is_the_one_in_the_code() -> None:
    assert as_markdown() in README


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"`(MME_[A-Z_0-9]+)`", README))))
def test_every_variable_it_names_is_a_setting(variable: str) -> None:
    known = {name for one in every_setting() for name in one.metadata["variables"]}
    assert variable in known


@pytest.mark.parametrize("picture", sorted(set(re.findall(r"benchmarks/pictures/[\w.-]+", README))))
def test_every_picture_is_there_and_small(picture: str) -> None:
    assert 0 < (Path(__file__).parent.parent / picture).stat().st_size < 150_000
