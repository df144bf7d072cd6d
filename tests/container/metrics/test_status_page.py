"""The status page in a real browser: what it says, in which width and light, and what it does with hostile names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from container.metrics.admin import AdminServer
from container.metrics.history import History, Point
from container.metrics.prometheus import PrometheusExporter
from handler.telemetry.recorder import LiveRecorder
from tests.rig.browser import CHROMIUM, Browser, Page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")

HOSTILE = '<img src=x onerror="window.hacked=1">.tar.gz'
LONG = "apac/japan/kansai/hyogo/nishinomiya/kotoen/" + "a-very-long-name-without-an-end" * 3 + ".tar.gz"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def server(process: Any, recorder: LiveRecorder, clock: Any) -> Iterator[AdminServer]:
    """An hour of a cache that is too small, with a pause in the middle."""
    history, before = History(), recorder.collect()
    process.budget_bytes = 3 * 70_000
    for name in ("eu/Houston_TX.tar.gz", HOSTILE, LONG):
        process.hold(name)
    for i in range(720):
        clock.now_s += 5
        if not 300 < i < 340:
            for n, name in enumerate(("eu/Houston_TX.tar.gz", HOSTILE, LONG)):
                for k in range(6 - n):
                    recorder.invocation(name, k > 0, 900 + i, 200 + 10 * k, 200)
            recorder.loaded(HOSTILE, load_us=25_000, download_us=9_000, downloaded_bytes=50_000)
            recorder.evicted(HOSTILE, unload_us=150, age_us=4_000_000, n_bytes=70_000)
        now = recorder.collect()
        history.append(Point.between(before, now))
        before = now
    server = AdminServer(
        source=process,
        recorder=recorder,
        history=history,
        prometheus=PrometheusExporter(recorder),
        clock_s=clock,
    )
    server.start()
    yield server
    server.close()


@pytest.fixture
def open_page(browser: Browser, server: AdminServer) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def open_page(**options: Any) -> Page:
        host, port = server.address
        pages.append(Page(browser, f"http://{host}:{port}/", **options))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()


def test_the_verdict_and_the_model_behind_it_are_the_first_things_said(open_page: Callable[..., Page]) -> None:
    page = open_page()
    assert page.text("#headline") == "Thrashing"
    assert "evicted less than five minutes before" in page.text("#detail")
    assert page.run("document.title") == "\u26a0\ufe0e Thrashing \u2013 churn/AllTraffic"
    assert page.text("#thrash-rows tr td.name") == HOSTILE
    assert page.run("document.querySelector('#thrash-rows').getBoundingClientRect().top < innerHeight") is True
    assert page.text("#memory") == "205 KiB of 205 KiB"
    assert page.run("document.getElementById('meter').getAttribute('aria-valuenow')") == "100"


def test_names_of_models_are_shown_as_text_whatever_they_contain(open_page: Callable[..., Page]) -> None:
    page = open_page()
    names = page.run("[...document.querySelectorAll('#busy-rows td.name')].map((cell) => cell.textContent)")
    assert names == ["eu/Houston_TX.tar.gz", HOSTILE, LONG]
    assert page.run("document.querySelectorAll('img, table script').length") == 0
    assert page.run("window.hacked === undefined") is True


def test_the_strict_policy_stops_nothing_the_page_does(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.run("refresh()")
    assert page.browser.trouble == []


def test_both_curves_of_the_cache_are_drawn_and_a_pause_is_a_gap_and_not_a_zero(
    open_page: Callable[..., Page],
) -> None:
    page = open_page()
    lines = "document.querySelectorAll('#chart-{} path.line').length"
    assert page.run(lines.format("models")) == 1
    assert page.run(lines.format("hits")) == 2
    assert page.run(lines.format("latency")) == 4
    assert "highest 80%" in page.run("document.querySelector('#chart-hits svg').getAttribute('aria-label')")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(open_page: Callable[..., Page], width: int, tmp_path: Path) -> None:
    page = open_page(width=width)
    page.run("document.querySelector('details').open = true")
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.screenshot(tmp_path / f"{width}.png").startswith(b"\x89PNG")


CONTRASTS = """
(() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (at) => {
    for (; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return light(colour);
    }
    return 1;
  };
  const found = [];
  for (const at of document.querySelectorAll("body *")) {
    const own = [...at.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !at.checkVisibility()) continue;
    const style = getComputedStyle(at);
    const ink = light(rgb(at instanceof SVGElement ? style.fill : style.color)), paper = ground(at);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) found.push(`${at.tagName} ${at.id} ${at.className} ${ratio.toFixed(2)}`);
  }
  return found;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read_in_light_and_in_the_dark(open_page: Callable[..., Page], scheme: str) -> None:
    page = open_page(scheme=scheme)
    page.run("document.querySelector('details').open = true")
    assert page.run(CONTRASTS) == []
    ground = page.run("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(244, 245, 247)", "dark": "rgb(15, 18, 22)"}[scheme]


def test_every_drawing_has_words_and_a_table_says_the_same(open_page: Callable[..., Page]) -> None:
    page = open_page()
    labels = page.run("[...document.querySelectorAll('svg[role=img]')].map((svg) => svg.getAttribute('aria-label'))")
    assert len(labels) == 6
    assert all("last hour" in label and "now" in label for label in labels)
    assert page.run("[...document.querySelectorAll('th')].every((cell) => cell.scope === 'col')") is True
    assert page.run("document.querySelectorAll('#history-rows tr').length") == 24
    assert page.run("document.getElementById('verdict').getAttribute('aria-live')") == "polite"
    assert page.run("document.documentElement.lang") == "en"


def test_a_server_that_went_away_is_said_so_and_the_old_facts_are_dimmed(
    open_page: Callable[..., Page], server: AdminServer
) -> None:
    page = open_page()
    server.close()
    page.run("refresh()")
    assert page.text("#headline") == "No contact"
    assert "What is below is from" in page.text("#detail")
    assert page.run("document.querySelector('main').classList.contains('old')") is True


def test_a_server_with_nothing_to_tell_yet_makes_a_whole_page(
    browser: Browser, process: Any, recorder: LiveRecorder
) -> None:
    server = AdminServer(source=process, recorder=recorder, history=History(), prometheus=PrometheusExporter(recorder))
    server.start()
    page = Page(browser, "http://{}:{}/".format(*server.address))
    try:
        assert page.text("#headline") == "Idle"
        assert page.text("#busy-rows") == "No requests yet."
        assert page.text("#evicted-rows") == "Nothing has been evicted."
        assert page.run("document.getElementById('thrash-panel').hidden") is True
        assert browser.trouble == []
    finally:
        page.close()
        server.close()
