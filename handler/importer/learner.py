"""A booster as values: what every format is read into, checked as, corrected as and written from.

Rule: nothing here is trusted yet. `checks.py` decides whether the numbers make trees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

NO_NODE = -1
NO_PARENT = 0x7FFFFFFF  # how XGBoost writes the root's parent
DELETED_SPLIT = 0x7FFFFFFF  # the split index of a node that pruning has deleted, together with default_left


@dataclass(slots=True)
class Trees:
    """All trees of a booster, each column the trees' arrays one behind another.

    node columns      (n_nodes,): left, right, parent int32, node numbers within the tree; split_index int64;
                      split_condition float32, the threshold, or the value of a leaf; default_left, split_type uint8;
                      loss_change, sum_hessian, base_weight float32
    starts            int64, (n_trees + 1,): where each tree's nodes begin
    group             int64, (n_trees,): the output a tree adds to
    iteration_starts  int64, (n_rounds + 1,): the first tree of each boosting round
    categories        the categories of all categorical splits; category_sizes and category_nodes say how many each such
                      node has and which node it is; category_starts and category_node_starts cut them into trees
    leaf_vectors      float32, (n_leaves, leaf_size), leaves in the order of their nodes: trees of multi_output_tree,
                      where leaf_size is above 1 and base_weight (n_nodes * leaf_size,); None for all others
    """

    starts: Array
    left: Array
    right: Array
    parent: Array
    split_index: Array
    split_condition: Array
    default_left: Array
    loss_change: Array
    sum_hessian: Array
    base_weight: Array
    split_type: Array
    group: Array
    n_parallel: int
    iteration_starts: Array
    categories: Array
    category_sizes: Array
    category_nodes: Array
    category_starts: Array
    category_node_starts: Array
    leaf_size: int = 1
    leaf_vectors: Array | None = None

    @property
    def n_trees(self) -> int:
        return len(self.starts) - 1

    @property
    def is_categorical(self) -> bool:
        """Whether a split of theirs is by category. To count takes a third of the time that `any` does."""
        return bool(np.count_nonzero(self.split_type))


def no_categories(n_trees: int) -> dict[str, Any]:
    """The fields of `Trees` that tell of categorical splits, where there are none."""
    nothing, no_starts = np.zeros(0, np.int64), np.zeros(n_trees + 1, np.int64)
    return {
        "categories": nothing,
        "category_sizes": nothing,
        "category_nodes": nothing,
        "category_starts": no_starts,
        "category_node_starts": no_starts,
    }


# A feature's index, and its categories in the order of their codes.
Categories = tuple[int, tuple[str | int | float, ...]]
Label = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Wrapper:
    """One of XGBoost's scikit-learn classes, as it was pickled or as its save_model noted it.

    name    XGBClassifier, ...
    state   its attributes by name; values are plain, or whatever a pickle's reader made of them
    labels  of its encoder, in the order of the classes; None when it has none
    """

    name: str
    state: dict[str, Any]
    labels: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Predicting:
    """How the writer of a booster predicts.

    writer        XGBClassifier, ...; Booster
    best_rounds   boosting rounds up to the best one; None when nobody noted a best one, or it is the last
    why_unknown   why best_rounds is None though a best iteration was noted
    stops_early   answers with best_rounds alone
    is_undecided  two releases that may have written it differ in that
    missing       a number that means missing, besides NaN
    labels        of the classes in their order; empty when they are 0, 1, 2, ...
    """

    writer: str = "Booster"
    best_rounds: int | None = None
    why_unknown: str = ""
    stops_early: bool = False
    is_undecided: bool = False
    missing: float | None = None
    labels: tuple[Label, ...] = ()


@dataclass(slots=True)
class Learner:
    """`release` is what wrote the file, None when it does not say. `base_score` is as the current format stores it:
    before the objective's link, one value or one for each output. `linear` holds gblinear's weights, feature by feature
    and within it output by output, the bias last: ((n_features + 1) * n_groups,)."""

    release: tuple[int, ...] | None
    objective: str
    objective_params: dict[str, dict[str, str]]
    booster: str
    base_score: Array
    n_features: int
    num_class: int
    n_targets: int
    trees: Trees | None = None
    tree_weights: Array | None = None  # dart
    linear: Array | None = None
    linear_rounds: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    feature_names: tuple[str, ...] = ()
    feature_types: tuple[str, ...] = ()
    is_margin_base: bool = False  # files from before 1.0 hold base_score behind the link
    is_rounded_base: bool = False  # JSON of 1.0 and 1.1 holds six decimals of it
    categories: tuple[Categories, ...] = ()  # of a DataFrame it was trained on, from 3.1 on
    forest_size: int | None = None  # num_parallel_tree as something beside the trees says it; trees before 1.6 do not

    wrapper: Wrapper | None = None
    kept: Predicting | None = None  # of an artifact that this was converted from
    remembered: dict[str, Any] = field(default_factory=dict)  # best_iteration, ... of the Python object, up to 1.7
    is_forest_size_unknown: bool = False  # num_parallel_tree may be more than 1, and nothing says

    @property
    def n_groups(self) -> int:
        return max(1, self.num_class, self.n_targets)
