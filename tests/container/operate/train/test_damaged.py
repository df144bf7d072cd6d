"""A training run's own documents, damaged: the next call names the one, or goes on; it never ends in a traceback."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from container.operate.exits import CommandFailed
from container.operate.tables.names import Names
from container.operate.train import profiles
from container.operate.train.done import Done
from container.operate.train.ledger import Begun, Ledger
from container.operate.train.profiles import Profile
from container.operate.train.segment import Came
from container.operate.troubles import Refused
from handler.stores.writing import WritingStore, open_writing_store
from tests.rig.damage import damaged, retyped

SPARING = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
RELEASE = "20261129-213503-e638de33"
PROFILE = Profile(np.zeros((2, 9), np.float32), np.zeros((2, 11), np.float32))


def ledger_at(store: WritingStore) -> Ledger:
    return Ledger(store, {"asked": "the same"}, "000")


def written(names: tuple[str, ...], of_keys: Iterable[tuple[str, Profile]]) -> bytes:
    made = io.BytesIO()
    profiles.write(made, names, of_keys)
    return made.getvalue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WritingStore:
    """With a run of one segment, done, and a release's profiles."""
    root: Path = tmp_path_factory.mktemp("shelf")
    store = open_writing_store(str(root), makes=True)
    ledger = ledger_at(store)
    ledger.begin(Begun("2026-11-29T21:35:03Z", "me"))
    ledger.add(Came("us/1.tar.gz", None, "it is small", profile=PROFILE))
    ledger.flush()
    profiles.put(store, RELEASE, ("x0", "x1"), [("us/1.tar.gz", PROFILE)])
    return store


@pytest.mark.parametrize("what", ["runs/", "profiles/"])
@SPARING
@given(data=st.data())
def test_a_damaged_document_is_named(store: WritingStore, what: str, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(found.target for found in store.list(what))))
    whole = store.fetch(key).data
    ways = damaged(whole) if key.endswith(".npz") else st.one_of(damaged(whole), retyped(whole))
    store.put(key, data.draw(ways))
    ledger = ledger_at(store)
    try:
        ledger.begin(Begun("later", "somebody"))
        written(("x0", "x1"), [(came.key, came.profile) for came in ledger.read() if came.profile is not None])
        profiles.read(store, RELEASE)
    except CommandFailed:
        return  # in words
    finally:
        store.put(key, whole)


@pytest.mark.parametrize("n_features", [1, 3])
def test_profiles_of_other_features_than_they_name_are_refused(store: WritingStore, n_features: int) -> None:
    key = profiles.place_of(RELEASE)
    whole = store.fetch(key).data
    names = tuple(f"x{at}" for at in range(n_features))
    store.put(key, written(names, [("us/1.tar.gz", PROFILE)]))
    with pytest.raises(Refused, match=rf"{RELEASE}\.npz is not as it was written"):
        profiles.read(store, RELEASE)
    store.put(key, whole)


def test_a_profile_of_other_features_than_those_before_is_refused() -> None:
    other = Profile(PROFILE.edges[:1], PROFILE.shares[:1])
    with pytest.raises(Refused, match=r"the profile of us/2\.tar\.gz is of 1 features, others of 2"):
        written(("x0", "x1"), [("us/1.tar.gz", PROFILE), ("us/2.tar.gz", other)])


def test_a_ledger_with_a_segment_that_the_data_has_not_is_refused(store: WritingStore, tmp_path: Path) -> None:
    assert Done(Names(["us/1.tar.gz"]), ledger_at(store), tmp_path).is_whole
    assert not Done(Names(["us/1.tar.gz", "us/2.tar.gz"]), ledger_at(store), tmp_path).is_whole
    with pytest.raises(Refused, match=r"is not as it was written: the data has no rows of us/1\.tar\.gz"):
        Done(Names(["us/2.tar.gz"]), ledger_at(store), tmp_path)
