"""A forest as a model, and the native booster it wakes for what it cannot say itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from handler.errors import ArtifactBroken, FeatureMismatch, NoRoom
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.model import Forest
from handler.forest.packed import booster_bytes, document_of, pack
from handler.forest.proof import sample
from handler.importer.learner import NO_NODE
from handler.importer.writer import ubj_of
from handler.libxgboost import Booster, Kind
from handler.predictor import Facts, HandlePool

pytestmark = pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")

ROWS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
FACTS = Facts("reg:squarederror", "gbtree", 3, 1, 1, is_forest=True)


def packed(number: int = 0) -> bytes:
    """Forests that differ in their intercept."""
    learner = sample("reg:squarederror")
    learner.base_score = np.array([number], np.float32)
    forest = pack(learner)
    assert forest is not None
    return forest


def native(number: int = 0) -> Booster:
    learner = sample("reg:squarederror")
    learner.base_score = np.array([number], np.float32)
    booster = Booster()
    booster.load(ubj_of(learner))
    return booster


SIZE = booster_bytes(packed()) if walker.is_available() else 0


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_prediction_is_libxgboosts_own(kind: Kind) -> None:
    model = Forest(packed(), FACTS, BoosterPool(HandlePool()))
    assert model.predict(ROWS, kind).tobytes() == native().predict_matrix(ROWS, kind).tobytes()


def test_a_wrong_number_of_columns_is_refused() -> None:
    with pytest.raises(FeatureMismatch, match="rows have 4 features, the model has 3"):
        Forest(packed(), FACTS, BoosterPool(HandlePool())).predict(np.zeros((3, 4), np.float32))


def test_a_score_wakes_nothing_and_an_explanation_wakes_once() -> None:
    opened = []
    natives = BoosterPool(HandlePool(), lambda forest: opened.append(forest) or document_of(forest))
    model = Forest(packed(), FACTS, natives)
    model.predict(ROWS)
    assert (opened, natives.n_bytes) == ([], 0)
    model.predict(ROWS, Kind.CONTRIBS)
    model.predict(ROWS, Kind.LEAF)
    assert (len(opened), natives.n_bytes) == (1, SIZE)


def test_closing_a_model_puts_its_booster_to_rest() -> None:
    pool = HandlePool()
    natives = BoosterPool(pool)
    model = Forest(packed(), FACTS, natives)
    model.predict(ROWS, Kind.CONTRIBS)
    model.close()
    assert (natives.n_bytes, pool.n_resting) == (0, 1)


def test_those_used_least_recently_rest_when_another_needs_the_room() -> None:
    opened: list[int] = []
    forests = [packed(number) for number in range(3)]
    natives = BoosterPool(
        HandlePool(),
        lambda forest: opened.append(forests.index(forest)) or document_of(forest),
        max_bytes=2 * SIZE,
    )
    for number in (0, 1, 0, 2, 0, 1):
        with natives.booster(forests[number]) as booster:
            assert booster.predict_matrix(ROWS, Kind.MARGIN) == pytest.approx(
                native(number).predict_matrix(ROWS, Kind.MARGIN)
            )
    assert opened == [0, 1, 2, 1]
    assert natives.n_bytes == 2 * SIZE


def test_who_finds_no_room_waits_for_it() -> None:
    natives = BoosterPool(HandlePool(), max_bytes=SIZE)
    forests = [packed(0), packed(1)]
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with natives.booster(forests[0]):
            is_held.set()
            may_go.wait(10)

    def ask() -> bool:
        with natives.booster(forests[1]):
            return may_go.is_set()

    with ThreadPoolExecutor(2) as threads:
        threads.submit(hold)
        is_held.wait(10)
        asked = threads.submit(ask)
        assert not asked.done()
        may_go.set()
        assert asked.result(10)
    assert natives.n_bytes == SIZE


def test_a_forest_that_cannot_be_opened_takes_no_room() -> None:
    def refuse(_: bytes) -> bytes:
        raise ArtifactBroken("x", "as if")

    natives = BoosterPool(HandlePool(), refuse)
    model = Forest(packed(), FACTS, natives)
    for _ in range(2):
        with pytest.raises(ArtifactBroken):
            model.predict(ROWS, Kind.CONTRIBS)
    assert natives.n_bytes == 0


def test_many_threads_ask_few_boosters_and_get_their_own_answers() -> None:
    natives = BoosterPool(HandlePool(), max_bytes=3 * SIZE)
    models = [Forest(packed(number), FACTS, natives) for number in range(6)]
    wanted = [native(number).predict_matrix(ROWS, Kind.CONTRIBS).tobytes() for number in range(6)]

    def ask(number: int) -> bool:
        return models[number % 6].predict(ROWS, Kind.CONTRIBS).tobytes() == wanted[number % 6]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(300)))
    assert natives.n_bytes <= 3 * SIZE
    for model in models:
        model.close()
    assert natives.n_bytes == 0


class Ledger:
    """What is booked for large boosters, up to a budget."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.booked = 0

    def book(self, what: str, n_bytes: int) -> None:
        if self.booked + n_bytes > self.budget_bytes:
            raise NoRoom(what, n_bytes, self.budget_bytes)
        self.booked += n_bytes

    def unbook(self, n_bytes: int) -> None:
        self.booked -= n_bytes


