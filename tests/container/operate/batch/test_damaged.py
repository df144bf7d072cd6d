"""A run's own documents, damaged: the next call names the one, or goes on; it never ends in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from container.operate.batch.asked import Asked
from container.operate.batch.layout import PLAIN
from container.operate.batch.ledger import Ledger
from container.operate.batch.parts import Counts
from container.operate.exits import CommandFailed
from container.operate.tables.files import DataFile
from container.operate.troubles import Refused
from handler.stores.writing import WritingStore, open_writing_store
from tests.rig.damage import damaged, retyped

SPARING = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
DATA = DataFile("a.csv", 10, "1", "here/", "csv")
MODELS = {f"us/{number}.tar.gz": f'"{number}"' for number in range(11)}


def ledger_at(store: WritingStore) -> Ledger:
    return Ledger(store, Asked(target_template="us/{city}.tar.gz"), [], MODELS)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> WritingStore:
    """With a run of one part, done."""
    root: Path = tmp_path_factory.mktemp("out")
    store = open_writing_store(str(root), makes=True)
    ledger = ledger_at(store)
    ledger.begin(PLAIN)
    (root / "part").write_bytes(b"rows")
    counts = Counts(100, 3, {"us/1.tar.gz", "us/7.tar.gz"}, {"us/x.tar.gz": 3})
    ledger.put_part(DATA, root / "part", root / "none", counts, 1.5, 2)
    return store


@pytest.mark.parametrize("what", ["run.json", "ledger/"])
@SPARING
@given(data=st.data())
def test_a_damaged_document_is_named(store: WritingStore, what: str, data: st.DataObject) -> None:
    (found,) = list(store.list(what))
    whole = store.fetch(found.target).data
    store.put(found.target, data.draw(st.one_of(damaged(whole), retyped(whole))))
    ledger = ledger_at(store)
    try:
        ledger.read_layout()
        ledger.summary(ledger.entries())
    except CommandFailed:
        return  # in words
    finally:
        store.put(found.target, whole)


def test_bits_over_other_models_are_no_bits_of_this_run(store: WritingStore) -> None:
    entries = ledger_at(store).entries()
    fewer = Ledger(store, Asked(target_template="us/{city}.tar.gz"), [], {"us/1.tar.gz": '"1"'})
    with pytest.raises(Refused, match=r"entry of a.csv is not as it was written: it is of other models"):
        fewer.summary(entries)
