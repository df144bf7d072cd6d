"""What the README says that code can check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from container.settings import every_setting
from handler.telemetry.recorder import as_markdown

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = sorted(path for room in ("container", "handler") for path in (ROOT / room).rglob("README.md"))


def test_the_table_of_metrics_is_the_one_in_the_code() -> None:
    assert as_markdown() in (ROOT / "container/metrics/README.md").read_text()


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"`(MME_[A-Z_0-9]+)`", README))))
def test_every_variable_it_names_is_a_setting(variable: str) -> None:
    known = {name for one in every_setting() for name in one.metadata["variables"]}
    assert variable in known


@pytest.mark.parametrize("picture", sorted(set(re.findall(r"benchmarks/pictures/[\w.-]+", README))))
def test_every_picture_is_there_and_small(picture: str) -> None:
    assert 0 < (Path(__file__).parent.parent / picture).stat().st_size < 150_000


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
