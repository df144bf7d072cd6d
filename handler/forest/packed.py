"""A booster of trees as one block of bytes: what is walked to score a row, and behind it the little that XGBoost needs
beyond that to explain a score.

    head       8 x uint32: magic, n_nodes, n_trees, n_groups, n_features, feature_bits, transform, n_outputs
    base       n_groups x float32: what the sums begin with
    roots      n_trees x uint32: where each tree's nodes begin
    groups     n_trees x uint32: the output a tree adds to
    nodes      n_nodes x (float32, uint32): see walk.c; in the order XGBoost numbers them
    hessian    n_nodes x float32: how much of the training data came by, for SHAP values
    leaves     dart only, n_nodes x float32: leaves before their tree's weight
    rest       JSON, and its length as uint32

12 bytes a node and 8 a tree; XGBoost's own document has 35 and 220 or more, a loaded booster 53 and 350. Numbers lie in
this machine's order: a packed forest does not travel.

Rule: `document_of(pack(learner))` is a function of those bytes alone, so a document that quarantine has seen libxgboost
load is the one the runtime loads.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import msgspec
import numpy as np

from handler.bounds import TreeCost
from handler.compiled import letting_go
from handler.forest import walker
from handler.importer.learner import DELETED_SPLIT, NO_NODE, NO_PARENT, Array, Learner, Trees, no_categories
from handler.importer.trees import address, are_as_read
from handler.importer.writer import ubj_of
from handler.typed_json import read_as

MAGIC = 0x31464D4D  # "MMF1"
_HEAD = struct.Struct("=8I")
_LENGTH = struct.Struct("=I")
_NODE = np.dtype([("value", "=f4"), ("word", "=u4")])
_WORD_BITS = 32

# As in walk.c. XGBoost v3.2.0, src/objective/: PredTransform, and ProbToMargin for what the sums begin with.
_IDENTITY, _SIGMOID, _EXP, _HINGE, _SOFTMAX, _SOFTPROB = range(6)
TRANSFORMS = {
    "reg:squarederror": _IDENTITY,
    "reg:linear": _IDENTITY,
    "reg:squaredlogerror": _IDENTITY,
    "reg:pseudohubererror": _IDENTITY,
    "reg:absoluteerror": _IDENTITY,
    "reg:quantileerror": _IDENTITY,
    "binary:logitraw": _IDENTITY,
    "rank:pairwise": _IDENTITY,
    "rank:ndcg": _IDENTITY,
    "rank:map": _IDENTITY,
    "reg:logistic": _SIGMOID,
    "binary:logistic": _SIGMOID,
    "count:poisson": _EXP,
    "reg:gamma": _EXP,
    "reg:tweedie": _EXP,
    "survival:cox": _EXP,
    "survival:aft": _EXP,
    "binary:hinge": _HINGE,
    "multi:softmax": _SOFTMAX,
    "multi:softprob": _SOFTPROB,
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a caller of the walker must know of a packed forest."""

    n_trees: int
    n_groups: int
    n_features: int
    n_outputs: int


def booster_bytes(forest: bytes) -> int:
    """What libxgboost takes for a forest once it is loaded, at most (measured with trees of 3 to 2,000 nodes)."""
    _, n_nodes, n_trees, *_ = _HEAD.unpack_from(forest)
    n_bytes: int = 56 * n_nodes + 384 * n_trees + 8192
    return n_bytes


def trees_of(forest: bytes, n_rounds: int) -> int:
    """How many trees the first rounds have."""
    starts = _rest_of(forest).iteration_starts
    return starts[min(n_rounds, len(starts) - 1)]


def shape_of(forest: bytes) -> Shape:
    _, _, n_trees, n_groups, n_features, _, _, n_outputs = _HEAD.unpack_from(forest)
    return Shape(n_trees, n_groups, n_features, n_outputs)


def cost_of(forest: bytes) -> TreeCost:
    """What its trees take: a step for each level, all nodes of one at a time."""
    _, n_nodes, n_trees, n_groups, n_features, feature_bits, _, _ = _HEAD.unpack_from(forest)
    at = _HEAD.size + 4 * n_groups
    level = np.frombuffer(forest, np.uint32, n_trees, at).astype(np.int64)
    words = np.frombuffer(forest, _NODE, n_nodes, at + 8 * n_trees)["word"]
    leaf_work, depth = 0, -1
    while len(level):
        depth += 1
        offset = (words[level] >> np.uint32(feature_bits + 1)).astype(np.int64)
        is_split = offset > 0
        leaf_work += int(np.count_nonzero(~is_split)) * (depth + 1) ** 2
        left = (level + offset)[is_split]
        level = np.concatenate((left, left + 1))
    return TreeCost(n_trees, depth, leaf_work, n_features)


