"""The binary format of releases 0.72 to 3.0: memory images of C++ structures, one behind another, little-endian.

Rule: a count is compared with the bytes that are left before anything is made from it; nodes of all trees are read as
one array.

Source: XGBoost at v0.90, v1.2.1, v1.7.6 and v3.0.5: src/learner.cc (LearnerModelParamLegacy, LoadModel, Load),
src/gbm/gbtree_model.h and .cc, src/gbm/gbtree.cc (Dart), src/gbm/gblinear_model.h, include/xgboost/tree_model.h, and
dmlc-core's serializer (strings and vectors behind a 64-bit length).
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from handler.importer import document, json_text
from handler.importer.broken import Damaged, Unsupported
from handler.importer.formats import SERIALIZED_HEADER
from handler.importer.learner import Array, Learner, Trees, no_categories

MAX_TEXT_BYTES = 1 << 20  # of one attribute; the longest XGBoost writes itself is the objective's configuration
# base_score, num_feature, num_class, contain_extra_attrs, contain_eval_metrics, major, minor, num_target; 136 bytes
# in all. major and minor were reserved, and so zero, before 1.0; num_target before 1.6.
LEARNER_PARAM = struct.Struct("<fIiiiIII104x")
# num_trees, num_parallel_tree; 160 bytes. The second was num_roots, always 1, before 1.6.
GBTREE_PARAM = struct.Struct("<ii152x")
GBLINEAR_PARAM_BYTES = 136
# num_roots, num_nodes, num_deleted, max_depth, num_feature, size_leaf_vector; 148 bytes
TREE_PARAM = struct.Struct("<iiiiii124x")
# `parent` carries "is a left child" in its top bit, `split` "missing goes left".
NODE = np.dtype([("parent", "<u4"), ("left", "<i4"), ("right", "<i4"), ("split", "<u4"), ("value", "<f4")])
STAT = np.dtype([("loss_change", "<f4"), ("sum_hessian", "<f4"), ("base_weight", "<f4"), ("n_leaf_children", "<i4")])
LOW_31 = 0x7FFFFFFF


def read_serialized(data: bytes) -> Learner:
    """A booster and its configuration behind one header: what `Booster.__getstate__` holds from 1.0 to 1.5."""
    head = len(SERIALIZED_HEADER)
    if len(data) < head + 8:
        raise Damaged("serialized booster is truncated")
    (size,) = struct.unpack_from("<q", data, head)
    if not 0 < size <= len(data) - head - 8:
        raise Damaged(f"serialized booster claims {size} bytes, {len(data) - head - 8} are there")
    learner = read(data[head + 8 : head + 8 + size])
    config = json_text.read(data[head + 8 + size :])
    learner.forest_size = document.forest_size(config)
    stated = document.release_of(config.get("version")) if isinstance(config, dict) else None
    if stated is not None and stated[:2] == learner.release:
        learner.release = stated  # with its third number, which the binary part has no room for
    return learner


def read(data: bytes) -> Learner:
    """The booster in a file of the binary format, with or without its `binf` header.

    The base_score of a file from before 1.0 is left as it stands there, a margin; `corrections.py` takes it from here.
    raises   Damaged where the bytes do not follow the layout or go on behind it; Unsupported for base64 files, trees
             with several roots and leaves that hold vectors
    """
    if data[:4] == b"bs64":
        raise Unsupported("it is base64 text of a release before 0.7, which XGBoost dropped long ago")
    image = _Image(data, 4 if data[:4] == b"binf" else 0)
    base_score, n_features, num_class, has_attributes, has_metrics, major, minor, n_targets = image.unpack(
        LEARNER_PARAM
    )
    if (major, minor) > document.NEWEST:
        raise Unsupported(f"it says XGBoost {major}.{minor} wrote it, which writes no such format")
    found = Learner(
        release=(major, minor) if major else None,
        objective=image.text("objective"),
        objective_params={},
        booster=image.text("booster"),
        base_score=np.array([base_score], np.float32),
        n_features=n_features,
        num_class=num_class,
        n_targets=n_targets or 1,
    )
    found.is_margin_base = not major
    if found.booster == "gblinear":
        image.skip(GBLINEAR_PARAM_BYTES)
        found.linear = image.floats("weights")
    elif found.booster in ("gbtree", "dart"):
        found.trees = _trees(image, found)
        if found.booster == "dart":
            found.tree_weights = image.floats("weight_drop") if found.trees.n_trees else np.zeros(0, np.float32)
    else:
        raise Damaged(f"booster {found.booster[:40]!r} is not known to XGBoost")
    if has_attributes:
        found.attributes = {
            image.text("attribute"): image.text("attribute") for _ in range(image.count(16, "attributes"))
        }
    if not major:  # before 1.0 these two stand behind the attributes, later among them
        if found.objective == "count:poisson":
            image.text("max_delta_step")
        if has_metrics:
            for _ in range(image.count(8, "metrics")):
                image.text("metric")
    if image.at != len(data):
        raise Damaged(f"{len(data) - image.at} bytes follow the end of the booster")
    _read_objective(found)
    return found


def _trees(image: _Image, of: Learner) -> Trees:
    n_trees, n_parallel = image.unpack(GBTREE_PARAM)
    if not 0 <= n_trees <= image.left // TREE_PARAM.size:
        raise Damaged(f"it claims {n_trees} trees in {image.left} bytes")
    sizes: list[int] = []
    nodes: list[bytes] = []
    stats: list[bytes] = []
    for number in range(n_trees):
        n_roots, n_nodes, _, _, _, leaf_size = image.unpack(TREE_PARAM)
        if n_nodes < 1:
            raise Damaged(f"tree {number} claims {n_nodes} nodes")
        if n_roots > 1:
            raise Unsupported(f"tree {number} has {n_roots} roots, which no release since 1.0 can score")
        if leaf_size not in (0, 1):
            raise Unsupported(f"tree {number} has vectors of {leaf_size} values as leaves")
        sizes.append(n_nodes)
        nodes.append(image.take(n_nodes * NODE.itemsize, "nodes"))
        stats.append(image.take(n_nodes * STAT.itemsize, "node statistics"))
    node = np.frombuffer(b"".join(nodes), NODE)
    stat = np.frombuffer(b"".join(stats), STAT)
    group = np.frombuffer(image.take(4 * n_trees, "tree_info"), "<i4").astype(np.int64)
    n_parallel = max(1, n_parallel)
    return Trees(
        starts=document.starts_of(sizes),
        left=node["left"].astype(np.int32),
        right=node["right"].astype(np.int32),
        parent=(node["parent"] & LOW_31).astype(np.int32),
        split_index=(node["split"] & LOW_31).astype(np.int64),
        split_condition=node["value"].astype(np.float32),
        default_left=(node["split"] >> 31).astype(np.uint8),
        loss_change=stat["loss_change"].astype(np.float32),
        sum_hessian=stat["sum_hessian"].astype(np.float32),
        base_weight=stat["base_weight"].astype(np.float32),
        split_type=np.zeros(len(node), np.uint8),  # categorical splits were never written in this format
        group=group,
        n_parallel=n_parallel,
        iteration_starts=document.iterations(n_trees, n_parallel, of.n_groups),
        **no_categories(n_trees),
    )


def _read_objective(learner: Learner) -> None:
    """The objective's parameters, which from 1.0 on hide as a JSON text among the attributes."""
    learner.attributes.pop("metrics", None)
    learner.attributes.pop("count_poisson_max_delta_step", None)
    text = learner.attributes.pop("objective", None)
    if text is None:
        return
    stated = json_text.read(text.encode())
    if isinstance(stated, dict):
        learner.objective_params = {
            name: {key: value for key, value in group.items() if type(value) is str}
            for name, group in stated.items()
            if isinstance(group, dict)
        }


class _Image:
    """A cursor over the file; every step says what it wanted when the file ends before it."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def skip(self, n_bytes: int) -> None:
        self.take(n_bytes, "parameters")

    def take(self, n_bytes: int, what: str) -> bytes:
        if not 0 <= n_bytes <= self.left:
            raise Damaged(f"{what} at byte {self.at} claim {n_bytes} bytes, {self.left} are left")
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size, "parameters"))

    def count(self, item_bytes: int, what: str) -> int:
        n_items: int = struct.unpack("<Q", self.take(8, what))[0]
        if n_items > self.left // item_bytes:
            raise Damaged(f"{what} at byte {self.at} claim {n_items} items, {self.left} bytes are left")
        return n_items

    def text(self, what: str) -> str:
        n_bytes = self.count(1, what)
        if n_bytes > MAX_TEXT_BYTES:
            raise Damaged(f"{what} at byte {self.at} has {n_bytes} bytes")
        try:
            return self.take(n_bytes, what).decode()
        except UnicodeDecodeError as error:
            raise Damaged(f"{what} at byte {self.at} is not UTF-8") from error

    def floats(self, what: str) -> Array:
        return np.frombuffer(self.take(4 * self.count(4, what), what), "<f4").astype(np.float32)