def with_ledger(budget_bytes: int = SIZE, reopen: Callable[[bytes], bytes] = document_of) -> tuple[BoosterPool, Ledger]:
    """Where each booster is a large one."""
    natives = BoosterPool(HandlePool(), reopen, max_bytes=SIZE - 1)
    natives.room = ledger = Ledger(budget_bytes)
    return natives, ledger


def test_a_large_booster_is_booked_beside_the_models_and_kept() -> None:
    opened = []
    natives, ledger = with_ledger(reopen=lambda forest: opened.append(forest) or document_of(forest))
    model = Forest(packed(), FACTS, natives)
    for kind in (Kind.CONTRIBS, Kind.LEAF):
        assert model.predict(ROWS, kind).tobytes() == native().predict_matrix(ROWS, kind).tobytes()
    assert (len(opened), ledger.booked, natives.n_bytes) == (1, SIZE, 0)
    model.close()
    assert (ledger.booked, natives.handles.n_resting) == (0, 1)


def test_of_large_boosters_the_last_one_is_awake() -> None:
    natives, ledger = with_ledger()
    models = [Forest(packed(number), FACTS, natives) for number in range(2)]
    for number in (0, 1, 0):
        wanted = native(number).predict_matrix(ROWS, Kind.CONTRIBS)
        assert models[number].predict(ROWS, Kind.CONTRIBS).tobytes() == wanted.tobytes()
    models[1].close()  # not the one that is natives
    assert ledger.booked == SIZE


def test_a_large_booster_goes_when_others_want_its_room_but_not_while_it_is_used() -> None:
    natives, ledger = with_ledger()
    with natives.booster(packed()):
        assert natives.give_up() == 0
    assert natives.give_up() == SIZE
    assert natives.give_up() == 0
    assert ledger.booked == 0


def test_without_room_for_a_large_booster_nothing_is_opened() -> None:
    natives, ledger = with_ledger(SIZE - 1, lambda _: pytest.fail("opened"))
    with pytest.raises(NoRoom, match="no room for XGBoost's own copy of the model, which answers all but scores"):
        Forest(packed(), FACTS, natives).predict(ROWS, Kind.CONTRIBS)
    assert ledger.booked == 0


def test_a_large_forest_that_cannot_be_opened_takes_no_room() -> None:
    def refuse(_: bytes) -> bytes:
        raise ArtifactBroken("x", "as if")

    natives, ledger = with_ledger(reopen=refuse)
    with pytest.raises(ArtifactBroken):
        Forest(packed(), FACTS, natives).predict(ROWS, Kind.CONTRIBS)
    assert ledger.booked == 0


def test_groups_in_one_call_are_scored_as_each_by_itself() -> None:
    forests = [packed(number) for number in range(4)]
    rows = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    rows[::7, 1] = np.nan
    places = [
        (3, 4),
        (10, 90),
        (90, 97),
        (197, 200),
    ]  # some by the bulk kernel, some walked, rows between them nobody's
    scores = np.full(200, np.nan, np.float32)
    columns = np.ascontiguousarray(rows.T)
    walker.predict_groups(forests, [border for place in places for border in place], columns, scores)
    wanted = np.full(200, np.nan, np.float32)
    for forest, (start, end) in zip(forests, places, strict=True):
        alone = Forest(forest, FACTS, BoosterPool(HandlePool()))
        assert alone.alone is forest
        wanted[start:end] = alone.predict(rows[start:end])[:, 0]
    assert scores.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("n_features", [1, 40, 1100, walker.MOST_COLUMNS])
def test_groups_of_any_width_are_scored_as_each_by_itself(n_features: int) -> None:
    draw = np.random.default_rng(n_features)
    learner = sample("binary:logistic", n_levels=7)  # and trees of fewer levels
    assert learner.trees is not None
    is_split = learner.trees.left != NO_NODE
    learner.n_features = n_features
    learner.trees.split_index[is_split] = draw.integers(0, n_features, int(is_split.sum()))
    forest = pack(learner)
    assert forest is not None
    columns = draw.standard_normal((n_features, 70), np.float32)
    columns[draw.random(columns.shape) < 0.1] = np.nan
    scores = np.full(70, np.nan, np.float32)
    walker.predict_groups([forest, forest], [0, 30, 30, 69], columns, scores)
    rows = np.ascontiguousarray(columns.T)
    alone = [walker.predict(forest, rows[at : at + 1], 1000, 1, 1, is_margin=False)[0, 0] for at in range(69)]
    assert scores[:69].tobytes() == np.array(alone, np.float32).tobytes()
    assert np.isnan(scores[69])


def test_a_model_that_stops_early_or_has_a_missing_number_is_not_taken_as_it_is() -> None:
    for facts in (replace(FACTS, best_rounds=3), replace(FACTS, missing=0.0)):
        assert Forest(packed(), facts, BoosterPool(HandlePool())).alone is None
