"""Trees read, checked and packed by C against the same by Python: the same bits, or the same words of refusal."""

from __future__ import annotations

import copy
import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xgboost

from handler.compiled import letting_go
from handler.errors import ArtifactBroken, ArtifactRefused
from handler.forest import packed
from handler.forest.packed import pack
from handler.importer import booster, checks, import_booster, trees, ubj, writer
from handler.importer.broken import Damaged, Unsupported
from handler.importer.learner import Learner
from handler.importer.trees import TreeColumns

pytestmark = pytest.mark.skipif(letting_go is None, reason="there was no C compiler")

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
N_CHANGED = 6_000


@contextmanager
def by_python_alone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ubj, "ubjson", None)
        patch.setattr(trees, "read", lambda *_: None)
        patch.setattr(trees, "letting_go", None)
        patch.setattr(packed, "letting_go", None)
        yield


def outcome(document: bytes) -> object:
    """All there is to see of an import."""
    try:
        imported = import_booster(document, "x")
    except (ArtifactBroken, ArtifactRefused) as error:
        return type(error), str(error)
    return imported.document, imported.facts, pack(imported.learner)


def is_read_by_c(document: bytes) -> bool:
    found = ubj.read(document)
    learner = found.get("learner", found.get("Model", {}).get("learner"))
    gradient = learner["gradient_booster"]
    return isinstance(gradient.get("gbtree", gradient)["model"]["trees"], TreeColumns)


def same(document: bytes) -> bool:
    fast = outcome(document)
    with by_python_alone():
        return bool(outcome(document) == fast)


def fixtures(name: str) -> dict[str, bytes]:
    with tarfile.open(FIXTURES / name) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.name.endswith((".ubj", ".pkl"))}


@pytest.mark.parametrize("name", ["boosters.tar.gz", "predicting.tar.xz"])
def test_every_file_of_every_release_is_the_same_either_way(name: str) -> None:
    files = fixtures(name)
    assert len(files) > 200
    assert [path for path, document in files.items() if not same(document)] == []


def test_ordinary_trees_of_all_releases_that_write_ubj_are_read_by_c() -> None:
    files = {path: document for path, document in fixtures("boosters.tar.gz").items() if path.endswith(".ubj")}
    extraordinary = ("categorical", "vector", "gblinear", "no_trees")
    left = [
        path for path, one in files.items() if not any(word in path for word in extraordinary) and not is_read_by_c(one)
    ]
    assert left == []


# -- damage ----------------------------------------------------------------------------------------------------------------


def changed(document: bytes, draw: random.Random) -> bytes:
    """A file with a few bytes changed, cut out, put in or repeated, most of them where structure is."""
    data = bytearray(document)
    if draw.random() < 0.4:  # a number, most probably
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        return bytes(data)
    keys = [
        b"num_nodes",
        b"size_leaf_vector",
        b"num_deleted",
        b"tree_param",
        b"id",
        b"[$",
        b"categories",
        b"trees",
        b"split_indices",
    ]
    for _ in range(draw.randint(1, 3)):
        near = data.find(draw.choice(keys), draw.randrange(len(data)))
        at = draw.randrange(len(data)) if near < 0 or draw.random() < 0.3 else near + draw.randrange(24)
        at = min(at, len(data) - 1)
        kind = draw.randrange(6)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at] = draw.choice(b"[]{}#$LlSdUiITFZ01\xff\x00")
        elif kind == 2:
            del data[at : at + draw.randint(1, 30)]
        elif kind == 3:
            data[at:at] = draw.choice([b"i\x01", b"L", ubj.key("id") + b"i\x00", b"0", bytes(9)])
        elif kind == 4:
            data[at:at] = data[at : at + draw.randint(1, 200)]
        else:
            del data[at:]
        if not data:
            return b"{"
    return bytes(data)


