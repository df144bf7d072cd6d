"""XGBoost's own document (JSON or UBJSON, releases 1.0 to 3.2): from its values to a Learner.

Rule: every field is looked for by name and kind, and only what a Learner holds is taken along.

Source: XGBoost doc/model.schema; src/learner.cc, src/gbm/*.cc, src/tree/tree_model.cc and multi_target_tree_model.cc
(LoadModel).
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import numpy as np

from handler.importer import ubj
from handler.importer.broken import Damaged, Unsupported
from handler.importer.learner import DELETED_SPLIT, NO_NODE, Array, Categories, Learner, Trees, no_categories
from handler.importer.trees import TreeColumns

NEWEST = (3, 2)  # the release whose libxgboost reads what we write

# column of Trees -> (field of a tree, type in memory, letter and type in UBJSON); in the order of XGBoost's own files
NODE_FIELDS = {
    "base_weight": ("base_weights", np.float32, "d", ">f4"),
    "default_left": ("default_left", np.uint8, "U", "u1"),
    "left": ("left_children", np.int32, "l", ">i4"),
    "loss_change": ("loss_changes", np.float32, "d", ">f4"),
    "parent": ("parents", np.int32, "l", ">i4"),
    "right": ("right_children", np.int32, "l", ">i4"),
    "split_condition": ("split_conditions", np.float32, "d", ">f4"),
    "split_index": ("split_indices", np.int64, "l", ">i4"),
    "split_type": ("split_type", np.uint8, "U", "u1"),
    "sum_hessian": ("sum_hessian", np.float32, "d", ">f4"),
}
MAX_CATEGORY_NAMES = 1 << 20  # of all features together; they travel with the model's facts
CATEGORY_FIELDS = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
NUMBER = re.compile(r"[+-]?(\d{1,64}\.?\d{0,64}|\.\d{1,64})([eE][+-]?\d{1,4})?")
COUNT = re.compile(r"[0-9]{1,18}")
WHOLE = re.compile(r"-?\d{1,18}")


def learner_of(root: Any) -> Learner:
    """The booster in a parsed document, its shape verified as far as types and lengths go.

    raises   Damaged when a field is missing or of the wrong kind; Unsupported for a release newer than NEWEST
    """
    root = _mapping(root, "document")
    config = None
    if "Model" in root and "learner" not in root:  # the memory snapshot inside pickles: {"Config": ..., "Model": ...}
        config, root = root.get("Config"), _mapping(root["Model"], "Model")
    release = release_of(root.get("version"))
    learner = _mapping(_get(root, "learner", "document"), "learner")
    params = _mapping(_get(learner, "learner_model_param", "learner"), "learner_model_param")
    objective = _mapping(_get(learner, "objective", "learner"), "objective")
    gradient = _mapping(_get(learner, "gradient_booster", "learner"), "gradient_booster")
    found = Learner(
        release=release,
        objective=_text(_get(objective, "name", "objective"), "objective.name"),
        objective_params={
            name: {key: _text(value, f"{name}.{key}") for key, value in group.items()}
            for name, group in objective.items()
            if isinstance(group, dict)
        },
        booster=_text(_get(gradient, "name", "gradient_booster"), "gradient_booster.name"),
        base_score=base_score(_text(_get(params, "base_score", "learner_model_param"), "base_score")),
        n_features=whole(params, "num_feature"),
        num_class=whole(params, "num_class"),
        n_targets=whole(params, "num_target") if "num_target" in params else 1,
        attributes={
            key: _text(value, f"attributes.{key}")
            for key, value in _mapping(learner.get("attributes", {}), "attributes").items()
        },
        feature_names=_texts(learner.get("feature_names", []), "feature_names"),
        feature_types=_texts(learner.get("feature_types", []), "feature_types"),
        is_rounded_base=release is not None and release < (1, 2),
        forest_size=forest_size(config),
    )
    _read_booster(gradient, found)
    return found


def _read_booster(gradient: dict[str, Any], into: Learner) -> None:
    if into.booster == "gblinear":
        model = _mapping(_get(gradient, "model", "gblinear"), "gblinear.model")
        into.linear = _numbers(_get(model, "weights", "gblinear.model"), np.float32, "weights")
        rounds = model.get("boosted_rounds", 0)  # since 1.4
        if type(rounds) is not int or not 0 <= rounds < 1 << 31:
            raise Damaged("boosted_rounds is no count")
        into.linear_rounds = rounds
        return
    if into.booster == "dart":
        into.tree_weights = _numbers(_get(gradient, "weight_drop", "dart"), np.float32, "weight_drop")
        gradient = _mapping(_get(gradient, "gbtree", "dart"), "dart.gbtree")
    elif into.booster != "gbtree":
        raise Unsupported(f"booster {into.booster[:40]!r} is not known to XGBoost")
    into.trees = _trees(_mapping(_get(gradient, "model", "gbtree"), "gbtree.model"), into)


def _trees(model: dict[str, Any], of: Learner) -> Trees:
    params = _mapping(_get(model, "gbtree_model_param", "gbtree.model"), "gbtree_model_param")
    trees = _get(model, "trees", "gbtree.model")
    if not isinstance(trees, (list, TreeColumns)):
        raise Damaged("trees is no list")
    n_trees = whole(params, "num_trees")
    n_found = len(trees.starts) - 1 if isinstance(trees, TreeColumns) else len(trees)
    if n_trees != n_found:
        raise Damaged(f"num_trees is {n_trees}, there are {n_found} trees")
    nodes = _ordinary_nodes(trees) if isinstance(trees, TreeColumns) else _nodes(_in_order(trees))
    group = _numbers(_get(model, "tree_info", "gbtree.model"), np.int64, "tree_info")
    of.categories = _names_of_categories(model.get("cats"), of.n_features)
    n_parallel = whole(params, "num_parallel_tree") if "num_parallel_tree" in params else 1
    stated = model.get("iteration_indptr")
    iteration_starts = (
        iterations(n_trees, n_parallel, of.n_groups)
        if stated is None
        else _numbers(stated, np.int64, "iteration_indptr")
    )
    return Trees(
        **nodes,
        group=group,
        n_parallel=n_parallel,
        iteration_starts=iteration_starts,
    )


def _ordinary_nodes(trees: TreeColumns) -> dict[str, Any]:
    """The fields of `Trees` that trees which C has read tell of."""
    return {"starts": trees.starts, **trees.columns, **no_categories(len(trees.starts) - 1)}


def _nodes(trees: list[dict[str, Any]]) -> dict[str, Any]:
    """The same of any others, in their order."""
    sizes, leaf_size = _sizes(trees)
    columns: dict[str, Array] = {}
    for column, (name, dtype, _, _) in NODE_FIELDS.items():
        columns[column] = _column(trees, name, dtype, sizes, leaf_size)
    _check_deleted(trees, sizes, columns)
    return {
        "starts": starts_of(sizes),
        **columns,
        **_categories(trees),
        "leaf_size": leaf_size,
        "leaf_vectors": _leaf_vectors(trees, sizes, columns, leaf_size) if leaf_size > 1 else None,
    }


def _leaf_vectors(trees: list[dict[str, Any]], sizes: list[int], columns: dict[str, Array], leaf_size: int) -> Array:
    """The leaves of multi_output_tree: since 3.2 in an array of their own, to which a leaf's right child points; before
    that among the weights of all nodes."""
    is_leaf = columns["left"] == NO_NODE
    if not any("leaf_weights" in tree for tree in trees):
        before: Array = columns["base_weight"].reshape(-1, leaf_size)[is_leaf]
        return before
    n_leaves = np.add.reduceat(is_leaf.astype(np.int64), starts_of(sizes)[:-1])
    vectors, lengths = _concatenated([tree.get("leaf_weights", []) for tree in trees], np.float32, "leaf_weights")
    if lengths != (n_leaves * leaf_size).tolist():
        raise Damaged("leaf_weights of a tree has another length than its leaves need")
    at = columns["right"][is_leaf]
    limit = np.repeat(n_leaves, n_leaves)
    if ((at < 0) | (at >= limit)).any():
        raise Damaged("a leaf of a tree points past its leaf_weights")
    ordered: Array = vectors.reshape(-1, leaf_size)[at + np.repeat(np.cumsum(n_leaves) - n_leaves, n_leaves)]
    return ordered


def _in_order(trees: list[Any]) -> list[dict[str, Any]]:
    """Trees sorted by their `id`: XGBoost stores a tree at its id, wherever in the list it stands."""
    ids = [tree.get("id") if isinstance(tree, dict) else None for tree in trees]
    if ids == list(range(len(trees))):
        return trees
    placed: list[Any] = [None] * len(trees)
    for tree, number in zip(trees, ids, strict=True):
        if type(number) is not int or not 0 <= number < len(trees) or placed[number] is not None:
            raise Damaged("the ids of the trees are not 0, 1, 2, ...")
        placed[number] = tree
    return placed


def _sizes(trees: list[dict[str, Any]]) -> tuple[list[int], int]:
    """The number of nodes of each tree, and the number of values in a leaf, as tree_param says them."""
    sizes, leaf_sizes = [], []
    for number, tree in enumerate(trees):
        param = tree.get("tree_param")
        if type(param) is not dict:
            raise Damaged(f"tree {number} has no tree_param")
        size, leaf_size = param.get("num_nodes"), param.get("size_leaf_vector", "1")
        if type(size) is not str or type(leaf_size) is not str or not COUNT.fullmatch(size + leaf_size):
            raise Damaged(f"tree_param of tree {number} is incomplete")
        sizes.append(int(size))
        leaf_sizes.append(max(int(leaf_size), 1))  # 0 before 2.0
    if sizes and min(sizes) < 1:
        raise Damaged("a tree has no nodes")
    if len(set(leaf_sizes)) > 1:
        raise Damaged("its trees have leaves of different sizes")
    return sizes, leaf_sizes[0] if leaf_sizes else 1


def _check_deleted(trees: list[dict[str, Any]], sizes: list[int], columns: dict[str, Array]) -> None:
    """What tree_param says of deleted nodes (not in 1.0) against the marks of the nodes: XGBoost refuses a difference."""
    if not trees:
        return
    marked = (columns["split_index"] == DELETED_SPLIT) & (columns["default_left"] == 1)
    counts = np.add.reduceat(marked.astype(np.int64), starts_of(sizes)[:-1]).tolist()
    for number, (tree, count) in enumerate(zip(trees, counts, strict=True)):
        stated = tree["tree_param"].get("num_deleted")
        if stated is not None and stated != str(count):
            raise Damaged(f"tree {number} has {count} deleted nodes and says otherwise")


def _column(trees: list[dict[str, Any]], name: str, dtype: Any, sizes: list[int], leaf_size: int) -> Array:
    """One field of all trees, concatenated."""
    try:
        parts = [tree[name] for tree in trees]
    except KeyError:
        if name == "split_type":  # before 1.3 every split is numerical
            return np.zeros(_total(sizes, trees), np.uint8)
        if leaf_size > 1 and name in ("loss_changes", "sum_hessian"):  # before 3.2 such trees have no statistics
            return np.zeros(_total(sizes, trees), np.float32)
        raise Damaged(f"a tree has no {name}") from None
    column, lengths = _concatenated(parts, dtype, name)
    if leaf_size > 1 and name == "base_weights":
        lengths, rest = [n // leaf_size for n in lengths], sum(n % leaf_size for n in lengths)
        if rest:
            raise Damaged("base_weights of a tree are no whole vectors")
    if lengths != sizes:
        raise Damaged(f"{name} of a tree has another length than its num_nodes")
    return column


def _total(sizes: list[int], trees: list[dict[str, Any]]) -> int:
    """The number of nodes of all trees, once it is known that the trees really have them."""
    for size, tree in zip(sizes, trees, strict=True):
        lefts = tree.get("left_children")
        held = len(lefts.raw) // ubj.DTYPES[lefts.code].itemsize if isinstance(lefts, ubj.Typed) else len(lefts or ())
        if held != size:
            raise Damaged("left_children of a tree has another length than its num_nodes")
    return sum(sizes)


def _concatenated(parts: list[Any], dtype: Any, name: str) -> tuple[Array, list[int]]:
    if parts and type(parts[0]) is ubj.Typed:
        codes = {part.code if type(part) is ubj.Typed else None for part in parts}
        if len(codes) == 1 and None not in codes:
            stored = ubj.DTYPES[parts[0].code]
            joined = np.frombuffer(b"".join([part.raw for part in parts]), stored)
            return _fitted(joined, dtype, name), [len(part.raw) // stored.itemsize for part in parts]
    arrays = [_numbers(part, dtype, name) for part in parts]
    return (np.concatenate(arrays) if arrays else np.zeros(0, dtype)), [len(array) for array in arrays]


def _categories(trees: list[dict[str, Any]]) -> dict[str, Array]:
    if not any("categories_nodes" in tree for tree in trees):
        return no_categories(len(trees))
    found = {name: _concatenated([tree.get(name, []) for tree in trees], np.int64, name) for name in CATEGORY_FIELDS}
    (categories, per_tree), (nodes, n_nodes) = found["categories"], found["categories_nodes"]
    (segments, n_segments), (sizes, n_sizes) = found["categories_segments"], found["categories_sizes"]
    if not n_nodes == n_segments == n_sizes:
        raise Damaged("categories_nodes, categories_segments and categories_sizes of a tree differ in length")
    starts = starts_of(per_tree)
    # XGBoost writes segments one behind another; overlapping ones would let a small file describe a huge booster.
    tree_of = np.repeat(np.arange(len(trees)), n_nodes)
    if not np.array_equal(np.cumsum(sizes) - sizes - starts[tree_of], segments):
        raise Damaged("categories_segments of a tree do not follow one another")
    return {
        "categories": categories,
        "category_sizes": sizes,
        "category_nodes": nodes,
        "category_starts": starts,
        "category_node_starts": starts_of(n_nodes),
    }


def _names_of_categories(cats: Any, n_features: int) -> tuple[Categories, ...]:
    """What the categories of a DataFrame were, by feature: the place in the list is the code. Since 3.1.

    source  XGBoost v3.2.0, src/data/cat_container.cc (Save): numbers as they are; texts as UTF-8 one behind another,
            with where each begins
    """
    if cats is None:
        return ()
    encodings = _mapping(cats, "cats").get("enc", [])
    if not isinstance(encodings, list) or len(encodings) > n_features:
        raise Damaged("the categories of its features are no list of one for each feature")
    found: list[Categories] = []
    n_names = 0
    for feature, encoding in enumerate(encodings):
        values = _get(_mapping(encoding, "a feature's categories"), "values", "a feature's categories")
        if "offsets" not in encoding:
            named = values.values() if isinstance(values, ubj.Typed) else values
            names = tuple(np.asarray(_listed(named, "categories")).tolist())
        else:
            raw = _numbers(values, np.int64, "categories").astype(np.uint8).tobytes()
            names = _texts_between(raw, _numbers(encoding["offsets"], np.int64, "offsets of categories"))
        if len(set(names)) != len(names):
            raise Damaged(f"feature {feature} has the same category twice")
        n_names += len(names)
        if n_names > MAX_CATEGORY_NAMES:
            raise Unsupported(f"its features have more than {MAX_CATEGORY_NAMES} categories")
        if names:
            found.append((feature, names))
    return tuple(found)


def _listed(values: Any, where: str) -> Any:
    if isinstance(values, list) and not all(type(value) in (int, float) for value in values):
        raise Damaged(f"{where} holds something that is no number")
    if not isinstance(values, (list, np.ndarray)):
        raise Damaged(f"{where} is no list")
    return values


def _texts_between(raw: bytes, offsets: Array) -> tuple[str, ...]:
    if not len(offsets):
        return ()
    if offsets[0] != 0 or offsets[-1] != len(raw) or (np.diff(offsets) < 0).any():
        raise Damaged("the offsets of categories do not divide their text")
    if not raw.isascii():
        # XGBoost 3.1 and 3.2 count characters where they mean bytes, so from the first such category on all are cut in
        # the wrong places, and the last is short.
        return ()
    return tuple(raw[begin:end].decode() for begin, end in pairwise(offsets.tolist()))


def iterations(n_trees: int, n_parallel: int, n_groups: int) -> Array:
    """Where each boosting round begins; files from before release 2.0 do not say, their trees come round by round."""
    per_round = n_parallel * n_groups
    if per_round < 1 or n_trees % per_round:
        raise Damaged(f"{n_trees} trees are no whole number of rounds of {n_parallel} x {n_groups}")
    return np.arange(0, n_trees + 1, per_round, dtype=np.int64)


def starts_of(lengths: list[int] | Array) -> Array:
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.add.accumulate(np.asarray(lengths, np.int64), out=starts[1:])
    return starts


def forest_size(config: Any) -> int | None:
    """num_parallel_tree in a booster's configuration, the only place that has it before release 1.6."""
    at = config
    for name in ("learner", "gradient_booster"):
        at = at.get(name) if isinstance(at, dict) else None
    if isinstance(at, dict) and isinstance(at.get("gbtree"), dict):  # dart
        at = at["gbtree"]
    params = at.get("gbtree_train_param") if isinstance(at, dict) else None
    stated = params.get("num_parallel_tree") if isinstance(params, dict) else None
    return int(stated) if isinstance(stated, str) and WHOLE.fullmatch(stated) else None


