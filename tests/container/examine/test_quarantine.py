"""Artifacts examined by processes that may die of it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import xgboost

from container.examine.examiner import (
    ANSWERED,
    KEPT_GROWTH_BYTES,
    LARGE_BYTES,
    LARGE_NICENESS,
    MAX_ARTIFACTS,
    N_KEPT,
    NICENESS,
    PATIENCE_S,
)
from container.examine.quarantine import Examined, Quarantine, _next_outcome
from handler.errors import ArtifactBroken, ArtifactError, ArtifactRefused, ArtifactUnavailable
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.model import Forest
from handler.forest.packed import document_of
from handler.libxgboost import Booster, Kind
from handler.predictor import Facts, HandlePool
from tests.rig import boosters
from tests.rig.endpoint import until


@pytest.fixture(scope="module")
def quarantine() -> Iterator[Quarantine]:
    one = Quarantine(n_preforked=2)
    one.start()
    yield one
    one.close()


@pytest.fixture(scope="module")
def as_boosters() -> Iterator[Quarantine]:
    one = Quarantine(n_preforked=1, as_boosters=True)
    one.start()
    yield one
    one.close()


@contextlib.contextmanager
def started(n_preforked: int) -> Iterator[tuple[Quarantine, int]]:
    """One of its own, and its examiner's pid."""
    one = Quarantine(n_preforked)
    one.start()
    try:
        assert one.examiner_pid is not None
        yield one, one.examiner_pid
    finally:
        one.close()


