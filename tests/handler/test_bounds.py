"""What a request may take is known before it is begun, and one caller's work leaves room for the others."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from handler import bounds as bounds_module
from handler.bounds import HEAVY_BYTES, UNBOOKED_BYTES, Bounds, TreeCost
from handler.errors import CallerGone, NoRoom, PayloadInvalid, TooMuchWork, Unavailable
from handler.floor import Floor
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.model import Forest
from handler.forest.packed import cost_of, pack
from handler.importer import import_booster
from handler.libxgboost import Booster, Kind
from handler.messages import Request
from handler.predictor import Facts, HandlePool, Model
from handler.scoring import PlainScoring
from tests.rig import boosters

pytestmark = pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")

FACTS = Facts("reg:squarederror", "gbtree", 6, 1, 100_000, is_forest=True)


class Book:
    """Memory of which so much is left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def book(self, what: str, n_bytes: int) -> None:
        if n_bytes > self.left:
            raise NoRoom(what, n_bytes, self.left)
        self.left -= n_bytes

    def unbook(self, n_bytes: int) -> None:
        self.left += n_bytes


def make(
    *, room: Book | None = None, n_places: int = 2, n_turns: int = 1, turn_s: float = 0.01, most: int = 25 << 20
) -> Bounds:
    return Bounds(max_answer_bytes=most, n_places=n_places, n_turns=n_turns, room=room, turn_s=turn_s)


@pytest.fixture(scope="module")
def forest() -> bytes:
    packed = pack(import_booster(boosters.document(boosters.train(6, 100, max_depth=6)), "x").learner)
    assert packed is not None
    return packed


@pytest.fixture
def model(forest: bytes) -> Iterator[Forest]:
    one = Forest(forest, FACTS, BoosterPool(HandlePool()))
    yield one
    one.close()


def request(n_rows: int, is_wanted: Callable[[], bool] = lambda: True) -> Request:
    return Request({"content-type": "text/csv"}, b"1,2,3,4,5,6\n" * n_rows, is_wanted=is_wanted)


def score(scoring: PlainScoring, model: Forest, one: Request, *outputs: str) -> bytes:
    return scoring.score(one, "t", model, outputs, "text/csv").body


def wait_for(floor: Floor, n_waiting: int) -> None:
    deadline = time.monotonic() + 30
    while floor.n_waiting != n_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_the_shape_of_trees_is_read_from_the_packed_form(forest: bytes) -> None:
    stump = pack(import_booster(boosters.document(boosters.train(6, 3, max_depth=1)), "x").learner)
    assert stump is not None
    assert cost_of(stump) == TreeCost(3, 1, 3 * 2 * 4, 6)
    cost = cost_of(forest)
    assert (cost.n_trees, cost.n_features) == (100, 6)
    assert 3 <= cost.depth <= 6


def test_work_is_estimated_by_the_shape_of_the_trees_and_what_is_asked_for() -> None:
    """How near that is to what it takes is for `python -m benchmarks.estimates` to say."""
    one, twice, deeper = TreeCost(100, 6, 5000, 6), TreeCost(200, 6, 10_000, 6), TreeCost(100, 8, 20_000, 6)
    for kind in Kind:
        assert twice.row_s(kind) == 2 * one.row_s(kind)
        assert deeper.row_s(kind) > one.row_s(kind)
    assert one.row_s(Kind.VALUE) < one.row_s(Kind.LEAF) < one.row_s(Kind.CONTRIBS)
    assert one.row_s(Kind.INTERACTIONS) == 13 * one.row_s(Kind.CONTRIBS)


def test_work_that_takes_longer_than_its_caller_waits_is_refused_at_once_with_the_figure(model: Forest) -> None:
    scoring = PlainScoring(bounds=make())
    began_s = time.monotonic()
    with pytest.raises(
        TooMuchWork, match=r"400000 rows of contribs would take this model about \d+ s; send at most \d+"
    ):
        score(scoring, model, request(400_000), "contribs")
    assert time.monotonic() - began_s < 5


def test_an_answer_that_could_not_be_sent_is_refused_before_it_is_made(model: Forest) -> None:
    scoring = PlainScoring(bounds=make(most=10_000))
    with pytest.raises(TooMuchWork, match="send at most 5000 rows"):
        score(scoring, model, request(5_001))
    assert score(scoring, model, request(1_000)).count(b"\n") == 999


