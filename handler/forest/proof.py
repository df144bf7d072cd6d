"""Whether the walker, as it was compiled here, answers as this libxgboost does, bit for bit.

What could differ is a release of libxgboost that adds, rounds or transforms in another way, or a compiler that does. So
one small booster for each transformation is scored by both, once for each process that packs. Whether a tree was packed
right is not asked here: it is packed from the same arrays as XGBoost's document.
"""

from __future__ import annotations

import numpy as np

from handler.forest import walker
from handler.forest.packed import TRANSFORMS, pack, shape_of
from handler.importer.learner import NO_NODE, NO_PARENT, Array, Learner, Trees, no_categories
from handler.importer.writer import ubj_of
from handler.libxgboost import Booster, Kind

N_FEATURES = 3
N_TREES = 27  # more than walk.c has lanes, and a multiple of three groups
N_ROWS = 75  # enough to be scored in bulk, and no multiple of any width
N_BULK_LEVELS = 6  # of the trees that it scores so
# Of all objectives; each reads its own.
_PARAMETERS = {
    "reg_loss_param": {"scale_pos_weight": "1"},
    "pseudo_huber_param": {"huber_slope": "1"},
    "quantile_loss_param": {"quantile_alpha": "[0.5]"},
    "poisson_regression_param": {"max_delta_step": "0.7"},
    "tweedie_regression_param": {"tweedie_variance_power": "1.5"},
    "aft_loss_param": {"aft_loss_distribution": "normal", "aft_loss_distribution_scale": "1"},
    "lambdarank_param": {"lambdarank_num_pair_per_sample": "1"},
}
N_LEVELS = 2


def walker_agrees() -> bool:
    """For each transformation, for dart's way to add, and for trees of as many levels as are scored in bulk, and one more.
    Raises XGBoostError when libxgboost does not load what we write."""
    one_each = {transform: objective for objective, transform in TRANSFORMS.items()}.values()
    return (
        all(agrees(sample(objective)) for objective in one_each)
        and agrees(sample("reg:squarederror", "dart"))
        and all(agrees(sample("reg:squarederror", n_levels=number)) for number in range(N_BULK_LEVELS + 2))
    )


def agrees(learner: Learner) -> bool:
    """Whether both score this one alike."""
    forest = pack(learner)
    if forest is None:
        return False
    shape = shape_of(forest)
    booster = Booster()
    booster.load(ubj_of(learner))
    rows = _numbers(N_ROWS * N_FEATURES).reshape(N_ROWS, N_FEATURES)
    rows[::4, 1] = np.nan
    for kind in (Kind.VALUE, Kind.MARGIN):
        for block in (rows, rows[:11], rows[:1]):
            ours = walker.predict(
                forest, block, shape.n_trees, shape.n_groups, shape.n_outputs, is_margin=kind is Kind.MARGIN
            )
            theirs = booster.predict_dense(block, kind)
            if ours.shape != theirs.shape or ours.tobytes() != theirs.tobytes():
                return False
    return True


def sample(objective: str, booster: str = "gbtree", n_levels: int = N_LEVELS) -> Learner:
    """A small booster that nobody trained; of three classes where the objective wants classes. n_levels: of splits."""
    n_groups = 3 if objective.startswith("multi:") else 1
    n_of_tree = 2 ** (n_levels + 1) - 1
    n_nodes = N_TREES * n_of_tree
    starts = np.arange(0, n_nodes + 1, n_of_tree)
    within = np.tile(np.arange(n_of_tree), N_TREES)
    is_split = within < n_of_tree // 2
    trees = Trees(
        starts=starts,
        left=np.where(is_split, 2 * within + 1, NO_NODE),
        right=np.where(is_split, 2 * within + 2, NO_NODE),
        parent=np.where(within == 0, NO_PARENT, (within - 1) // 2),
        split_index=np.where(is_split, np.arange(n_nodes) % N_FEATURES, 0),
        split_condition=_numbers(n_nodes),
        default_left=(is_split & (np.arange(n_nodes) % 2 == 1)).astype(np.uint8),
        loss_change=np.zeros(n_nodes, np.float32),
        sum_hessian=np.ones(n_nodes, np.float32),
        base_weight=np.zeros(n_nodes, np.float32),
        split_type=np.zeros(n_nodes, np.uint8),
        group=np.arange(N_TREES) % n_groups,
        n_parallel=1,
        iteration_starts=np.arange(0, N_TREES + 1, n_groups),
        **no_categories(N_TREES),
    )
    return Learner(
        release=None,
        objective=objective,
        objective_params=_PARAMETERS | {"softmax_multiclass_param": {"num_class": str(n_groups)}},
        booster=booster,
        base_score=np.array([0.3], np.float32),
        n_features=N_FEATURES,
        num_class=n_groups if n_groups > 1 else 0,
        n_targets=1,
        trees=trees,
        tree_weights=np.abs(_numbers(N_TREES)) if booster == "dart" else None,
    )


def _numbers(n: int) -> Array:
    """The same n numbers between -1 and 1 each time, of all last bits."""
    numbers: Array = np.sin(np.arange(1, n + 1) * 12.9898).astype(np.float32)
    return numbers
