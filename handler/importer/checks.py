"""Whether a Learner is one that libxgboost can load and score without crashing, hanging or reading past its arrays.

Rule: every index, count and length that libxgboost uses without looking is looked at here, over all trees at once.
XGBoost 3.2 itself checks lengths and little else: children out of range, cycles and foreign feature numbers end the
process or never end.
"""

from __future__ import annotations

import numpy as np

from handler.importer import trees as compiled
from handler.importer.broken import Damaged, Unsupported
from handler.importer.learner import DELETED_SPLIT, NO_NODE, NO_PARENT, Array, Learner, Trees

MAX_FEATURES = 1 << 22  # libxgboost fills a dense block of 64 rows of this many floats per thread: 1 GiB
MAX_GROUPS = 1 << 14  # outputs per row
MAX_DEPTH = 2048  # SHAP values and dumps recurse in C++, some 200 bytes of stack a level
MAX_CATEGORY = 1 << 24  # src/common/categorical.h: categories are stored as floats
MAX_CATEGORY_BYTES = 1 << 28  # bit sets of all categorical nodes together


def check(learner: Learner) -> None:
    """Gives what is left over in the parents of roots and the children of leaves and deleted nodes one spelling.

    raises   Damaged naming what does not fit; Unsupported for a booster larger than our bounds
    """
    _check_shape(learner)
    if learner.linear is not None:
        _check_linear(learner)
    if learner.trees is not None:
        if learner.trees.leaf_vectors is not None:
            _check_vectors(learner, learner.trees)
        if learner.tree_weights is not None:
            if len(learner.tree_weights) != learner.trees.n_trees:
                raise Damaged(f"{len(learner.tree_weights)} weights for {learner.trees.n_trees} dart trees")
            _finite(learner.tree_weights, "weight_drop")
        _check_rounds(learner.trees, learner.n_groups)
        if not compiled.are_sound(learner.trees, learner.n_features, MAX_DEPTH):
            _check_trees(learner.trees, learner.n_features)
            _check_categories(learner.trees)
            _spell_anew(learner.trees)


def _check_shape(learner: Learner) -> None:
    if learner.n_features < 1:
        raise Damaged(f"it has {learner.n_features} features")
    if learner.n_features > MAX_FEATURES:
        raise Unsupported(f"it has {learner.n_features} features, the bound is {MAX_FEATURES}")
    if learner.num_class < 0 or learner.n_targets < 1:
        raise Damaged(f"it has {learner.num_class} classes and {learner.n_targets} targets")
    if learner.num_class > 1 and learner.n_targets > 1:
        raise Unsupported("it has several classes and several targets at once, which XGBoost does not support")
    if learner.n_groups > MAX_GROUPS:
        raise Unsupported(f"it has {learner.n_groups} outputs for each row, the bound is {MAX_GROUPS}")
    if len(learner.base_score) not in (1, learner.n_groups):
        raise Damaged(f"base_score has {len(learner.base_score)} values for {learner.n_groups} outputs")
    _finite(learner.base_score, "base_score")
    for what, values in (("feature_names", learner.feature_names), ("feature_types", learner.feature_types)):
        if values and len(values) != learner.n_features:
            raise Damaged(f"{len(values)} {what} for {learner.n_features} features")


def _check_linear(learner: Learner) -> None:
    assert learner.linear is not None
    wanted = (learner.n_features + 1) * learner.n_groups
    if len(learner.linear) != wanted:
        raise Damaged(f"gblinear has {len(learner.linear)} weights where {wanted} belong")
    _finite(learner.linear, "weights")


def _check_vectors(learner: Learner, trees: Trees) -> None:
    if learner.booster != "gbtree":
        raise Damaged(f"{learner.booster} has no trees with vectors as leaves")
    if trees.leaf_size != learner.n_groups:
        raise Damaged(f"leaves have {trees.leaf_size} values for {learner.n_groups} outputs")
    if trees.n_trees and trees.group.any():
        raise Damaged("tree_info tells trees apart that all add to every output")
    if ((trees.split_index == DELETED_SPLIT) & (trees.default_left == 1)).any():
        raise Damaged("a tree with vectors as leaves has deleted nodes, which XGBoost never writes")


def _check_rounds(trees: Trees, n_groups: int) -> None:
    if len(trees.group) != trees.n_trees:
        raise Damaged(f"tree_info has {len(trees.group)} entries for {trees.n_trees} trees")
    groups = trees.group.tolist()  # of as many as an ordinary booster has, faster than as arrays
    if groups and not 0 <= min(groups) <= max(groups) < n_groups:
        raise Damaged(f"tree_info points past the {n_groups} outputs of the booster")
    if not 1 <= trees.n_parallel <= max(1, trees.n_trees):
        raise Damaged(f"num_parallel_tree is {trees.n_parallel} for {trees.n_trees} trees")
    starts = trees.iteration_starts.tolist()
    if not starts or starts[0] != 0 or starts[-1] != trees.n_trees or starts != sorted(starts):
        raise Damaged("iteration_indptr does not divide the trees into rounds")


