"""The document of release 3.2 for a checked Learner, as UBJSON.

Rule: the bytes that libxgboost reads are written here, field by field, in its own layout; nothing of a file is passed
through. What XGBoost's loader does with an unexpected field, order or type is therefore never found out.

Source: XGBoost v3.2.0, src/learner.cc, src/gbm/*.cc, src/tree/tree_model.cc and multi_target_tree_model.cc
(SaveModel, LoadModel).
"""

from __future__ import annotations

import numpy as np

from handler.importer import ubj
from handler.importer.document import NEWEST, NODE_FIELDS
from handler.importer.learner import DELETED_SPLIT, NO_NODE, Array, Learner, Trees


def ubj_of(learner: Learner) -> bytes:
    """The document of release 3.2 for a checked Learner."""
    params = {
        "base_score": "[" + ",".join(map(str, np.broadcast_to(learner.base_score, learner.n_groups))) + "]",
        # With 1, a booster without trees forgets its base_score when it is loaded (Intercept::NeedFit).
        "boost_from_average": "0",
        "num_class": str(learner.num_class),
        "num_feature": str(learner.n_features),
        "num_target": str(learner.n_targets),
    }
    objective = {"name": ubj.text(learner.objective)}
    objective |= {name: ubj.text_mapping(group) for name, group in learner.objective_params.items()}
    return ubj.mapping(
        {
            "learner": ubj.mapping(
                {
                    "attributes": ubj.text_mapping(learner.attributes),
                    "feature_names": _text_array(learner.feature_names),
                    "feature_types": _text_array(learner.feature_types),
                    "gradient_booster": _gradient_booster(learner),
                    "learner_model_param": ubj.text_mapping(params),
                    "objective": ubj.mapping(objective),
                }
            ),
            "version": ubj.array_head(3) + b"".join(map(ubj.integer, (*NEWEST, 0))),
        }
    )


def _gradient_booster(learner: Learner) -> bytes:
    if learner.linear is not None:
        weights = ubj.typed_head("d", len(learner.linear)) + learner.linear.astype(">f4").tobytes()
        model = ubj.mapping({"boosted_rounds": ubj.integer(learner.linear_rounds), "weights": weights})
        return ubj.mapping({"model": model, "name": ubj.text("gblinear")})
    assert learner.trees is not None
    gbtree = ubj.mapping({"model": _gbtree_model(learner.trees, learner.n_features), "name": ubj.text("gbtree")})
    if learner.tree_weights is None:
        return gbtree
    weights = ubj.array_head(len(learner.tree_weights)) + _scalars(b"d", learner.tree_weights, ">f4")
    return ubj.mapping({"gbtree": gbtree, "name": ubj.text("dart"), "weight_drop": weights})


def _gbtree_model(trees: Trees, n_features: int) -> bytes:
    return ubj.mapping(
        {
            "gbtree_model_param": ubj.text_mapping(
                {"num_parallel_tree": str(trees.n_parallel), "num_trees": str(trees.n_trees)}
            ),
            "iteration_indptr": ubj.array_head(len(trees.iteration_starts))
            + _scalars(b"l", trees.iteration_starts, ">i4"),
            "tree_info": ubj.array_head(trees.n_trees) + _scalars(b"l", trees.group, ">i4"),
            "trees": ubj.array_head(trees.n_trees) + b"".join(_tree_pieces(trees, n_features)),
        }
    )


def _tree_pieces(trees: Trees, n_features: int) -> list[bytes | memoryview]:
    """The bytes of all trees: heads of fields, and between them slices of columns that were turned big-endian whole."""
    deleted = (trees.split_index == DELETED_SPLIT) & (trees.default_left == 1)
    counted = np.concatenate(([0], np.cumsum(deleted)))
    n_deleted = np.diff(counted[trees.starts]).tolist()
    columns = [
        (
            memoryview(getattr(trees, column).astype(stored).tobytes()),
            ubj.key(name) + ubj.typed_head(letter, 0)[:-8],
            np.dtype(stored).itemsize,
        )
        for column, (name, _, letter, stored) in NODE_FIELDS.items()
        if column != "base_weight" or trees.leaf_vectors is None
    ]
    leaves = np.concatenate(([0], np.cumsum(trees.left == NO_NODE)))[trees.starts].tolist()
    starts, category_starts, node_starts = (
        trees.starts.tolist(),
        trees.category_starts.tolist(),
        trees.category_node_starts.tolist(),
    )
    tail = ubj.text_mapping({"num_feature": str(n_features), "size_leaf_vector": str(trees.leaf_size)})[1:]
    no_categories = _tree_categories(trees, slice(0, 0), slice(0, 0))
    keys = {name: ubj.key(name) for name in ("id", "tree_param", "num_nodes", "num_deleted")}
    pieces: list[bytes | memoryview] = []
    for number in range(trees.n_trees):
        begin, end = starts[number], starts[number + 1]
        size = (end - begin).to_bytes(8, "big")
        pieces += (b"{", keys["id"], ubj.integer(number))
        for column, head, width in columns:
            pieces += (head, size, column[begin * width : end * width])
        if trees.leaf_vectors is not None:
            pieces += _tree_vectors(trees, slice(begin, end), slice(leaves[number], leaves[number + 1]))
        first, last = node_starts[number], node_starts[number + 1]
        if first == last:
            pieces.append(no_categories)
        else:
            pieces.append(
                _tree_categories(trees, slice(category_starts[number], category_starts[number + 1]), slice(first, last))
            )
        pieces += (keys["tree_param"], b"{", keys["num_nodes"], ubj.text(str(end - begin)))
        pieces += (keys["num_deleted"], ubj.text(str(n_deleted[number])), tail, b"}")
    return pieces


def _tree_vectors(trees: Trees, nodes: slice, leaves: slice) -> tuple[bytes, ...]:
    """The two fields whose items are vectors, in trees of multi_output_tree."""
    assert trees.leaf_vectors is not None
    base = trees.base_weight[nodes.start * trees.leaf_size : nodes.stop * trees.leaf_size].astype(">f4").tobytes()
    leaf = trees.leaf_vectors[leaves].astype(">f4").tobytes()
    return (
        ubj.key("base_weights") + ubj.typed_head("d", len(base) // 4) + base,
        ubj.key("leaf_weights") + ubj.typed_head("d", len(leaf) // 4) + leaf,
    )


def _tree_categories(trees: Trees, categories: slice, nodes: slice) -> bytes:
    sizes = trees.category_sizes[nodes]
    return b"".join(
        ubj.key(name) + ubj.typed_head(letter, len(values)) + values.astype(stored).tobytes()
        for name, values, letter, stored in (
            ("categories", trees.categories[categories], "l", ">i4"),
            ("categories_nodes", trees.category_nodes[nodes], "l", ">i4"),
            ("categories_segments", np.cumsum(sizes) - sizes, "L", ">i8"),
            ("categories_sizes", sizes, "L", ">i8"),
        )
    )


def _scalars(marker: bytes, values: Array, stored: str) -> bytes:
    """Untyped numbers, each behind its marker: XGBoost insists on them for tree_info, iteration_indptr, weight_drop."""
    record = np.zeros(len(values), np.dtype([("marker", "S1"), ("value", stored)]))
    record["marker"], record["value"] = marker, values
    return record.tobytes()


def _text_array(values: tuple[str, ...]) -> bytes:
    return ubj.array_head(len(values)) + b"".join(map(ubj.text, values))