def is_sound(forest: bytes, *, is_walkable: bool = False) -> bool:
    """Whether it can be walked and unpacked, whoever packed it: some us for a thousand nodes.

    is_walkable  walk.c has been asked, of these very bytes, and found them sound
    """
    if not (is_walkable or walker.is_sound(forest)):
        return False
    _, n_nodes, n_trees, n_groups, *_ = _HEAD.unpack_from(forest)
    n_walked = _HEAD.size + 4 * n_groups + 8 * n_trees + 8 * n_nodes
    if len(forest) < n_walked + _LENGTH.size:
        return False
    (n_rest,) = _LENGTH.unpack_from(forest, len(forest) - _LENGTH.size)
    n_left = len(forest) - n_walked - n_rest - _LENGTH.size
    if n_left not in (4 * n_nodes, 8 * n_nodes):
        return False
    try:
        return _agrees(_rest_of(forest), n_trees, has_leaves=n_left == 8 * n_nodes)
    except (ValueError, RecursionError):
        return False


def _agrees(rest: _Rest, n_trees: int, *, has_leaves: bool) -> bool:
    """With the trees, as far as what is asked of it goes. What in it contradicts them otherwise the quarantine finds out,
    which opens what is made of it."""
    starts, weights = rest.iteration_starts, rest.tree_weights
    return (
        starts[:1] == [0]
        and starts[-1] == n_trees
        and starts == sorted(starts)
        and (weights is not None) == has_leaves
        and (weights is None or len(weights) == n_trees)
    )


def pack(learner: Learner) -> bytes | None:
    """A checked Learner, packed; None for what the walker does not do: linear boosters, categories, vectors as leaves,
    objectives it does not know, trees too large for the bits of a word; and for what libxgboost may refuse, which it is
    to say itself."""
    trees = learner.trees
    transform = TRANSFORMS.get(learner.objective)
    if trees is None or not trees.n_trees or transform is None:
        return None
    if trees.leaf_vectors is not None or trees.is_categorical or "c" in learner.feature_types:
        return None
    if transform in (_SOFTMAX, _SOFTPROB) and not _classes_agree(learner):
        return None
    margins = _margins(learner, transform)
    if not all(map(math.isfinite, margins)):
        return None
    feature_bits = max(1, (learner.n_features - 1).bit_length())
    nodes = _nodes(trees, feature_bits)
    if nodes is None:
        return None
    pieces: list[bytes | memoryview] = [
        _HEAD.pack(
            MAGIC, len(nodes), trees.n_trees, learner.n_groups, learner.n_features, feature_bits, transform,
            1 if transform == _SOFTMAX else learner.n_groups,
        ),
        np.array(margins, np.float32).tobytes(),
        trees.starts[:-1].astype(np.uint32).tobytes(),
        trees.group.astype(np.uint32).tobytes(),
    ]  # fmt: skip
    leaves = b""
    if learner.tree_weights is not None:
        leaves = nodes["value"].tobytes()
        is_split = nodes["word"] >> np.uint32(feature_bits + 1) > 0
        nodes["value"] = np.where(is_split, nodes["value"], _weighted(learner, trees, margins))
    rest = msgspec.json.encode(_rest(learner, trees))
    pieces += [nodes.data, np.ascontiguousarray(trees.sum_hessian).data, leaves, rest, _LENGTH.pack(len(rest))]
    return b"".join(pieces)


def _nodes(trees: Trees, feature_bits: int) -> Array | None:
    """As they are walked; None where one is too far from its children for the bits of a word."""
    if letting_go is None or not are_as_read(trees):
        return _nodes_by_numpy(trees, feature_bits)
    nodes = np.empty(len(trees.left), _NODE)
    fits = letting_go.trees_pack(
        address(trees.starts), trees.n_trees, feature_bits, address(trees.left), address(trees.split_index),
        address(trees.split_condition), address(trees.default_left), address(nodes),
    )  # fmt: skip
    return nodes if fits else None


def _nodes_by_numpy(trees: Trees, feature_bits: int) -> Array | None:
    deleted = (trees.split_index == DELETED_SPLIT) & (trees.default_left == 1)
    is_split = (trees.left != NO_NODE) & ~deleted
    within = np.arange(len(trees.left)) - np.repeat(trees.starts[:-1], np.diff(trees.starts))
    offset = np.where(is_split, trees.left - within, 0)
    if offset.min() < 0 or int(offset.max()) >> (_WORD_BITS - 1 - feature_bits) or (is_split & (offset == 0)).any():
        return None
    nodes = np.zeros(len(offset), _NODE)
    nodes["value"] = trees.split_condition
    is_left = deleted | (is_split & (trees.default_left == 1))
    feature = np.where(is_split, trees.split_index, 0)
    nodes["word"] = offset << (feature_bits + 1) | is_left.astype(np.int64) << feature_bits | feature
    return nodes


def _classes_agree(learner: Learner) -> bool:
    """The objective's own number of classes is the one XGBoost transforms by."""
    stated = learner.objective_params.get("softmax_multiclass_param", {}).get("num_class")
    return learner.n_groups > 1 and stated == str(learner.num_class)


