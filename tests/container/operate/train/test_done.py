"""What a run has done, put by on disk, held against the same in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow")

from container.operate.release.manifest import Features, Judged, Manifest, Segment
from container.operate.tables.names import Names
from container.operate.train.done import Done
from container.operate.train.ledger import Ledger
from container.operate.train.profiles import Profile
from container.operate.train.segment import Came
from handler.stores.writing import open_writing_store

PROFILE = Profile(np.zeros((2, 9), np.float32), np.zeros((2, 11), np.float32))
FEATURES = Features(2, ("x", "ÿ"), ("float", "float"))


def ledger_at(root: Path) -> Ledger:
    return Ledger(open_writing_store(str(root), makes=True), {"asked": "the same"}, "000")


def came(key: str, n_bytes: int = 9) -> Came:
    return Came(
        key, Segment("ab" * 32, n_bytes, "reg:squarederror", FEATURES, judged=Judged("rmse", 5, 0.5)), profile=PROFILE
    )


def test_it_is_the_segments_of_a_release_in_the_order_of_their_keys_and_the_last_word_of_each_holds(
    tmp_path: Path,
) -> None:
    ledger = ledger_at(tmp_path / "shelf")
    without = Came("us/é", None, "it is small", True, PROFILE)
    for one in (
        came("us/z"),
        came("us/ü"),
        came("us/a", 1),
        Came("us/b", None, "now"),
        without,
        came("us/b"),
        came("us/a", 2),
    ):
        ledger.add(one)
    ledger.flush()
    done = Done(Names(["us/z", "us/é", "us/a", "us/ü", "us/b"]), ledger, tmp_path)
    expected = {key: came(key).segment for key in ("us/b", "us/z", "us/ü")} | {"us/a": came("us/a", 2).segment}
    assert done.is_whole
    assert dict(done) == expected
    assert list(done) == sorted(expected)
    assert [one.key for one in done.all()] == sorted([*expected, "us/é"])
    assert list(done.failed()) == [without]
    for key in ("us/é", "nobody"):
        assert key not in done
    whole, streamed = (
        Manifest("20261129-213503-e638de33", "then", "me", ("a",), "", "it", of, {}).to_json()
        for of in ({key: one for key, one in expected.items() if one is not None}, done)
    )
    assert streamed == whole


def test_of_thousands_memory_holds_where_their_lines_lie(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "shelf")
    keys = [f"us/{number:05}.tar.gz" for number in range(3000)]
    for key in keys:
        ledger.add(came(key))
    ledger.flush()
    names = Names(keys)
    tracemalloc.start()
    try:
        done = Done(names, ledger, tmp_path)
        assert done.is_whole
        n_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert n_bytes < 100 * len(keys)  # as objects they take 1 KB each and more
