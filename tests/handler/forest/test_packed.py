"""Packed forests against libxgboost: the same bits, whatever the trees look like."""

from __future__ import annotations

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.forest import walker
from handler.forest.packed import booster_bytes, cost_of, document_of, is_sound, pack, shape_of
from handler.forest.proof import sample
from handler.importer import import_booster
from handler.importer.checks import MAX_DEPTH
from handler.importer.learner import NO_NODE, Learner, Trees
from handler.importer.writer import ubj_of
from handler.libxgboost import Booster, Kind
from tests.rig import boosters

pytestmark = pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")

CASES: dict[str, dict[str, Any]] = {
    "squarederror": {},
    "pruned": {"gamma": 5, "tree_method": "exact", "max_depth": 6},
    "random forest": {"num_parallel_tree": 3, "subsample": 0.6, "colsample_bynode": 0.5},
    "dart": {"booster": "dart", "rate_drop": 0.4},
    "dart of classes": {"booster": "dart", "rate_drop": 0.4, "objective": "multi:softprob", "num_class": 3},
    "logistic": {"objective": "binary:logistic", "base_score": 0.2},
    "logitraw": {"objective": "binary:logitraw"},
    "hinge": {"objective": "binary:hinge"},
    "softmax": {"objective": "multi:softmax", "num_class": 4},
    "softprob": {"objective": "multi:softprob", "num_class": 3},
    "poisson": {"objective": "count:poisson"},
    "gamma": {"objective": "reg:gamma"},
    "tweedie": {"objective": "reg:tweedie"},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]},
    "ranking": {"objective": "rank:pairwise"},
    "survival": {"objective": "survival:cox"},
    "stumps": {"max_depth": 1},
    "deep": {"max_depth": 12, "min_child_weight": 0, "reg_lambda": 0},
}


def learner_of(booster: xgboost.Booster) -> Learner:
    return import_booster(boosters.document(booster), "x").learner


def loaded(document: bytes) -> Booster:
    booster = Booster()
    booster.load(document)
    return booster


def walked(forest: bytes, rows: np.ndarray[Any, Any], kind: Kind, n_trees: int | None = None) -> np.ndarray[Any, Any]:
    shape = shape_of(forest)
    return walker.predict(
        forest, rows, n_trees or shape.n_trees, shape.n_groups, shape.n_outputs, is_margin=kind is Kind.MARGIN
    )


def near_thresholds(learner: Learner, n_rows: int) -> np.ndarray[Any, Any]:
    """Rows that fall on thresholds and just beside them, some of their numbers missing."""
    assert learner.trees is not None
    draw = np.random.default_rng(n_rows)
    rows = draw.choice(learner.trees.split_condition, (n_rows, learner.n_features))
    rows = np.nextafter(rows, draw.choice(np.array([-np.inf, np.inf], np.float32), rows.shape))
    rows = np.where(draw.random(rows.shape) < 0.5, rows, draw.choice(learner.trees.split_condition, rows.shape))
    rows[draw.random(rows.shape) < 0.15] = np.nan
    return np.ascontiguousarray(rows, np.float32)


@pytest.mark.parametrize("name", CASES)
def test_a_forest_scores_as_libxgboost_does_bit_for_bit(name: str) -> None:
    learner = learner_of(boosters.train(**CASES[name]))
    forest = pack(learner)
    assert forest is not None
    booster = loaded(ubj_of(learner))
    for n_rows in (1, 2, 7, 8, 9, 31, 32, 64, 65, 200, 1500):
        rows = near_thresholds(learner, n_rows)
        for kind in (Kind.VALUE, Kind.MARGIN):
            ours, theirs = walked(forest, rows, kind), booster.predict_dense(rows, kind)
            assert ours.shape == theirs.shape
            assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", ["squarederror", "pruned", "random forest", "dart of classes", "softprob", "poisson"])
def test_what_a_forest_cannot_say_its_document_can(name: str) -> None:
    learner = learner_of(boosters.train(**CASES[name]))
    forest = pack(learner)
    assert forest is not None
    before, after = loaded(ubj_of(learner)), loaded(import_booster(document_of(forest), "x").document)
    rows = near_thresholds(learner, 20)
    for kind in Kind:
        assert before.predict_matrix(rows, kind).tobytes() == after.predict_matrix(rows, kind).tobytes(), kind


@pytest.mark.parametrize("name", ["squarederror", "softprob", "softmax"])
def test_a_large_body_that_all_cores_walk_has_the_same_bits(name: str) -> None:
    learner = learner_of(boosters.train(**CASES[name]))
    forest = pack(learner)
    assert forest is not None
    rows = near_thresholds(learner, 30_001)
    assert (
        walked(forest, rows, Kind.VALUE).tobytes() == loaded(ubj_of(learner)).predict_dense(rows, Kind.VALUE).tobytes()
    )


