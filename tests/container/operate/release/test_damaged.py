"""What lies on the shelf, damaged: each command says which document, or works; none ends in a traceback."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from container.operate.exits import CommandFailed
from container.operate.release import shelf
from container.operate.release.approve import approve
from container.operate.release.choice import Choice
from container.operate.release.diff import Gate
from container.operate.release.live import read_current, read_history, settled
from container.operate.release.manifest import Manifest
from container.operate.release.place import place_at
from container.operate.release.whole import wholeness
from container.operate.troubles import Refused
from handler.errors import ArtifactError
from tests.rig.damage import damaged, retyped
from tests.rig.shop import Shop

SPARING = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """With two changes behind it."""
    shop = Shop(place_at(str(tmp_path_factory.mktemp("shop") / "live")))
    for text in ("one", "two"):
        approve(shop.place, shop.candidate({"a": text, "b": text}), Gate(), Choice(), who="ann")
    return shop


@pytest.mark.parametrize("what", ["current.json", "states/", "history/", "releases/"])
@SPARING
@given(data=st.data())
def test_a_damaged_document_is_named(shop: Shop, what: str, data: st.DataObject) -> None:
    store = shop.place.shelf
    key = max(found.target for found in store.list(what) if found.target.endswith(".json"))
    whole = store.fetch(key).data
    store.put(key, data.draw(st.one_of(damaged(whole), retyped(whole))))
    try:
        current, _ = settled(shop.place)
        wholeness(shop.place)
        read_history(store, read_current(store), 10)
        shelf.newest(store)
        assert current.release is not None
    except (CommandFailed, ArtifactError):
        return  # in words
    finally:
        store.put(key, whole)


def test_a_type_that_is_another_is_refused_with_the_place(shop: Shop) -> None:
    store = shop.place.shelf
    whole = store.fetch("current.json").data
    store.put("current.json", whole.replace(b'"who": "ann"', b'"who": 5', 1))
    with pytest.raises(Refused, match=r"current.json is not as it was written: Expected `str`, got `int`.*change.who"):
        read_current(store)
    store.put("current.json", whole)


@SPARING
@given(data=st.data())
def test_a_damaged_manifest_is_refused_or_reads_back(shop: Shop, data: st.DataObject) -> None:
    whole = shelf.newest(shop.place.shelf).to_json()
    try:
        Manifest.from_json(data.draw(st.one_of(damaged(whole), retyped(whole))), "x").to_json()
    except Refused:
        return  # in words