def test_changed_files_are_refused_in_the_same_words_or_read_to_the_same_bits() -> None:
    draw = random.Random(4)
    stock = [document for path, document in fixtures("boosters.tar.gz").items() if path.endswith(".ubj")]
    wrong = []
    n_read = 0
    for _ in range(N_CHANGED):
        document = changed(draw.choice(stock), draw)
        fast = outcome(document)
        n_read += len(fast) == 3
        with by_python_alone():
            if outcome(document) != fast:
                wrong.append(document)
    assert wrong == []
    assert n_read > N_CHANGED // 20


# -- what XGBoost might write, and does not ----------------------------------------------------------------------------------


def parts() -> dict[str, bytes]:
    """The fields of a sound tree of one leaf."""
    number = {"d": b"\x3f\x80\0\0", "l": b"\0\0\0\0", "U": b"\0"}
    columns = {name: letter for name, _, letter, _ in booster.document.NODE_FIELDS.values()}
    none = {"left_children": b"\xff" * 4, "right_children": b"\xff" * 4, "parents": b"\x7f\xff\xff\xff"}
    fields = {name: ubj.typed_head(code, 1) + none.get(name, number[code]) for name, code in columns.items()}
    fields |= {name: ubj.typed_head("l", 0) for name in ("categories", "categories_nodes")}
    fields |= {name: ubj.typed_head("L", 0) for name in ("categories_segments", "categories_sizes")}
    parameters = {"num_deleted": "0", "num_feature": "1", "num_nodes": "1", "size_leaf_vector": "1"}
    return fields | {"id": b"i\0", "tree_param": ubj.text_mapping(parameters)}


def document_with(*trees_: bytes, depth: int = 0) -> bytes:
    model = {
        "gbtree_model_param": ubj.text_mapping({"num_parallel_tree": "1", "num_trees": str(len(trees_))}),
        "tree_info": ubj.array_head(len(trees_)) + b"i\0" * len(trees_),
        "trees": ubj.array_head(len(trees_)) + b"".join(trees_),
    }
    gradient = {"name": ubj.text("gbtree"), "model": ubj.mapping(model)}
    parameters = {"base_score": "5E-1", "num_class": "0", "num_feature": "1", "num_target": "1"}
    learner = {
        "learner_model_param": ubj.text_mapping(parameters),
        "objective": ubj.mapping({"name": ubj.text("reg:squarederror")}),
        "gradient_booster": ubj.mapping(gradient),
    }
    return ubj.mapping({"learner": ubj.mapping(learner), "version": ubj.array_head(3) + b"i\x03i\x02i\0"})


def parameters_of(**changed_to: str) -> bytes:
    usual = {"num_deleted": "0", "num_feature": "1", "num_nodes": "1", "size_leaf_vector": "1"}
    return ubj.text_mapping({**usual, **changed_to})


def without(name: str) -> dict[str, bytes]:
    return {key: value for key, value in parts().items() if key != name}