def _check_trees(trees: Trees, n_features: int) -> None:
    if not trees.n_trees:
        return
    sizes = np.diff(trees.starts)
    first = np.repeat(trees.starts[:-1], sizes)  # of each node: where its tree begins
    size = np.repeat(sizes, sizes)
    is_root = np.zeros(len(first), bool)
    is_root[trees.starts[:-1]] = True

    _flags(trees.default_left, "default_left")
    _flags(trees.split_type, "split_type")
    deleted = (trees.split_index == DELETED_SPLIT) & (trees.default_left == 1)
    if deleted[is_root].any():
        raise Damaged("the root of a tree is marked as deleted")
    live = ~deleted
    if (live & ((trees.split_index < 0) | (trees.split_index >= n_features))).any():
        raise Damaged(f"a tree splits on a feature that is none of the {n_features}")

    is_leaf = trees.left == NO_NODE
    split = live & ~is_leaf
    for child, other, name in ((trees.left, trees.right, "left"), (trees.right, trees.left, "right")):
        if (split & ((child <= 0) | (child >= size) | (child == other))).any():
            raise Damaged(f"a {name} child is no node of its tree")
    parent = np.where(is_root, 0, trees.parent)
    if (is_root & (trees.parent != NO_PARENT) & (trees.parent != NO_NODE)).any():
        raise Damaged("the root of a tree has a parent")
    if ((parent < 0) | (parent >= size)).any():
        raise Damaged("a parent is no node of its tree")
    at = np.flatnonzero(split)
    lefts, rights = first[at] + trees.left[at], first[at] + trees.right[at]
    within = at - first[at]
    if (
        (trees.parent[lefts] != within).any()
        or (trees.parent[rights] != within).any()
        or deleted[lefts].any()
        or deleted[rights].any()
    ):
        raise Damaged("children and parents of a tree contradict each other")
    # From 1.3 on XGBoost goes to `left + 1` without a look at `right` (predict_fn.h, GetNextNode), or looks at it for
    # blocks of rows only; before that, a deleted node that was used again could break the pair.
    if (rights - lefts != 1).any():
        raise Unsupported("the children of a node are not side by side, where XGBoost 3.2 expects them")

    leaf = live & is_leaf
    _finite(trees.split_condition[leaf] if trees.leaf_vectors is None else trees.leaf_vectors, "leaf values")
    if np.isnan(trees.split_condition[split & (trees.split_type == 0)]).any():
        raise Damaged("a threshold is not a number")
    _check_reach(trees, split, first, n_live=int(live.sum()))


def _check_reach(trees: Trees, split: Array, first: Array, n_live: int) -> None:
    """Every live node must be reached from its root exactly once. Parents agree with children by now, so each node is
    reached at most once from a root, and what is not reached hangs on a cycle or on nothing."""
    frontier = trees.starts[:-1]
    n_reached = 0
    for _ in range(MAX_DEPTH + 1):
        n_reached += len(frontier)
        frontier = frontier[split[frontier]]
        if not len(frontier):
            break
        base = first[frontier]
        frontier = np.concatenate((base + trees.left[frontier], base + trees.right[frontier]))
    else:
        raise Unsupported(f"a tree is deeper than {MAX_DEPTH} levels")
    if n_reached != n_live:
        raise Damaged("a tree has nodes that cannot be reached from its root")


def _check_categories(trees: Trees) -> None:
    categorical = np.flatnonzero(trees.split_type == 1)
    per_tree = np.diff(trees.category_node_starts)
    nodes = trees.category_nodes + np.repeat(trees.starts[:-1], per_tree)
    limits = np.repeat(np.diff(trees.starts), per_tree)
    if (
        not np.array_equal(categorical, nodes)
        or (trees.category_nodes < 0).any()
        or (trees.category_nodes >= limits).any()
    ):
        raise Damaged("split_type and categories_nodes of a tree contradict each other")
    if not len(nodes) and not len(trees.categories):
        return
    sizes = trees.category_sizes
    if sizes.min(initial=1) < 1 or sizes.max(initial=0) > len(trees.categories):
        raise Damaged("categories_sizes of a tree do not fit its categories")
    ends = np.concatenate(([0], np.cumsum(sizes)))
    if not np.array_equal(ends[trees.category_node_starts], trees.category_starts):
        raise Damaged("categories_sizes of a tree do not cover its categories")
    if trees.categories.min() < 0 or trees.categories.max() >= MAX_CATEGORY:
        raise Damaged("a category is out of range")
    begins = np.cumsum(trees.category_sizes) - trees.category_sizes
    highest = np.maximum.reduceat(trees.categories, begins)
    if int((highest // 8 + 8).sum()) > MAX_CATEGORY_BYTES:
        raise Unsupported(f"its categorical splits need more than {MAX_CATEGORY_BYTES} bytes")


def _flags(values: Array, name: str) -> None:
    if len(values) and values.max() > 1:
        raise Damaged(f"{name} holds something other than 0 and 1")


def _finite(values: Array, name: str) -> None:
    if not np.isfinite(values).all():
        raise Damaged(f"{name} holds a value that is not finite")


def _spell_anew(trees: Trees) -> None:
    idle = (trees.left == NO_NODE) | ((trees.split_index == DELETED_SPLIT) & (trees.default_left == 1))
    trees.left[idle] = NO_NODE
    trees.right[idle] = NO_NODE
    trees.parent[trees.starts[:-1]] = NO_PARENT
    if (
        trees.leaf_vectors is not None
    ):  # these trees know neither trick: a root's parent is -1, a leaf's right is its vector
        trees.parent[trees.starts[:-1]] = NO_NODE
        n_before = np.cumsum(idle) - idle
        trees.right[idle] = (n_before - np.repeat(n_before[trees.starts[:-1]], np.diff(trees.starts)))[idle]