def npy(shape: tuple[int, ...]) -> Request:
    kept = io.BytesIO()
    np.save(kept, np.ones(shape, np.int8))
    return Request({"content-type": "application/x-npy"}, kept.getvalue())


def test_an_array_whose_answer_could_not_be_sent_is_refused_by_its_shape_and_takes_no_turn(model: Forest) -> None:
    bounds = make(most=1000, n_places=1)
    bounds.take_turn()  # who wanted one now would be told Unavailable
    many = HEAVY_BYTES // 6
    scoring = PlainScoring(bounds=bounds)
    with pytest.raises(TooMuchWork, match="send at most 500 rows"):
        score(scoring, model, npy((many, 6)))
    with pytest.raises(TooMuchWork, match="of probability are"):
        score(scoring, model, npy((many, 6)), "probability")
    with pytest.raises(Unavailable):  # of a wrong width it is read, which says so
        score(scoring, model, npy((many, 7)))
    assert bounds.n_bytes == 0


@pytest.mark.parametrize("outputs", [(), ("contribs",), ("interactions", "leaf"), ("approx_contribs", "margin")])
def test_in_blocks_the_answer_is_the_same_to_the_last_bit(
    model: Forest, monkeypatch: pytest.MonkeyPatch, outputs: tuple[str, ...]
) -> None:
    one = Request(
        {"content-type": "text/csv"}, b"\n".join(b",".join(b"%f" % x for x in row) for row in boosters.rows(300, 6))
    )
    expected = score(PlainScoring(), model, one, *outputs)
    monkeypatch.setattr(bounds_module, "HEAVY_S", 0.0)
    monkeypatch.setattr(bounds_module, "BLOCK_S", 1e-5)
    monkeypatch.setattr("handler.scoring.LIGHT_BODY_BYTES", 0)
    assert score(PlainScoring(bounds=make()), model, one, *outputs) == expected


def test_whoever_hangs_up_has_his_work_stopped_at_the_next_block(model: Forest) -> None:
    asked: list[float] = []

    def is_wanted() -> bool:
        asked.append(time.monotonic())
        return len(asked) < 4

    n_rows = int(20 / model.cost.row_s(Kind.CONTRIBS))
    bounds = make()
    began_s = time.monotonic()
    with pytest.raises(CallerGone):
        score(PlainScoring(bounds=bounds), model, request(n_rows, is_wanted=is_wanted), "contribs")
    assert time.monotonic() - began_s < 15
    assert bounds.n_bytes == 0


def test_a_native_model_is_gone_through_in_blocks_too() -> None:
    document = boosters.document(boosters.train(6, 10, booster="gblinear"))
    booster = Booster()
    booster.load(document)
    model = Model(booster, Facts("reg:squarederror", "gblinear", 6, 1, 1000), lambda _: None)
    rows = boosters.rows(100, 6)
    looks: list[int] = []
    blocks = bounds_module.Blocks(7, lambda: looks.append(1))
    assert np.array_equal(model.predict(rows, Kind.CONTRIBS, blocks=blocks), model.predict(rows, Kind.CONTRIBS))
    assert len(looks) == 15


def test_heavy_requests_have_few_places_and_light_ones_need_none(model: Forest) -> None:
    bounds = make(n_places=2, n_turns=1, turn_s=30)
    scoring = PlainScoring(bounds=bounds)
    go, begun = threading.Event(), threading.Semaphore(0)

    def is_wanted() -> bool:
        begun.release()
        return go.wait(30)

    n_rows = int(0.5 / model.cost.row_s(Kind.CONTRIBS))
    with ThreadPoolExecutor(2) as pool:
        heavy = [pool.submit(score, scoring, model, request(n_rows, is_wanted=is_wanted), "contribs") for _ in range(2)]
        assert begun.acquire(timeout=30)
        while bounds._places._value:
            time.sleep(0.001)
        with pytest.raises(Unavailable) as refused:  # one works, one waits for its turn
            score(scoring, model, request(n_rows), "contribs")
        assert refused.value.retry_after_s > 0
        assert score(scoring, model, request(1))
        assert score(scoring, model, request(1_000))
        go.set()
        assert len({one.result(60) for one in heavy}) == 1
    assert (bounds._places._value, bounds._turns._value) == (2, 1)