def _margins(learner: Learner, transform: int) -> list[float]:
    """What the sums begin with, which float32 holds; not finite where XGBoost refuses the intercept."""
    base = learner.base_score.tolist()
    if transform == _SIGMOID and not all(0 <= one <= 1 for one in base):
        return [math.nan]
    margins = [walker.margin_of(one, transform) for one in base]
    return margins if len(margins) == learner.n_groups else margins * learner.n_groups


def _weighted(learner: Learner, trees: Trees, margins: list[float]) -> Array:
    """What each leaf of a dart booster adds, rounded as in Dart::InplacePredict: the tree is scored together with the
    intercept, which is taken away again before the weight is applied."""
    assert learner.tree_weights is not None
    sizes = np.diff(trees.starts)
    base = np.array(margins, np.float32)[np.repeat(trees.group, sizes)]
    weight = np.repeat(learner.tree_weights, sizes)
    leaves: Array = ((base + trees.split_condition) - base) * weight
    return leaves


def _rest(learner: Learner, trees: Trees) -> dict[str, object]:
    return {
        "objective": learner.objective,
        "objective_params": learner.objective_params,
        "booster": learner.booster,
        "base_score": learner.base_score.tolist(),
        "num_class": learner.num_class,
        "n_targets": learner.n_targets,
        "n_parallel": trees.n_parallel,
        "iteration_starts": trees.iteration_starts.tolist(),
        "tree_weights": None if learner.tree_weights is None else learner.tree_weights.tolist(),
    }


class _Rest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `_rest` makes, all of it."""

    objective: str
    objective_params: dict[str, dict[str, str]]
    booster: str
    base_score: list[float]
    num_class: int
    n_targets: int
    n_parallel: int
    iteration_starts: list[int]
    tree_weights: list[float] | None


_rest_decoder = msgspec.json.Decoder(_Rest)


def document_of(forest: bytes) -> bytes:
    """XGBoost's document of a packed forest. Names, attributes and what training alone needs are gone."""
    return ubj_of(_unpacked(forest))


def _rest_of(forest: bytes) -> _Rest:
    """Raises ValueError where it is not what `_rest` makes."""
    (n_rest,) = _LENGTH.unpack_from(forest, len(forest) - _LENGTH.size)
    return read_as(_rest_decoder, forest[len(forest) - _LENGTH.size - n_rest : -_LENGTH.size])


def _unpacked(forest: bytes) -> Learner:
    _, n_nodes, n_trees, n_groups, n_features, feature_bits, _, _ = _HEAD.unpack_from(forest)
    at = _HEAD.size + 4 * n_groups
    roots = np.frombuffer(forest, np.uint32, n_trees, at).astype(np.int64)
    groups = np.frombuffer(forest, np.uint32, n_trees, at + 4 * n_trees).astype(np.int64)
    at += 8 * n_trees
    nodes = np.frombuffer(forest, _NODE, n_nodes, at)
    at += nodes.nbytes
    hessian = np.frombuffer(forest, np.float32, n_nodes, at)
    at += hessian.nbytes
    rest = _rest_of(forest)
    weights = rest.tree_weights
    values = nodes["value"] if weights is None else np.frombuffer(forest, np.float32, n_nodes, at)

    starts = np.concatenate((roots, [n_nodes]))
    sizes = np.diff(starts)
    first = np.repeat(roots, sizes)
    within = np.arange(n_nodes) - first
    word = nodes["word"].astype(np.int64)
    offset = word >> (feature_bits + 1)
    is_split = offset > 0
    default_left = (word >> feature_bits & 1).astype(np.uint8)
    left = np.where(is_split, within + offset, NO_NODE)
    parent = np.zeros(n_nodes, np.int64)  # of deleted nodes nobody asks, but XGBoost follows it
    children = (first + left)[is_split]
    parent[children] = parent[children + 1] = within[is_split]
    parent[roots] = NO_PARENT
    zeros = np.zeros(n_nodes, np.float32)
    trees = Trees(
        starts=starts,
        left=left,
        right=np.where(is_split, left + 1, NO_NODE),
        parent=parent,
        split_index=np.where(~is_split & (default_left == 1), DELETED_SPLIT, word & ((1 << feature_bits) - 1)),
        split_condition=values,
        default_left=default_left,
        loss_change=zeros,
        sum_hessian=hessian,
        base_weight=zeros,
        split_type=np.zeros(n_nodes, np.uint8),
        group=groups,
        n_parallel=rest.n_parallel,
        iteration_starts=np.array(rest.iteration_starts, np.int64),
        **no_categories(n_trees),
    )
    return Learner(
        release=None,
        objective=rest.objective,
        objective_params=rest.objective_params,
        booster=rest.booster,
        base_score=np.array(rest.base_score, np.float32),
        n_features=n_features,
        num_class=rest.num_class,
        n_targets=rest.n_targets,
        trees=trees,
        tree_weights=None if weights is None else np.array(weights, np.float32),
    )