def children_of(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def processor_ticks(pid: int) -> int:
    """Hundredths of a second a process has worked; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_a_sound_artifact_comes_back_as_a_forest_and_its_facts(quarantine: Quarantine) -> None:
    examined = quarantine.examine(boosters.segment_archive(3), "s3://b/three.tar.gz")
    (facts,), (forest,) = examined.facts, examined.documents
    assert (facts.is_forest, facts.resident_bytes) == (True, len(forest))
    x = boosters.rows(10, 6)
    model = Forest(forest, facts, BoosterPool(HandlePool()))
    assert (model.predict(x) == boosters.expected(boosters.segment(3), x)).all()


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_the_booster_of_a_forest_explains_as_the_one_it_came_from(quarantine: Quarantine) -> None:
    (forest,) = quarantine.examine(boosters.segment_archive(3), "x").documents
    booster = Booster()
    booster.load(quarantine.booster_of(document_of(forest)))
    x = boosters.rows(10, 6)
    wanted = boosters.segment(3).predict(xgboost.DMatrix(x), pred_contribs=True, strict_shape=True)
    assert (booster.predict_matrix(x, Kind.CONTRIBS) == wanted).all()


def test_whoever_asks_first_starts_the_examiner_and_nobody_does_once_it_is_closed() -> None:
    one = Quarantine(n_preforked=1)
    assert one.examiner_pid is None
    assert one.examine(boosters.segment_archive(3), "x").facts[0].n_features == 6
    one.close()
    with pytest.raises(ArtifactUnavailable):
        one.examine(boosters.segment_archive(3), "x")
    assert one.examiner_pid is None


def test_a_sound_artifact_comes_back_as_a_document_where_other_code_loads_it(as_boosters: Quarantine) -> None:
    examined = as_boosters.examine(boosters.segment_archive(3), "s3://b/three.tar.gz")
    (facts,), (document,) = examined.facts, examined.documents
    assert (facts.objective, facts.booster, facts.n_features, facts.n_outputs) == ("reg:squarederror", "gbtree", 6, 1)
    booster = Booster()
    booster.load(document)
    x = boosters.rows(10, 6)
    assert (booster.predict_dense(x, Kind.VALUE) == boosters.expected(boosters.segment(3), x)).all()


def test_the_bytes_a_booster_will_take_are_measured(as_boosters: Quarantine) -> None:
    booster = boosters.train(n_rounds=100, max_depth=6)
    document = boosters.document(booster)
    (facts,) = as_boosters.examine(boosters.archive({"xgboost-model": document}), "x").facts
    assert 1.0 < facts.resident_bytes / len(document) < 1.6  # 1.2 to 1.5 in bulk, by shape


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (b"", ArtifactBroken),
        (b"no model at all", ArtifactBroken),
        (boosters.archive({"readme.txt": b"hello"}), ArtifactError),
        (boosters.segment_archive(1)[:-40], ArtifactBroken),
        (boosters.archive({"xgboost-model": boosters.document(boosters.segment(1))[:-100]}), ArtifactBroken),
        (boosters.archive({"../xgboost-model": b"{}"}), ArtifactRefused),
    ],
)
def test_a_bad_artifact_is_an_error_that_names_it(quarantine: Quarantine, blob: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match="s3://b/bad") as raised:
        quarantine.examine(blob, "s3://b/bad")
    assert len(re.findall("is broken|is refused", str(raised.value))) == 1


def test_several_artifacts_are_examined_at_the_same_time(quarantine: Quarantine) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda seed: quarantine.examine(boosters.segment_archive(seed), "x"), range(8)))
    assert [one.facts[0].n_features for one in found] == [6] * 8


def test_several_in_one_message_are_told_apart(quarantine: Quarantine) -> None:
    good = [boosters.segment_archive(seed) for seed in range(5)]
    linear = boosters.archive({"xgboost-model": boosters.document(boosters.train(booster="gblinear"))})
    blobs = [good[0], b"no model at all", good[1], good[2], linear, b"", good[3], good[1][:-40], good[4]]
    found = quarantine.examine_all([(blob, f"s3://b/{at}") for at, blob in enumerate(blobs)])
    assert [str(one).split()[1] for one in found if isinstance(one, ArtifactBroken)] == [
        "s3://b/1", "s3://b/5", "s3://b/7",
    ]  # fmt: skip
    for blob, one in zip(blobs, found, strict=True):
        if isinstance(one, Examined):
            assert one.documents == quarantine.examine(blob, "alone").documents
    assert quarantine.examine_all([]) == []


def test_of_several_in_one_message_the_one_that_ends_readers_is_broken_and_the_others_are_not(
    quarantine: Quarantine,
) -> None:
    good = [boosters.segment_archive(seed) for seed in range(4)]
    with Killer(quarantine, most=10_000) as killer:  # one that is not reaped yet is ended again and again
        found = quarantine.examine_all([(blob, "x") for blob in (*good[:2], killer.slow, *good[2:])])
    assert isinstance(found[2], ArtifactBroken)
    assert "ended the process" in str(found[2])
    assert killer.n_killed >= 3  # with the others, and twice alone
    for blob, one in zip(good, [*found[:2], *found[3:]], strict=True):
        assert one == quarantine.examine(blob, "alone")


@cache
def slow_archive() -> bytes:
    """Takes a reader several times as long as it takes to notice that it is at work."""
    document = boosters.document(boosters.train(n_rounds=30_000, max_depth=6))
    return boosters.archive({f"xgboost-model-{fold}": document for fold in range(8)})


@cache
def large_document() -> bytes:
    return boosters.document(boosters.train(n_rounds=30_000, max_depth=2))


class Killer:
    """Ends readers at work. Nothing we know of crashes XGBoost through the checks, so the crash comes from outside."""

    def __init__(self, quarantine: Quarantine, most: int) -> None:
        pid = quarantine.examiner_pid
        assert pid is not None
        self.pid = pid
        self.slow = slow_archive()
        self.n_killed = 0
        self._most = most
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        deadline = time.monotonic() + 10
        while len(children_of(self.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over and self.n_killed < self._most:
            for reader in children_of(self.pid):
                with contextlib.suppress(ProcessLookupError):  # it was done, and ended by itself
                    if processor_ticks(reader) > 6:
                        os.kill(reader, signal.SIGKILL)
                        self.n_killed += 1
            time.sleep(0.001)


def test_an_artifact_that_ends_reader_after_reader_is_broken_and_the_rest_are_left_alone(
    quarantine: Quarantine,
) -> None:
    with Killer(quarantine, most=100) as killer, pytest.raises(ArtifactBroken, match="ended the process"):
        quarantine.examine(killer.slow, "s3://b/killer")
    assert killer.n_killed >= 2
    assert quarantine.examiner_pid == killer.pid
    assert quarantine.examine(boosters.segment_archive(2), "x").facts[0].n_features == 6


def test_a_reader_that_is_ended_once_says_nothing_about_its_artifact(quarantine: Quarantine) -> None:
    with Killer(quarantine, most=1) as killer:
        deadline = time.monotonic() + 60
        while not killer.n_killed and time.monotonic() < deadline:  # a reader may be done before it is found at work
            assert quarantine.examine(killer.slow, "s3://b/sound").facts[0].n_features == 6
        assert killer.n_killed == 1


def test_readers_are_what_the_kernel_ends_first_when_memory_runs_out(quarantine: Quarantine) -> None:
    pid = quarantine.examiner_pid
    assert pid is not None
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        scores = [Path(f"/proc/{reader}/oom_score_adj").read_text().strip() for reader in children_of(pid)]
        if scores == ["1000", "1000"]:
            break
        time.sleep(0.01)
    assert scores == ["1000", "1000"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == Path("/proc/self/oom_score_adj").read_text()


def test_when_the_examiner_is_killed_the_next_artifact_starts_another(quarantine: Quarantine) -> None:
    pid = quarantine.examiner_pid
    assert pid is not None
    for victim in (pid, *children_of(pid)):
        with contextlib.suppress(ProcessLookupError):  # the end of the first has ended it
            os.kill(victim, signal.SIGKILL)
    assert quarantine.examine(boosters.segment_archive(4), "x").facts[0].n_features == 6
    assert quarantine.examiner_pid != pid


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_a_reader_that_only_packed_takes_the_next_artifact_and_one_that_found_fault_does_not() -> None:
    with started(1) as (one, pid):

        def retire_after(blob: bytes) -> int:
            with contextlib.suppress(ArtifactError):
                one.examine(blob, "x")
            until(lambda: len(children_of(pid)) == 1)
            return children_of(pid)[0]

        first = retire_after(boosters.segment_archive(1))
        assert [retire_after(boosters.segment_archive(seed)) for seed in (2, 3)] == [first, first]
        linear = boosters.archive({"xgboost-model": boosters.document(boosters.train(booster="gblinear"))})
        until(lambda: retire_after(linear) != first)
        second = retire_after(boosters.segment_archive(1))
        until(lambda: retire_after(b"no archive") != second)


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_a_reader_takes_message_after_message_of_several_however_much_they_have_to_say() -> None:
    forest = boosters.archive({"xgboost-model": boosters.document(boosters.train(n_rounds=400, max_depth=5))})
    with started(1) as (one, pid):
        for blob in (boosters.segment_archive(1), forest):
            until(lambda: len(children_of(pid)) == 1)
            first = children_of(pid)
            for n_together in (1, 3, 4, 5):
                found = one.examine_all([(blob, "x")] * n_together)
                assert found == [one.examine(blob, "x")] * n_together
            assert children_of(pid) == first


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_a_reader_that_has_read_many_makes_room_for_another() -> None:
    with started(1) as (one, _):
        for seed in range(MAX_ARTIFACTS + 20):
            assert one.examine(boosters.segment_archive(seed % 4), "x").facts[0].n_features == 6


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_a_reader_that_has_read_a_large_artifact_makes_room_for_another() -> None:
    with started(1) as (one, pid):
        until(lambda: len(children_of(pid)) == 1)
        first = children_of(pid)
        large = boosters.archive({"xgboost-model": large_document()})
        assert one.examine(large, "x").facts[0].is_forest
        until(lambda: len(children_of(pid)) == 1 and children_of(pid) != first)


def resident_bytes(pid: int, what: str) -> int:
    text = re.search(rf"^{what}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert text is not None
    return int(text[1]) << 10


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_a_reader_gives_back_what_a_larger_artifact_took_when_nothing_comes_for_a_moment() -> None:
    with started(1) as (one, pid):
        until(lambda: len(children_of(pid)) == 1)
        (reader,) = children_of(pid)
        larger = boosters.document(boosters.train(n_rounds=9000, max_depth=2))
        assert len(larger) < LARGE_BYTES
        assert one.examine(larger, "x").facts[0].is_forest
        most = resident_bytes(reader, "VmHWM")
        until(lambda: resident_bytes(reader, "VmRSS") < most - 2 * KEPT_GROWTH_BYTES)
        one.examine(boosters.segment_archive(1), "x")
        assert children_of(pid) == [reader]


def test_a_large_artifact_yields_to_all_others(quarantine: Quarantine) -> None:
    pid = quarantine.examiner_pid
    assert pid is not None
    assert len(large_document()) > LARGE_BYTES
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(quarantine.examine, large_document(), "x")
        until(lambda: any(os.getpriority(os.PRIO_PROCESS, reader) == LARGE_NICENESS for reader in children_of(pid)))
        assert found.result().facts[0].n_features == 6
    until(lambda: all(os.getpriority(os.PRIO_PROCESS, reader) == NICENESS for reader in children_of(pid)))


def test_readers_come_when_all_are_busy_and_go_when_nobody_needs_them() -> None:
    with started(6) as (one, pid):
        until(lambda: len(children_of(pid)) == N_KEPT)
        slow = boosters.archive({"xgboost-model": boosters.document(boosters.train(n_rounds=3000, max_depth=6))})
        with ThreadPoolExecutor(6) as threads:
            found = [threads.submit(one.examine, slow, "x") for _ in range(6)]
            until(lambda: len(children_of(pid)) > N_KEPT)
            assert [each.result().facts[0].n_features for each in found] == [6] * 6
        assert len(children_of(pid)) <= 6
        until(lambda: len(children_of(pid)) == N_KEPT, 3 * PATIENCE_S)


def test_closing_leaves_no_process() -> None:
    one = Quarantine(n_preforked=3)
    one.start()
    one.examine(boosters.segment_archive(1), "x")
    pid = one.examiner_pid
    assert pid is not None
    family = [pid, *children_of(pid)]
    one.close()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{member}").exists() for member in family) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [member for member in family if Path(f"/proc/{member}").exists()]


def test_facts_and_names_that_json_spells_in_a_way_of_pythons_are_told_as_they_are(quarantine: Quarantine) -> None:
    facts = Facts(
        *("reg:squarederror", "gbtree", 1, 1, 0),
        missing=math.inf,
        labels=(1, 2.5, True, "\u00e9"),
        categories=((0, (2.0,)),),
    )
    text = json.dumps({"documents": [0], "is_last": False, "facts": [facts.as_dict()], "origins": []}).encode()
    outcome, is_last = _next_outcome(io.BytesIO(ANSWERED.pack(0, len(text)) + text), "x")
    assert repr(outcome) == repr(Examined((b"",), (facts,)))
    assert not is_last
    with pytest.raises(ArtifactBroken, match="it is empty") as broken:
        quarantine.examine(b"", "named \udcff")  # as the name of a file may be
    assert broken.value.uri == "named \udcff"


# An examiner that what it read has taken over may say anything.
NO_VERDICTS = {
    "no JSON": b"{",
    "nested too deep": b"[" * 100_000,
    "no object": b"[]",
    "no documents": b'{"facts": [], "origins": []}',
    "another length": b'{"documents": [9], "facts": [], "origins": []}',
    "lengths that make up for each other": b'{"documents": [10, -8], "facts": [], "origins": []}',
    "no length": b'{"documents": [null], "facts": [], "origins": []}',
    "fewer facts": b'{"documents": [2], "facts": [], "origins": []}',
    "nothing at all": b'{"documents": [], "facts": [], "origins": []}',
    "facts of another type": b'{"documents": [2], "facts": [{"objective": 1}], "origins": []}',
    "a fact that cannot be": b'{"documents": [2], "origins": [], "facts": [{"objective": "o", "booster": "b",'
    b' "n_features": -1, "n_outputs": 1, "resident_bytes": -5}]}',
    "an error that there is not": b'{"documents": [], "error": "SystemExit", "why": "x"}',
}


@pytest.mark.parametrize("text", NO_VERDICTS.values(), ids=NO_VERDICTS)
def test_a_verdict_that_is_none_is_a_broken_artifact_and_the_last_that_is_heard(text: bytes) -> None:
    text = text.replace(b'{"documents"', b'{"is_last": false, "documents"')
    n_bytes = 0 if b'"documents": []' in text else 2
    outcome, is_last = _next_outcome(io.BytesIO(ANSWERED.pack(n_bytes, len(text)) + text + bytes(n_bytes)), "x")
    assert isinstance(outcome, ArtifactBroken)
    assert "its examiner gave no verdict" in str(outcome)
    assert is_last