def test_bodies_are_read_one_at_a_time_and_small_and_heavy_requests_do_not_wait_for_them(model: Forest) -> None:
    bounds = make()
    scoring = PlainScoring(bounds=bounds)
    n_heavy = HEAVY_BYTES // 10 // 12 + 1
    with ThreadPoolExecutor(2) as pool:
        with bounds.floor:
            waiting = [pool.submit(score, scoring, model, request(1_000)) for _ in range(2)]
            wait_for(bounds.floor, 2)
            assert score(scoring, model, request(1))
            assert score(scoring, model, request(n_heavy)).count(b"\n") == n_heavy - 1
            assert not any(one.done() for one in waiting)
        assert {one.result(60).count(b"\n") for one in waiting} == {999}


def test_an_answer_is_written_while_its_request_has_the_floor(model: Forest) -> None:
    bounds = make()
    with ThreadPoolExecutor(1) as pool:
        with bounds.heavy_floor:
            heavy = pool.submit(score, PlainScoring(bounds=bounds), model, request(1_000), "contribs")
            wait_for(bounds.heavy_floor, 1)  # not to read it: it was not known to be heavy
            assert not heavy.done()
        assert heavy.result(60) == score(PlainScoring(), model, request(1_000), "contribs")


def test_a_body_that_cannot_be_read_gives_the_floor_back(model: Forest) -> None:
    bounds = make()
    for _ in range(2):
        with pytest.raises(PayloadInvalid):
            score(PlainScoring(bounds=bounds), model, Request({"content-type": "text/csv"}, b"x" * 10_000))
    with bounds.floor:
        pass


def test_who_waits_too_long_for_his_turn_is_told_to_come_again() -> None:
    bounds = make(n_places=2, n_turns=1, turn_s=0.01)
    bounds.take_turn()
    with pytest.raises(Unavailable, match="others were at work"):
        bounds.take_turn()
    bounds.give_turn()
    bounds.take_turn()


def test_what_all_requests_take_together_is_booked_beyond_what_a_budget_leaves_free() -> None:
    room = Book(10_000_000)
    bounds = make(room=room)
    bounds.take_bytes(UNBOOKED_BYTES)
    assert room.left == 10_000_000
    bounds.take_bytes(4_000_000)
    assert room.left == 6_000_000
    with pytest.raises(NoRoom):
        bounds.take_bytes(6_000_001)
    assert room.left == 6_000_000
    bounds.take_bytes(6_000_000)
    bounds.give_bytes(UNBOOKED_BYTES)
    assert room.left == 10_000_000
    bounds.give_bytes(10_000_000)
    assert (room.left, bounds.n_bytes) == (10_000_000, 0)


def test_a_body_that_does_not_fit_beside_the_others_is_refused_and_all_is_given_back(model: Forest) -> None:
    bounds = make(room=Book(1_000), n_turns=2)
    with bounds.visit(lambda: True) as first:
        first.reads(UNBOOKED_BYTES // 10 - 1, "text/csv")
        with pytest.raises(NoRoom), bounds.visit(lambda: True) as second:
            second.reads(HEAVY_BYTES, "text/csv")
        assert bounds.n_bytes == (UNBOOKED_BYTES // 10 - 1) * 10
    assert bounds.n_bytes == 0
    assert bounds._places._value == 2


def test_threads_at_random_leave_nothing_booked() -> None:
    room = Book(200_000_000)
    bounds = make(room=room, n_places=8, n_turns=4, turn_s=10)

    def work(seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(200):
            try:
                with bounds.visit(lambda: draw.random() > 0.1) as visit:
                    visit.reads(int(draw.integers(0, 10_000_000)), "text/csv")
                    visit.answers(int(draw.integers(1, 1_000_000)), 1, 24, 1e-6, "scores")
            except (NoRoom, CallerGone, Unavailable, TooMuchWork):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert (bounds.n_bytes, room.left, bounds._n_booked) == (0, 200_000_000, 0)
    assert (bounds._places._value, bounds._turns._value) == (8, 4)
