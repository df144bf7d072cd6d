"""The fleet's page in a real browser, and what it says to whom."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from container.operate.fleet.asked import Asker, Model, Told
from container.operate.fleet.page import FleetFacts, FleetPage
from tests.rig.browser import CHROMIUM, Browser, Page
from tests.rig.endpoint import until

HOSTILE = '<img src=x onerror="window.hacked=1">.tar.gz'


def told(name: str, why: str, *models: str) -> Told:
    now = {"requests_per_s": 12.5, "hit_ratio": 0.75, "loaded_bytes": 1 << 20, "budget_bytes": 4 << 20}
    held = tuple(Model(one, name, 2048, 5, 60.0, 1.0, is_pinned=False) for one in models)
    return Told(name, f"http://{name}", why, now, 40, 30, 2, held)


class Fixed(Asker):
    """Replicas that say the same each time."""

    def ask(self) -> tuple[Told, ...]:
        return told("replica-1", "", HOSTILE, "us/a.tar.gz"), told("replica-2", "stopping", "us/a.tar.gz")


@pytest.fixture
def page() -> Iterator[FleetPage]:
    one = FleetPage(FleetFacts("four replicas", Fixed({}), lambda: {"replica-1": 1, "replica-2": 3}), 0)
    one.start()
    yield one
    one.close()


def get(page: FleetPage, path: str, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=30)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_models_are_told_in_pages_as_an_endpoint_tells_them(page: FleetPage) -> None:
    _, first = get(page, "/models?limit=1&sort=name")
    assert (first["total"], first["matching"], first["next_offset"]) == (2, 2, 1)
    _, second = get(page, "/models?limit=1&offset=1&sort=name")
    assert (second["models"][0]["replicas"], second["next_offset"]) == (["replica-1", "replica-2"], None)
    assert get(page, "/models?contains=img")[1]["matching"] == 1


def test_it_is_ready_while_anybody_is_and_says_who_is_not(page: FleetPage) -> None:
    assert get(page, "/readyz") == (200, {"ok": True, "reasons": ["replica-2: stopping"]})
    assert get(page, "/nothing")[0] == 404
    assert get(page, "/fleet.json", Host="evil.example")[0] == 421


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")
def test_a_browser_shows_who_holds_what_and_runs_no_name(
    page: FleetPage, tmp_path_factory: pytest.TempPathFactory
) -> None:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        shown = Page(browser, f"http://127.0.0.1:{page.port}/")
        until(lambda: "Some away" in shown.text("#headline"), 60)
        assert "replica-2: stopping" in shown.text("#detail")
        assert shown.text("#hits").startswith("75")
        assert "replica-1, replica-2" in shown.text("#holder-rows")
        assert HOSTILE in shown.text("#holder-rows")
        assert shown.run("window.hacked === undefined") is True
        shown.close()
    finally:
        browser.close()