def test_large_bodies_at_once_have_the_same_bits() -> None:
    learner = learner_of(boosters.train())
    forest = pack(learner)
    assert forest is not None
    blocks = [near_thresholds(learner, 25_000 + number) for number in range(8)]
    wanted = [loaded(ubj_of(learner)).predict_dense(block, Kind.VALUE).tobytes() for block in blocks]
    with ThreadPoolExecutor(8) as threads:
        assert [one.tobytes() for one in threads.map(lambda block: walked(forest, block, Kind.VALUE), blocks)] == wanted


def test_a_pruned_tree_has_deleted_nodes_to_keep() -> None:
    """Otherwise the case above would prove nothing: leaves are counted by node, deleted ones included."""
    trees = learner_of(boosters.train(**CASES["pruned"])).trees
    assert trees is not None
    assert (trees.split_index == 0x7FFFFFFF).any()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["reg:squarederror", "binary:logistic", "multi:softprob", "multi:softmax", "count:poisson"]),
    st.sampled_from(["gbtree", "dart"]),
    st.integers(0, 2**32 - 1),
)
def test_any_numbers_give_the_same_bits(objective: str, booster: str, seed: int) -> None:
    learner = sample(objective, booster)
    assert learner.trees is not None
    draw = np.random.default_rng(seed)
    scale = np.float32(10.0) ** draw.integers(-20, 3)
    n_nodes = len(learner.trees.left)
    learner.trees.split_condition[:] = draw.standard_normal(n_nodes, np.float32) * scale
    forest = pack(learner)
    assert forest is not None
    rows = (draw.standard_normal((9, learner.n_features), np.float32) * scale).astype(np.float32)
    native = loaded(ubj_of(learner))
    for kind in (Kind.VALUE, Kind.MARGIN):
        assert walked(forest, rows, kind).tobytes() == native.predict_dense(rows, kind).tobytes()


SPECIAL = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0, 1e-45, 3.4e38], np.float32)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["reg:squarederror", "binary:logistic", "multi:softprob", "multi:softmax"]),
    st.sampled_from(["gbtree", "dart"]),
    st.integers(0, 8),
    st.sampled_from([23, 24, 25, 32, 33, 63, 100, 2047, 2048, 2049, 2081]),
    st.integers(0, 2**32 - 1),
)
def test_rows_scored_in_bulk_have_the_bits_of_each_alone(
    objective: str, booster: str, n_levels: int, n_rows: int, seed: int
) -> None:
    learner = sample(objective, booster, n_levels)
    trees = learner.trees
    assert trees is not None
    draw = np.random.default_rng(seed)
    is_split = trees.left != NO_NODE
    n_nodes = len(is_split)
    numbers = draw.integers(-3, 4, n_nodes).astype(np.float32) / np.float32(3)
    numbers = np.where(is_split & (draw.random(n_nodes) < 0.05), draw.choice(SPECIAL, n_nodes), numbers)
    trees.split_condition[:] = numbers
    trees.default_left[:] = is_split & (draw.random(n_nodes) < 0.5)
    _cut(trees, draw)
    forest = pack(learner)
    assert forest is not None
    rows = draw.integers(-3, 4, (n_rows, learner.n_features)).astype(np.float32) / np.float32(3)
    rows = np.where(draw.random(rows.shape) < 0.2, draw.choice(SPECIAL, rows.shape), rows)
    for kind in (Kind.VALUE, Kind.MARGIN):
        for n_trees in (3, 12, None):  # of a model that stopped early only the first trees answer
            alone = np.concatenate([walked(forest, rows[at : at + 1], kind, n_trees) for at in range(n_rows)])
            assert walked(forest, rows, kind, n_trees).tobytes() == alone.tobytes()
        theirs = loaded(document_of(forest)).predict_dense(rows, kind)
        assert np.array_equal(theirs, alone, equal_nan=True)


def _cut(trees: Trees, draw: np.random.Generator) -> None:
    """Make leaves of some splits, so that branches have different lengths."""
    for node in np.flatnonzero((trees.left != NO_NODE) & (draw.random(len(trees.left)) < 0.1)):
        trees.left[node] = trees.right[node] = NO_NODE
        trees.split_index[node] = trees.default_left[node] = 0
        trees.split_condition[node] = 0.25


