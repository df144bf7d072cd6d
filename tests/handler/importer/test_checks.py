"""Everything libxgboost would crash on, hang on or read past its arrays for must be named by checks.py first."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
import xgboost

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import checks, document, import_booster, json_text, writer
from handler.importer.broken import Damaged, Unsupported
from handler.importer.learner import Learner


@pytest.fixture
def model(json_bytes):
    return json.loads(json_bytes)


def booster_of(model):
    return model["learner"]["gradient_booster"]["model"]


def imported(model):
    return import_booster(json.dumps(model).encode(), "x")


def broken(model, match):
    with pytest.raises(ArtifactBroken, match=match):
        imported(model)


def test_the_healthy_booster_passes(model, predict, trained):
    rows = np.random.RandomState(1).normal(size=(8, 4))
    assert np.array_equal(predict(imported(model).document, rows), trained.predict(xgboost.DMatrix(rows)))


@pytest.mark.parametrize("child", ["left_children", "right_children"])
@pytest.mark.parametrize("value", [-2, 0, 10_000, 2**31 - 1, -(2**31)])
def test_a_child_outside_its_tree_is_damage(model, child, value):
    booster_of(model)["trees"][1][child][0] = value
    broken(model, "child|children")


def test_a_child_that_is_its_own_ancestor_is_damage(model):
    tree = booster_of(model)["trees"][0]
    inner = next(i for i in range(1, len(tree["left_children"])) if tree["left_children"][i] != -1)
    tree["left_children"][inner], tree["parents"][tree["left_children"][inner]] = inner, 0
    tree["parents"][inner] = inner
    broken(model, "contradict|reached")


def test_a_cycle_away_from_the_root_is_damage(model):
    """Parents and children agree all round the circle, and children are side by side; only reachability tells."""
    tree = booster_of(model)["trees"][0]
    n = len(tree["left_children"])
    tree["left_children"] += [n + 2, -1, n, -1]
    tree["right_children"] += [n + 3, -1, n + 1, -1]
    tree["parents"] += [n + 2, n + 2, n, n]
    for name in ("split_indices", "default_left", "split_type"):
        tree[name] += [0] * 4
    for name in ("split_conditions", "loss_changes", "sum_hessian", "base_weights"):
        tree[name] += [0.5] * 4
    tree["tree_param"]["num_nodes"] = str(n + 4)
    broken(model, "reached")


def test_two_parents_of_one_child_are_damage(model):
    tree = booster_of(model)["trees"][0]
    tree["right_children"][0] = tree["left_children"][0]
    broken(model, "child")


def test_children_that_are_not_side_by_side_are_refused(model):
    """XGBoost 3.2 goes to left + 1 without looking: swapped children, sound as a tree, would be answered wrongly."""
    tree = booster_of(model)["trees"][0]
    tree["left_children"][0], tree["right_children"][0] = tree["right_children"][0], tree["left_children"][0]
    with pytest.raises(ArtifactRefused, match="side by side"):
        imported(model)


def test_a_chain_deeper_than_c_can_recurse_is_refused(model):
    depth = checks.MAX_DEPTH + 10
    left, right, parents = [], [], [2147483647]
    for level in range(depth):
        left += [2 * level + 1, -1] if level else [1]
        right += [2 * level + 2, -1] if level else [2]
        parents += [max(0, 2 * level - 1) if level else 0] * 2
    left, right = [-1] * (2 * depth + 1), [-1] * (2 * depth + 1)
    parents = [2147483647] * (2 * depth + 1)
    at = 0
    for level in range(depth):
        left[at], right[at] = 2 * level + 1, 2 * level + 2
        parents[2 * level + 1] = parents[2 * level + 2] = at
        at = 2 * level + 1
    n = len(left)
    tree = booster_of(model)["trees"][0]
    tree.update(
        left_children=left,
        right_children=right,
        parents=parents,
        tree_param={**tree["tree_param"], "num_nodes": str(n)},
    )
    for name in ("split_indices", "default_left", "split_type"):
        tree[name] = [0] * n
    for name in ("split_conditions", "loss_changes", "sum_hessian", "base_weights"):
        tree[name] = [0.5] * n
    with pytest.raises(ArtifactRefused, match="deeper"):
        imported(model)


@pytest.mark.parametrize("value", [4, 1000, -1, 2**31 - 1])
def test_a_split_on_a_foreign_feature_is_damage(model, value):
    booster_of(model)["trees"][0]["split_indices"][0] = value
    broken(model, "feature")


@pytest.mark.parametrize("value", ["1", "-1", "", "00", "x", 0, []])
def test_a_count_of_deleted_nodes_that_is_not_the_nodes_own_is_damage(model, value):
    """XGBoost refuses it too: the file was changed after it was written."""
    booster_of(model)["trees"][1]["tree_param"]["num_deleted"] = value
    broken(model, "tree 1 has 0 deleted nodes and says otherwise")


def test_a_file_of_1_0_says_nothing_of_deleted_nodes(model):
    for tree in booster_of(model)["trees"]:
        del tree["tree_param"]["num_deleted"]
    imported(model)


def test_a_deleted_root_is_damage(model):
    tree = booster_of(model)["trees"][0]
    tree["split_indices"][0], tree["default_left"][0] = 2147483647, 1
    tree["tree_param"]["num_deleted"] = "1"
    broken(model, "root")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_a_leaf_that_is_not_finite_is_damage(model, value):
    tree = booster_of(model)["trees"][0]
    tree["split_conditions"][tree["left_children"].index(-1)] = value
    broken(model, "finite")


def test_a_threshold_that_is_no_number_is_damage(model):
    booster_of(model)["trees"][0]["split_conditions"][0] = float("nan")
    broken(model, "threshold")


@pytest.mark.parametrize("name", [name for name, *_ in document.NODE_FIELDS.values()])
def test_a_node_array_of_another_length_is_damage(model, name):
    booster_of(model)["trees"][2][name].append(0)
    broken(model, name)


@pytest.mark.parametrize("value", [2**40, 0.5, "1", None, [1], {}])
def test_a_child_of_another_kind_is_an_error_and_no_crash(model, value):
    booster_of(model)["trees"][2]["left_children"][0] = value
    with pytest.raises(ArtifactBroken):
        imported(model)


@pytest.mark.parametrize(("name", "value"), [("default_left", 2), ("split_type", 3), ("default_left", -1)])
def test_flags_are_0_or_1(model, name, value):
    booster_of(model)["trees"][0][name][0] = value
    broken(model, name)


@pytest.mark.parametrize("value", [-1, 1, 2**31])
def test_a_tree_of_a_foreign_output_is_damage(model, value):
    booster_of(model)["tree_info"][0] = value
    broken(model, "tree_info")


@pytest.mark.parametrize("value", [[0], [0, 5, 1], [1, 2, 3, 4, 5], [0, 6], [0, 3, 2, 5], []])
def test_rounds_that_do_not_divide_the_trees_are_damage(model, value):
    booster_of(model)["iteration_indptr"] = value
    broken(model, "iteration_indptr")


def test_tree_ids_must_be_a_permutation(model):
    trees = booster_of(model)["trees"]
    straight = imported(model).document
    booster_of(model)["trees"] = trees[::-1]
    assert imported(model).document == straight
    for value in (1, -1, 99, None, 0.0, "0"):
        trees[0]["id"] = value
        broken(model, "ids")


@pytest.mark.parametrize("value", ["0", "-4", "4294967295", "4 ", "0x4", "1e3", "9" * 30, ""])
def test_a_feature_count_out_of_bounds_never_reaches_libxgboost(model, value):
    model["learner"]["learner_model_param"]["num_feature"] = value
    with pytest.raises((ArtifactBroken, ArtifactRefused)):
        imported(model)


@pytest.mark.parametrize("value", ["1000000000", "-1", "2147483648"])
def test_an_output_count_out_of_bounds_never_reaches_libxgboost(model, value):
    for name in ("num_class", "num_target"):
        changed = json.loads(json.dumps(model))
        changed["learner"]["learner_model_param"][name] = value
        with pytest.raises((ArtifactBroken, ArtifactRefused)):
            imported(changed)


@pytest.mark.parametrize("value", ["nan", "inf", "1e39", "[1,2]", "[]", "[nan]", "", "0x1", "1" * 1000, "[" * 100])
def test_a_base_score_that_is_no_number_is_damage(model, value):
    model["learner"]["learner_model_param"]["base_score"] = value
    broken(model, "base_score")


def test_names_must_be_as_many_as_features(model):
    model["learner"]["feature_names"] = ["a", "b"]
    broken(model, "feature_names")


def test_fields_that_are_missing_or_of_another_kind_are_damage(model):
    """Walk the document, take each field away, put something else in its place: nothing but our errors comes out."""
    paths = [path for path in walk(model) if "trees" not in path or path[path.index("trees") + 1 :][:1] in ([], [0])]
    assert len(paths) > 40
    for path in paths:
        for replacement in (KeyError, None, [], {}, "x", 7, 1e400, [[]], [{}]):
            changed = json.loads(json.dumps(model))
            at = changed
            for step in path[:-1]:
                at = at[step]
            if replacement is KeyError:
                del at[path[-1]]
            else:
                at[path[-1]] = replacement
            with contextlib.suppress(ArtifactBroken, ArtifactRefused):
                imported(changed)


def walk(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield [*path, key]
            yield from walk(inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        yield [*path, 0]
        yield from walk(value[0], (*path, 0))


@pytest.fixture
def coded(stock) -> Learner:
    return document.learner_of(json_text.read(stock.files["xgboost-3.0.5/categorical.json"]))


def test_categories_out_of_range_or_without_bounds_are_not_loaded(coded):
    checks.check(coded)
    trees = coded.trees
    trees.categories[0] = -1
    with pytest.raises(Damaged, match="category"):
        checks.check(coded)
    trees.categories[0] = 1 << 24
    with pytest.raises(Damaged, match="category"):
        checks.check(coded)
    trees.categories[0] = (1 << 24) - 1
    checks.check(coded)


def test_bit_sets_of_many_categorical_nodes_are_bounded(coded, monkeypatch):
    coded.trees.categories[:] = (1 << 24) - 1
    monkeypatch.setattr(checks, "MAX_CATEGORY_BYTES", 1 << 21)
    with pytest.raises(Unsupported, match="bytes"):
        checks.check(coded)


@pytest.mark.parametrize("name", document.CATEGORY_FIELDS)
@pytest.mark.parametrize("value", [-1, 1, 999, 2**31 - 1])
def test_categorical_arrays_that_contradict_each_other_are_damage(stock, name, value):
    model = json.loads(stock.files["xgboost-3.0.5/categorical.json"])
    tree = next(tree for tree in booster_of(model)["trees"] if tree["categories_nodes"])
    if name == "categories" and 0 <= value < checks.MAX_CATEGORY:
        pytest.skip("a category like any other")
    if tree[name][-1] == value:
        value += 1
    tree[name][-1] = value
    with pytest.raises(ArtifactBroken):
        imported(model)


def test_vectors_as_leaves_must_fit_the_outputs(stock):
    for name, at, value, match in (
        ("right_children", -1, 99, "leaf"),
        ("right_children", -1, -1, "leaf"),
        ("leaf_weights", -1, float("inf"), "finite"),
    ):
        model = json.loads(stock.files["xgboost-3.2.0/vector_leaves.json"])
        booster_of(model)["trees"][0][name][at] = value
        broken(model, match)
    for size in ("3", "1", "0", "-1", str(2**40)):
        model = json.loads(stock.files["xgboost-3.2.0/vector_leaves.json"])
        for tree in booster_of(model)["trees"]:
            tree["tree_param"]["size_leaf_vector"] = size
        with pytest.raises((ArtifactBroken, ArtifactRefused)):
            imported(model)


CHILD = """
import struct, sys
import numpy as np, xgboost
rows = np.random.RandomState(0).normal(size=(16, 6)).astype("f4")
rows[3] = np.nan
while head := sys.stdin.buffer.read(8):
    size, n_features = struct.unpack("<II", head)
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(sys.stdin.buffer.read(size)))
    block = xgboost.DMatrix(rows[:, :n_features], nthread=1)
    booster.predict(block, validate_features=False)
    if booster.num_features() and "vector" not in sys.argv:
        try:
            booster.predict(block, pred_contribs=True, validate_features=False)
            booster.predict(block, pred_leaf=True, validate_features=False)
        except xgboost.core.XGBoostError:  # not every booster has these
            pass
    booster.save_raw("ubj")
    print("answered", flush=True)