ODD: dict[str, Callable[[], bytes]] = {
    "as it is": lambda: ubj.mapping(parts()),
    "the other way round": lambda: ubj.mapping(dict(reversed(parts().items()))),
    "no categories": lambda: ubj.mapping({name: value for name, value in parts().items() if "categor" not in name}),
    "categories of another type": lambda: ubj.mapping({**parts(), "categories": ubj.typed_head("d", 0)}),
    "a category": lambda: ubj.mapping({**parts(), "categories": ubj.typed_head("l", 1) + bytes(4)}),
    "an id of 64 bits": lambda: ubj.mapping({**parts(), "id": b"L" + bytes(8)}),
    "an id of 16 bits": lambda: ubj.mapping({**parts(), "id": b"I" + bytes(2)}),
    "an id that is false": lambda: ubj.mapping({**parts(), "id": b"F"}),
    "an id that is no whole number": lambda: ubj.mapping({**parts(), "id": b"d" + bytes(4)}),
    "another id": lambda: ubj.mapping({**parts(), "id": b"i\x01"}),
    "a negative id": lambda: ubj.mapping({**parts(), "id": b"i\xff"}),
    "a field more": lambda: ubj.mapping({**parts(), "more": ubj.text("x")}),
    "a field more that is damaged": lambda: ubj.mapping({**parts(), "more": b"?"}),
    "a field twice": lambda: ubj.mapping(parts())[:-1] + ubj.key("id") + b"i\0}",
    "a leading zero": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(num_nodes="01")}),
    "a space": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(num_nodes="1 ")}),
    "another number of nodes": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(num_nodes="2")}),
    "deleted nodes that are not there": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(num_deleted="1")}),
    "leaves of two": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(size_leaf_vector="2")}),
    "leaves of none": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(size_leaf_vector="0")}),
    "a parameter more": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(more="1")}),
    "a parameter that is no text": lambda: ubj.mapping(
        {**parts(), "tree_param": parameters_of()[:-1] + ubj.key("more") + b"i\0}"}
    ),
    "a parameter beyond ASCII": lambda: ubj.mapping({**parts(), "tree_param": parameters_of(num_feature="\u0661")}),
    "no parameters": lambda: ubj.mapping({**parts(), "tree_param": b"{}"}),
    "two nodes in one field": lambda: ubj.mapping({**parts(), "parents": ubj.typed_head("l", 2) + bytes(8)}),
    "no nodes": lambda: ubj.mapping(
        {name: value[:-8] + bytes(8) if value.startswith(b"[$") else value for name, value in parts().items()}
    ),
    "doubles": lambda: ubj.mapping({**parts(), "sum_hessian": ubj.typed_head("D", 1) + bytes(8)}),
    "a list of numbers": lambda: ubj.mapping({**parts(), "parents": b"[i\x01]"}),
    "a split on a feature that is not there": lambda: ubj.mapping(
        {**parts(), "split_indices": ubj.typed_head("l", 1) + b"\0\0\0\x09"}
    ),
    "a leaf that is no number": lambda: ubj.mapping(
        {**parts(), "split_conditions": ubj.typed_head("d", 1) + b"\x7f\xc0\0\0"}
    ),
    **{f"no {name}": lambda name=name: ubj.mapping(without(name)) for name in parts()},  # type: ignore[misc]
}


@pytest.mark.parametrize("what", ODD)
def test_a_tree_with_something_odd_is_the_same_either_way(what: str) -> None:
    assert same(document_with(ODD[what]()))
    second = {**parts(), "id": b"i\x01"}
    assert same(document_with(ubj.mapping(second), ODD[what]()))  # and out of order
    assert same(document_with(ODD[what](), ubj.mapping(second)))


def test_a_plain_tree_is_read_by_c() -> None:
    assert is_read_by_c(document_with(ubj.mapping(parts())))
    assert is_read_by_c(document_with(ubj.mapping(dict(reversed(parts().items())))))


def test_more_trees_than_there_are_bytes_for_are_damage(trained: xgboost.Booster) -> None:
    document = bytes(trained.save_raw("ubj"))
    head = ubj.key("trees") + b"[#L"
    for claim in (6, 1 << 31, 1 << 62, -1):
        at = document.index(head) + len(head)
        assert same(document[:at] + claim.to_bytes(8, "big", signed=True) + document[at + 8 :])


def test_trees_below_another_key_are_nobodys(trained: xgboost.Booster) -> None:
    document = bytes(trained.save_raw("ubj"))
    assert same(b"{" + ubj.key("trees") + ubj.array_head(1) + ubj.mapping(parts()) + document[1:])


def test_what_is_deep_is_refused_alike() -> None:
    list_ = ubj.key("trees") + ubj.array_head(1) + ubj.mapping(parts())
    for depth in range(18, 27):
        nested = b"{" + ubj.key("a")
        assert same(nested * (depth - 1) + b"{" + list_ + b"}" * depth)