@pytest.mark.parametrize("n_features", [1, 16, 17, 500, 1023, 1025, 3000])
def test_rows_of_any_width_have_the_bits_of_each_alone(n_features: int) -> None:
    learner = sample("reg:squarederror", n_levels=4)
    assert learner.trees is not None
    learner.n_features = n_features
    draw = np.random.default_rng(n_features)
    is_split = learner.trees.left != NO_NODE
    learner.trees.split_index[is_split] = draw.integers(0, n_features, int(is_split.sum()))
    forest = pack(learner)
    assert forest is not None
    rows = draw.standard_normal((200, n_features), np.float32)
    rows[draw.random(rows.shape) < 0.1] = np.nan
    alone = np.concatenate([walked(forest, rows[at : at + 1], Kind.VALUE) for at in range(200)])
    assert walked(forest, rows, Kind.VALUE).tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("parameters", "why"),
    [({"booster": "gblinear"}, "no trees"), ({"multi_strategy": "multi_output_tree", "n_targets": 2}, "vectors")],
)
def test_what_the_walker_does_not_do_is_left_to_libxgboost(parameters: dict[str, Any], why: str) -> None:
    if "n_targets" in parameters:
        x = boosters.rows(100, 4)
        booster = xgboost.train(
            {"multi_strategy": "multi_output_tree", "tree_method": "hist"}, xgboost.DMatrix(x, x[:, :2]), 3
        )
    else:
        booster = boosters.train(**parameters)
    assert pack(learner_of(booster)) is None, why


def test_categories_are_left_to_libxgboost() -> None:
    x = boosters.rows(200, 3)
    x[:, 1] = np.arange(200) % 5
    matrix = xgboost.DMatrix(x, x[:, 0] + x[:, 1], feature_types=["q", "c", "q"], enable_categorical=True)
    assert pack(learner_of(xgboost.train({"max_cat_to_onehot": 1}, matrix, 3))) is None


def test_an_intercept_that_xgboost_may_refuse_is_left_to_it() -> None:
    for objective, intercept in (("binary:logistic", 1.5), ("count:poisson", 0.0), ("reg:gamma", -1.0)):
        learner = sample(objective)
        learner.base_score = np.array([intercept], np.float32)
        assert pack(learner) is None, objective


def test_classes_that_contradict_themselves_are_left_to_libxgboost() -> None:
    learner = sample("multi:softprob")
    learner.objective_params["softmax_multiclass_param"]["num_class"] = "2"
    assert pack(learner) is None


def test_a_tree_too_large_for_a_word_is_left_to_libxgboost() -> None:
    learner = sample("reg:squarederror")
    learner.n_features = 1 << 30  # leaves one bit for how far a child lies
    assert pack(learner) is None


@pytest.mark.parametrize(("n_rounds", "depth"), [(800, 1), (300, 3), (100, 6), (30, 12)])
def test_a_forest_is_a_fraction_of_its_document_and_its_booster_no_larger_than_foretold(
    n_rounds: int, depth: int
) -> None:
    from container.limits.libc import allocated_bytes

    learner = learner_of(boosters.train(n_rounds=n_rounds, max_depth=depth))
    forest = pack(learner)
    assert forest is not None
    document = document_of(forest)
    assert len(forest) < 0.4 * len(document)
    before = allocated_bytes()
    booster = loaded(document)
    assert 0.4 * booster_bytes(forest) < allocated_bytes() - before < booster_bytes(forest)
    booster.free()


@pytest.fixture(scope="module")
def sound() -> bytes:
    forest = pack(learner_of(boosters.train(n_features=6, n_rounds=20)))
    assert forest is not None
    return forest


def word(forest: bytes, at: int, value: int) -> bytes:
    return forest[: 4 * at] + value.to_bytes(4, "little") + forest[4 * at + 4 :]