"""


def test_what_passes_the_checks_does_not_crash_libxgboost(stock):
    """Numbers of real boosters replaced by hostile ones: whatever is let through must load, predict and save."""
    random = np.random.RandomState(7)
    passed = []
    for name in ("pruned", "categorical", "dart", "gblinear", "softprob", "targets", "vector_leaves", "forest"):
        data = stock.files[f"xgboost-3.0.5/{name}.json"]
        for _ in range(60):
            learner = document.learner_of(json_text.read(data))
            for _ in range(random.randint(1, 3)):
                spoil(learner, random)
            try:
                checks.check(learner)
            except (Damaged, Unsupported):
                continue
            written = writer.ubj_of(learner)
            passed.append(len(written).to_bytes(4, "little") + learner.n_features.to_bytes(4, "little") + written)
    assert len(passed) > 50
    child = subprocess.run(
        [sys.executable, "-c", CHILD], input=b"".join(passed), capture_output=True, timeout=100, check=False
    )
    assert child.returncode == 0, child.stderr[-2000:]
    assert child.stdout.count(b"answered") == len(passed)


def test_what_passes_the_checks_is_answered_as_its_trees_say(stock):
    """The same hostile numbers, and a walk through the trees written down from their definition as the judge."""
    random = np.random.RandomState(11)
    rows = random.normal(size=(12, 6)).astype("f4")
    rows[random.rand(12, 6) < 0.2] = np.nan
    n_passed = 0
    for name in ("pruned", "dart", "targets", "squarederror"):
        data = stock.files[f"xgboost-3.0.5/{name}.json"]
        for _ in range(40):
            learner = document.learner_of(json_text.read(data))
            for _ in range(random.randint(0, 3)):
                spoil(learner, random)
            try:
                checks.check(learner)
            except (Damaged, Unsupported):
                continue
            n_passed += 1
            booster = xgboost.Booster({"nthread": 1})
            booster.load_model(bytearray(writer.ubj_of(learner)))
            expected = walk_trees(learner, rows)
            tolerance = 1e-5 * np.abs(expected).max()
            block = booster.predict(xgboost.DMatrix(rows, nthread=1), output_margin=True, validate_features=False)
            single = [
                booster.inplace_predict(row[None], predict_type="margin", validate_features=False) for row in rows
            ]
            assert np.allclose(block.reshape(expected.shape), expected, rtol=0, atol=tolerance), name
            assert np.allclose(np.reshape(single, expected.shape), expected, rtol=0, atol=tolerance), name
    assert n_passed > 50


def walk_trees(learner: Learner, rows: np.ndarray) -> np.ndarray:
    """Margins, (n_rows, n_groups): for each tree the leaf a row falls to."""
    trees = learner.trees
    margins = np.zeros((len(rows), learner.n_groups)) + learner.base_score.astype(float)
    weights = np.ones(trees.n_trees) if learner.tree_weights is None else learner.tree_weights
    for tree in range(trees.n_trees):
        begin = trees.starts[tree]
        for number, row in enumerate(rows):
            at = begin
            while trees.left[at] != -1:
                value = row[trees.split_index[at]]
                goes_left = trees.default_left[at] if np.isnan(value) else value < trees.split_condition[at]
                at = begin + (trees.left[at] if goes_left else trees.right[at])
            margins[number, trees.group[tree]] += float(weights[tree]) * float(trees.split_condition[at])
    return margins


def spoil(learner: Learner, random: np.random.RandomState) -> None:
    """Put one hostile number somewhere into the arrays."""
    if learner.trees is None:
        arrays = [learner.linear, learner.base_score]
    else:
        arrays = [getattr(learner.trees, name) for name in (*document.NODE_FIELDS, "group", "iteration_starts")]
        arrays += [
            learner.trees.categories,
            learner.trees.category_nodes,
            learner.trees.category_sizes,
            learner.base_score,
        ]
        arrays += [array for array in (learner.tree_weights, learner.trees.leaf_vectors) if array is not None]
    array = arrays[random.randint(len(arrays))].reshape(-1)
    if not len(array):
        return
    if array.dtype.kind == "f":
        value = random.choice([0.0, -0.0, 1e38, -1e38, 1e-45, np.nan, np.inf, -np.inf, 3.0])
    else:
        bounds = np.iinfo(array.dtype)
        value = random.choice([0, 1, 2, 3, 5, 100, -1, bounds.max, bounds.min, len(array) - 1, len(array)])
        value = min(max(int(value), bounds.min), bounds.max)
    array[random.randint(len(array))] = value