def base_score(text: str) -> Array:
    """`5E-1`, or from release 3.1 `[5E-1,2.5E-1]`, as float32."""
    text = text.strip()
    items = text[1:-1].split(",") if text[:1] == "[" and text[-1:] == "]" else [text]
    for item in items:
        if not NUMBER.fullmatch(item.strip()):
            raise Damaged(f"base_score {item.strip()[:40]!r} is no finite number")
    with np.errstate(over="ignore"):
        return np.array([float(item) for item in items]).astype(np.float32)


def whole(params: dict[str, Any], name: str) -> int:
    value = _text(_get(params, name, "parameters"), name)
    if not WHOLE.fullmatch(value):
        raise Damaged(f"{name} is {value[:40]!r}, which is no whole number")
    return int(value)


def release_of(version: Any) -> tuple[int, ...] | None:
    """The three numbers of `version`, None when it is not there; Unsupported when they are newer than NEWEST."""
    if version is None:
        return None
    if isinstance(version, ubj.Typed):
        version = version.values().tolist()
    if (
        not isinstance(version, list)
        or len(version) != 3
        or not all(type(part) is int and 0 <= part < 1000 for part in version)
    ):
        raise Damaged("version is not three whole numbers")
    if tuple(version[:2]) > NEWEST:
        stated = ".".join(map(str, version))
        raise Unsupported(
            f"it was written by XGBoost {stated}; this endpoint answers with XGBoost {'.'.join(map(str, NEWEST))}"
        )
    return tuple(version)


