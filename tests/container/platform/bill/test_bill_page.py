"""The bill's page in a real browser, of a platform whose clock stands still: what it says, in which width and light."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from container.platform.clock import ManualClock
from tests.container.metrics.test_status_page import CONTRASTS
from tests.container.platform.test_zero import Bare, Zero
from tests.rig.browser import CHROMIUM, Browser, Page
from tests.rig.platform import platform

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def zero() -> Iterator[Zero]:
    """An endpoint that has gone to zero, and its failed attempt to have four copies of everything."""
    with platform(clock=ManualClock(), traps=["double-events"]) as played:
        account = Bare(played)
        zero = Zero(account, "shop")
        zero.create()
        zero.policies()
        account.tick(17 * 60)
        zero.until(("InService", 0, 1))
        account.tick(10 * 60)
        zero.until(("InService", 0, 0))
        yield zero
        zero.close()
        account.close()


@pytest.fixture
def open_page(browser: Browser, zero: Zero) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def open_page(**options: Any) -> Page:
        pages.append(Page(browser, f"{zero.aws.url}/_platform", **options))
        pages[-1].wait_for("document.querySelectorAll('#events tr').length > 0")
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def test_the_sum_is_the_first_thing_said_and_the_lines_add_up_to_it(open_page: Callable[..., Page], zero: Zero) -> None:
    """0:00 to 0:25 or 0:26 of one ml.m5.large, at 0.115 an hour."""
    page, bill = open_page(), zero.aws.platform.bill()
    assert page.text("#headline") == "0.05 USD"
    assert page.text("#detail").startswith("0.000 USD an hour as it is now")
    assert page.run("document.title") == "0.05 USD \u2013 platform"
    assert 25 * 60 <= bill.lines[0].seconds <= 28 * 60
    cells = page.run("[...document.querySelectorAll('#lines td')].map((cell) => cell.textContent)")
    assert cells == ["endpoint shop/AllTraffic", "ml.m5.large", "0", f"{bill.lines[0].seconds / 3600:.2f}", "0.05"]
    assert "Prices of 2026-09-28, us-east-1" in page.text("#prices")


def test_components_activities_alarms_and_events_are_there(open_page: Callable[..., Page]) -> None:
    page = open_page()
    assert page.text("#endpoints tr:nth-child(1)").split("\t")[:2] == ["shop", "InService"]
    assert page.text("#endpoints tr:nth-child(3)").split("\t")[:4] == ["shop-ic", "InService", "0", "0"]
    assert "Setting desired copy count to 0." in page.text("#activities")
    assert "triggered policy track" in page.text("#activities")
    assert "shop-wake" in page.text("#alarms")
    assert "IN_SERVICE" in page.text("#events")
    assert page.text("#jobs") == "none"
    assert page.text("#traps") == "traps: double-events"
    label = page.run("document.querySelector('#drawing svg').getAttribute('aria-label')")
    assert label == "Instances over time. shop/AllTraffic: 0 now"


def test_it_goes_on_by_itself_and_says_what_stands_idle(open_page: Callable[..., Page], zero: Zero) -> None:
    page = open_page()
    assert page.run("document.getElementById('verdict').className") == "verdict good"
    zero.aws.sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="shop-ic", DesiredRuntimeConfig={"CopyCount": 1}
    )
    zero.scaling.register_scalable_target(**zero.where, MinCapacity=1, MaxCapacity=1)
    zero.aws.tick(105)
    zero.until(("InService", 1, 1))
    zero.aws.tick(2 * 3600)
    page.wait_for("document.getElementById('detail').textContent.includes('no call for 2 h')")
    assert page.text("#detail").startswith("shop/AllTraffic: 1 instance, no call for 2 h. 0.115 USD an hour")
    assert page.run("document.getElementById('verdict').className") == "verdict warn"
    assert page.text("#lines td:nth-child(3)") == "1"


def test_the_strict_policy_stops_nothing_the_page_does(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.run("refresh()")
    assert page.browser.trouble == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(open_page: Callable[..., Page], width: int, tmp_path: Path) -> None:
    page = open_page(width=width)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.screenshot(tmp_path / f"{width}.png").startswith(b"\x89PNG")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_light_and_in_the_dark(open_page: Callable[..., Page], scheme: str) -> None:
    assert open_page(scheme=scheme).run(CONTRASTS) == []