# -- numbers that are no trees ---------------------------------------------------------------------------------------------


def spoilt(learner: Learner, draw: np.random.RandomState) -> None:
    """A few numbers of its trees changed to what may be one there, and to what may not."""
    found = learner.trees
    assert found is not None
    n_nodes = len(found.left)
    for _ in range(draw.randint(1, 4)):
        node = draw.choice(found.starts[:-1]) if draw.rand() < 0.3 else draw.randint(n_nodes)
        kind = draw.randint(8)
        if kind < 3:
            column = (found.left, found.right, found.parent)[kind]
            near = min(int(column[node]) + draw.randint(-2, 3), 0x7FFFFFFF)
            column[node] = draw.choice([-1, 0x7FFFFFFF, 0, 1, near, draw.randint(n_nodes), -2, 1 << 30])
        elif kind == 3:
            found.split_index[node] = draw.choice([-1, 0, learner.n_features - 1, learner.n_features, 0x7FFFFFFF])
        elif kind == 4:
            found.split_condition[node] = draw.choice([np.nan, np.inf, -np.inf, 0])
        elif kind == 5:
            found.default_left[node] = draw.choice([0, 1, 2])
        elif kind == 6:
            found.split_type[node] = draw.choice([0, 1, 2])
        else:  # marked as deleted
            found.split_index[node], found.default_left[node] = 0x7FFFFFFF, 1


def judged(learner: Learner) -> object:
    """All there is to see of checks and of what is packed."""
    learner = copy.deepcopy(learner)
    try:
        checks.check(learner)
    except (Damaged, Unsupported) as error:
        return type(error), str(error)
    return writer.ubj_of(learner), pack(learner)


def test_trees_of_any_numbers_are_sound_and_packed_the_same_either_way() -> None:
    draw = np.random.RandomState(5)
    stock = [one for path, one in sorted(fixtures("boosters.tar.gz").items()) if path.endswith(".ubj")]
    ordinary = [learner for one in stock[::5] if (learner := booster.read(one)[1]).trees is not None]
    assert len(ordinary) > 20
    n_sound = n_by_c = 0
    for turn in range(2000):
        learner = copy.deepcopy(ordinary[turn % len(ordinary)])
        assert learner.trees is not None
        if turn >= len(ordinary):
            spoilt(learner, draw)
        n_by_c += trees.are_sound(copy.deepcopy(learner.trees), learner.n_features, checks.MAX_DEPTH)
        fast = judged(learner)
        n_sound += isinstance(fast[0], bytes)  # type: ignore[index]
        with by_python_alone():
            assert judged(learner) == fast
    assert 200 < n_by_c <= n_sound < 1800


def test_trees_deeper_than_the_bound_are_not_for_c() -> None:
    for depth, is_sound in ((3, True), (4, False)):
        learner = booster.read(
            next(one for path, one in fixtures("boosters.tar.gz").items() if path.endswith("squarederror.ubj"))
        )[1]
        n_nodes = 2 * depth + 1
        assert learner.trees is not None
        splits = np.arange(depth)
        left, parent = np.full(n_nodes, -1, np.int32), np.zeros(n_nodes, np.int32)
        left[[0, *range(2, 2 * depth - 1, 2)]] = 1 + 2 * splits
        parent[1 + 2 * splits] = parent[2 + 2 * splits] = 2 * splits
        chain = replace(
            learner.trees,
            starts=np.array([0, n_nodes], np.int64),
            left=left,
            right=np.where(left < 0, -1, left + 1).astype(np.int32),
            parent=parent,
            split_index=np.zeros(n_nodes, np.int64),
            split_condition=np.zeros(n_nodes, np.float32),
            default_left=np.zeros(n_nodes, np.uint8),
            split_type=np.zeros(n_nodes, np.uint8),
        )
        chain.parent[0] = -1
        assert trees.are_sound(chain, 1, 3) is is_sound
