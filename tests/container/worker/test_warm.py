"""The warm list: what is noted, and what a start makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from container.worker.warm import MAX_LISTS, SMALL_BYTES, Place, WarmList
from handler.cache.entry import Resident
from handler.errors import ArtifactUnavailable
from handler.stores.directory_writing import WritingDirectory
from handler.stores.writing import WritingStore
from tests.rig.fakes import FakeClock

PATIENCE_S = 30.0


class Held:
    """A cache that holds what it is told, with so many hits each."""

    def __init__(self, n_bytes: int = 1, **hits: int) -> None:
        self.n_bytes, self.hits = n_bytes, hits

    def residents(self) -> Sequence[Resident]:
        return [Resident(f"{name}.tar.gz", "1", self.n_bytes, hits, 100.0, 0.0, 0) for name, hits in self.hits.items()]


def store(root: Path) -> WritingStore:
    return WritingDirectory(root, max_artifact_bytes=1 << 20)


def warm_list(
    root: Path, held: Held, replica: str = "a", max_models: int = 10, clock: FakeClock | None = None
) -> WarmList:
    place = Place("acme/prod", replica)
    clock_s = clock or FakeClock()
    one = WarmList(lambda: store(root), place, held, max_models=max_models, interval_s=60, clock_s=clock_s)
    one.start()
    return one


def test_a_replica_begins_with_what_it_had_the_busiest_first(tmp_path: Path) -> None:
    warm_list(tmp_path, Held(x=1, y=30, z=4), max_models=2).close(PATIENCE_S)
    warm_list(tmp_path, Held(other=99), replica="b").close(PATIENCE_S)
    assert list(warm_list(tmp_path, Held()).targets()) == ["y.tar.gz", "z.tar.gz"]


def test_a_new_replica_begins_with_what_all_note_together(tmp_path: Path) -> None:
    warm_list(tmp_path, Held(x=10, y=7)).close(PATIENCE_S)
    warm_list(tmp_path, Held(z=9, y=7), replica="b").close(PATIENCE_S)
    assert list(warm_list(tmp_path, Held(), replica="c").targets()) == ["y.tar.gz", "x.tar.gz", "z.tar.gz"]


def test_who_was_asked_for_nothing_leaves_the_list_as_it_is(tmp_path: Path) -> None:
    warm_list(tmp_path, Held(x=1)).close(PATIENCE_S)
    again = warm_list(tmp_path, Held(x=0))
    assert list(again.targets()) == ["x.tar.gz"]
    again.close(PATIENCE_S)
    assert list(warm_list(tmp_path, Held()).targets()) == ["x.tar.gz"]


def test_a_start_that_saw_few_calls_does_not_forget_the_ranks_of_the_run_before(tmp_path: Path) -> None:
    warm_list(tmp_path, Held(x=500, y=100, z=1)).close(PATIENCE_S)
    clock = FakeClock()
    again = warm_list(tmp_path, Held(x=0, y=0, z=1), clock=clock)
    list(again.targets())
    again.close(PATIENCE_S)
    assert list(warm_list(tmp_path, Held()).targets()) == ["x.tar.gz", "y.tar.gz", "z.tar.gz"]


def test_a_list_says_what_is_small_and_one_of_before_says_it_of_none(tmp_path: Path) -> None:
    warm_list(tmp_path, Held(x=1)).close(PATIENCE_S)
    warm_list(tmp_path, Held(n_bytes=SMALL_BYTES + 1, x=1, y=1), replica="b").close(PATIENCE_S)
    own, other, all_ = (warm_list(tmp_path, Held(), replica=name) for name in "abc")
    assert not own.is_small("x.tar.gz")  # nothing has been read
    for one in (own, other, all_):
        list(one.targets())
    assert own.is_small("x.tar.gz")
    assert not own.is_small("z.tar.gz")
    assert not other.is_small("y.tar.gz")
    assert not all_.is_small("x.tar.gz")  # it has grown on one of them

    before = tmp_path / "acme_prod/d.json"
    before.write_text('{"format":1,"models":[["x.tar.gz",1]]}')
    earlier = warm_list(tmp_path, Held(), replica="d")
    assert list(earlier.targets()) == ["x.tar.gz"]
    assert not earlier.is_small("x.tar.gz")


def test_what_is_no_list_is_passed_over(tmp_path: Path) -> None:
    warm_list(tmp_path, Held(x=1), replica="b").close(PATIENCE_S)
    folder = tmp_path / "acme_prod"
    for name, text in {
        "c": "[]",
        "d": "{",
        "e": json.dumps({"format": 2}),
        "f": '{"format":1,"models":[["../x",1]]}',
        "g": '{"format":1,"models":[[["x.tar.gz"],1]]}',
        "h": '{"format":1,"models":[["x.tar.gz",1' + "0" * 400 + "]]}",
        "i": '{"format":1,"models":[["x.tar.gz",Infinity]]}',
        "j": '{"format":1,"models":[["x.tar.gz",1]],"n_bytes":[1,2]}',
        "k": '{"format":1,"models":[["x.tar.gz",1]],"n_bytes":["?"]}',
        "l": '{"format":1,"models":[["x.tar.gz",1]],"n_bytes":null}',
    }.items():
        (folder / f"{name}.json").write_text(text)
    assert list(warm_list(tmp_path, Held()).targets()) == ["x.tar.gz"]


def test_a_store_that_is_away_costs_nothing_but_a_line(tmp_path: Path) -> None:
    def away() -> WritingStore:
        raise ArtifactUnavailable("s3://acme/prod.warm/", "gone")

    one = WarmList(away, Place("e", "r"), Held(x=1), max_models=1, interval_s=60)
    one.start()
    assert list(one.targets()) == []
    one.close(PATIENCE_S)


def test_names_become_keys_that_stay_below_the_list(tmp_path: Path) -> None:
    assert Place("../x y", "..").key == "_x_y/_.json"
    assert MAX_LISTS > 8