def test_what_was_packed_is_sound_and_nothing_shorter_is(sound: bytes) -> None:
    assert is_sound(sound)
    for end in [*range(64), len(sound) // 2, len(sound) - 1]:
        assert not is_sound(sound[:end])


def test_every_index_out_of_range_is_seen(sound: bytes) -> None:
    _, n_nodes, n_trees, n_groups, n_features, bits, *_ = struct.unpack_from("=8I", sound)
    roots = 8 + n_groups
    groups = roots + n_trees
    nodes = groups + n_trees
    for place, value in [
        (0, 1),  # another magic
        (1, n_nodes + 1),  # more nodes than there are
        (2, 0), (2, n_trees + 1), (3, 0), (3, 2), (4, 1), (5, 0), (5, 31), (6, 6), (7, 2),
        (roots, 1), (roots + 1, 0), (roots + 1, n_nodes), (roots + n_trees - 1, n_nodes),
        (groups, n_groups), (groups + n_trees - 1, 0x7FFFFFFF),
        (nodes + 1, 0xFFFFFFFF),  # a child beyond the end
        (nodes + 2 * n_nodes - 1, 1 << bits + 1),  # of the last node
        (nodes + 1, struct.unpack_from("=I", sound, 4 * nodes + 4)[0] >> bits << bits | (1 << bits) - 1),
    ]:  # fmt: skip
        assert n_features <= (1 << bits) - 1
        assert not is_sound(word(sound, place, value)), (place, value)


def one_tree(offsets: list[int], sound: bytes) -> bytes:
    """A forest of one tree and one feature, of whose nodes each has its left child so far behind it; 0 is a leaf."""
    rest = json.dumps(
        rest_of(sound) | {"iteration_starts": [0, 1], "base_score": [0.5], "n_parallel": 1, "tree_weights": None}
    ).encode()
    nodes = b"".join(struct.pack("=fI", 0.5, offset << 2) for offset in offsets)
    head = struct.pack("=8If2I", 0x31464D4D, len(offsets), 1, 1, 1, 1, 0, 1, 0.5, 0, 0)
    return head + nodes + bytes(4 * len(offsets)) + rest + struct.pack("=I", len(rest))


def rest_of(forest: bytes) -> dict[str, Any]:
    (n_rest,) = struct.unpack_from("=I", forest, len(forest) - 4)
    rest: dict[str, Any] = json.loads(forest[-4 - n_rest : -4])
    return rest


def with_rest(forest: bytes, rest: bytes) -> bytes:
    (n_rest,) = struct.unpack_from("=I", forest, len(forest) - 4)
    return forest[: -4 - n_rest] + rest + struct.pack("=I", len(rest))


def test_a_tree_that_is_none_is_not_sound(sound: bytes) -> None:
    assert is_sound(one_tree([1, 0, 0], sound))
    assert is_sound(one_tree([1, 2, 0, 0, 0, 0], sound))  # the last was deleted
    assert not is_sound(one_tree([1, 1, 0, 0], sound))  # a node with two parents
    assert not is_sound(
        one_tree([1] * 60 + [0, 0], sound)
    )  # all have: as many ways as there are atoms in a heap of sand
    assert not is_sound(one_tree([1, 0, 0, 1, 0, 0], sound))  # what nobody leads to leads on
    assert not is_sound(one_tree([2, 0, 0], sound))  # a child beyond the end


def chain(n_levels: int) -> list[int]:
    """Of each split the left child is a leaf."""
    return [1, 0] * n_levels + [0]


def test_a_tree_is_as_deep_as_an_artifacts_may_be_and_no_deeper(sound: bytes) -> None:
    assert is_sound(one_tree(chain(MAX_DEPTH), sound))
    assert cost_of(one_tree(chain(MAX_DEPTH), sound)).depth == MAX_DEPTH
    assert not is_sound(one_tree(chain(MAX_DEPTH + 1), sound))


@pytest.mark.parametrize("name", ["objective", "objective_params", "booster", "base_score", "num_class", "n_targets",
                                  "n_parallel", "iteration_starts", "tree_weights"])  # fmt: skip
def test_what_is_not_walked_is_what_is_asked_of_it(sound: bytes, name: str) -> None:
    rest = rest_of(sound)
    assert is_sound(with_rest(sound, json.dumps(rest).encode()))
    for value in (..., 1.5, [None], [[]], {"a": []}, {"a": {"b": 1}}):
        changed = {key: one for key, one in rest.items() if key != name} | ({} if value is ... else {name: value})
        assert not is_sound(with_rest(sound, json.dumps(changed).encode())), value


@pytest.mark.parametrize("rest", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_of_ours_is_not_sound(sound: bytes, rest: bytes) -> None:
    assert not is_sound(with_rest(sound, rest))


@pytest.mark.parametrize("starts", [[], [0], [1, 20], [0, 21], [0, 5, 4, 20], [0, 10]])
def test_rounds_that_do_not_divide_the_trees_are_not_sound(sound: bytes, starts: list[int]) -> None:
    assert not is_sound(with_rest(sound, json.dumps(rest_of(sound) | {"iteration_starts": starts}).encode()))


@settings(max_examples=500)
@given(st.data())
def test_whatever_is_sound_can_be_walked(sound: bytes, data: st.DataObject) -> None:
    forest = sound
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 200) | st.integers(0, len(sound) // 4 - 1))
        forest = word(forest, at, data.draw(st.integers(0, 40) | st.integers(0, 2**32 - 1)))
    if is_sound(forest):
        shape = shape_of(forest)
        assert shape.n_groups <= len(sound)
        rows = np.zeros((9, shape.n_features), np.float32) if shape.n_features < 1000 else None
        if rows is not None:
            assert walked(forest, rows, Kind.VALUE).shape == (9, shape.n_outputs)