def _get(mapping: dict[str, Any], name: str, where: str) -> Any:
    try:
        return mapping[name]
    except KeyError:
        raise Damaged(f"{where} has no {name}") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Damaged(f"{where} is no object")
    return value


def _text(value: Any, where: str) -> str:
    if type(value) is not str:
        raise Damaged(f"{where[:80]} is no string")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, ubj.Typed) and not value.raw:
        return ()
    if not isinstance(value, list) or not all(type(item) is str for item in value):
        raise Damaged(f"{where} is no list of strings")
    return tuple(value)


def _numbers(value: Any, dtype: Any, where: str) -> Array:
    """A list or typed array of numbers (or booleans) as `dtype`; whole numbers must be whole and fit."""
    if isinstance(value, ubj.Typed):
        return _fitted(value.values(), dtype, where)
    if not isinstance(value, list):
        raise Damaged(f"{where} is no list")
    if not value:
        return np.zeros(0, dtype)
    if not set(map(type, value)) <= {int, float, bool}:
        raise Damaged(f"{where} holds something that is no number")
    try:
        return _fitted(np.array(value), dtype, where)
    except OverflowError as error:
        raise Damaged(f"{where} holds a number out of range") from error


def _fitted(stored: Array, dtype: Any, where: str) -> Array:
    """The same numbers as `dtype`; a float too large for float32 becomes infinite, which the checks then see."""
    if stored.dtype.kind not in "ifbu":
        raise Damaged(f"{where} holds a number out of range")
    if np.dtype(dtype).kind in "iu":
        if stored.dtype.kind == "f":
            raise Damaged(f"{where} holds fractions where whole numbers belong")
        if not np.can_cast(stored.dtype, dtype) and len(stored):
            bounds = np.iinfo(dtype)
            if stored.min() < bounds.min or stored.max() > bounds.max:
                raise Damaged(f"{where} holds a number out of range")
    if stored.dtype.kind != "f":
        return stored.astype(dtype)
    with np.errstate(over="ignore"):
        return stored.astype(dtype)
