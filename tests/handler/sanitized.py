"""Drives all that is compiled, through Python, for AddressSanitizer and UndefinedBehaviorSanitizer to watch: the modules
(row.c, sheet.c, kept.c, files.c, ubjson.c), which sanitized.c cannot reach, and everything as its callers call it.

    ./build.sh sanitize [SECONDS [SEED]]        sets it all up: the library compiled for it, in a copy of handler/

Rule: nothing here knows what is right beyond what is cheap to say. What is watched is that C stays in what it is given.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from container.capture.lines import line
from handler import compiled, files
from handler.errors import ArtifactBroken, ArtifactRefused, RequestError
from handler.forest import groups, packed, walker
from handler.forest.proof import sample
from handler.importer import import_booster, ubj
from handler.importer.broken import Damaged
from handler.loading import kept_file
from handler.messages import Answer, Exchange, Request
from handler.payload import OURS, Predictions, around_scores, delimited, encode, jsonbody, libsvm
from handler.payload.decode import CONTENT_TYPES, FORMS, decode
from handler.predictor import Facts

BOOSTERS = Path(__file__).resolve().parents[1] / "fixtures" / "boosters.tar.gz"
MAX_BOOSTER_BYTES = 20_000
N_FEATURES = 3
FACTS = Facts("reg:squarederror", "gbtree", N_FEATURES, 1, 1000)
S = 10**9
MOST_ROWS = 5000
SEEDS = (
    ("text/csv", b"1,2.5,-3e4\n.5,nan,\n" * 9),
    ("text/libsvm", b"0 0:1 1:2.5 2:-3\n1 qid:3 2:1e-4 # x\n" * 9),
    ("application/json", b'{"instances": [[1, 2.5, null], [3, "x\\"", -1e3]]}'),
    ("application/json", b'{"instances": [%b]}' % b", ".join([b"[1, 2.5, null]"] * 20)),
    ("application/json", b'[{"a": 1, "b": "word", "c": null}, {"a": 2, "b": "\\\\", "c": 3}]'),
    ("application/jsonlines", b'{"data": {"features": {"keys": [1, 2], "values": [7, 5], "shape": [3]}}}\n' * 9),
    ("application/jsonlines", b"[1, 2, 3]\n[4, 5, null]\n" * 9),
)
TYPES = (
    *["text/csv", "application/json"] * 5,
    "TEXT/CSV ; a=b",
    "application/x-npy",
    "",
    "text/csv\t",
    "caf\u00e9",
    "x" * 1025,
)

VALUES = (
    *(b"Z", b"i\x05", b"l\0\0\0\1", b"d\x7f\xc0\0\0", b"D" + bytes(8), b"[]", b"{}"),
    *(ubj.text("a word"), ubj.array_head(0)),
    *(ubj.array_head(9) + b"U\1" * 9, ubj.typed_head("I", 3) + bytes(6), ubj.mapping({"a": b"T"})),
)

draw = random.Random()
assert compiled.row is not None, "nothing is compiled, or not for this Python"
assert compiled.sheet is not None
PACKED = packed.pack(sample("reg:squarederror", n_levels=4))
assert PACKED is not None
SHAPE = packed.shape_of(PACKED)
declined: list[Any] = []
paper = compiled.sheet.Sheet(lambda *parts: declined.append(parts))
page = bytearray(1)
paper.turn(page, 0, 0, 0)


def damaged(data: bytes) -> bytes:
    """Cut, flipped, doubled: up to four times."""
    for _ in range(draw.randrange(5)):
        at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        match draw.randrange(5):
            case 0:
                data = data[:at] + draw.randbytes(draw.randrange(4)) + data[min(at + 1, end) :]
            case 1:
                data = data[:at] + bytes([draw.choice(b'0123456789.,-+eE\n\r\t "[]{}:\\naN')]) + data[at + 1 :]
            case 2:
                data = data[:end] + data[at:end] + data[end:]
            case 3:
                data = data[:at] + data[end:]
            case _:
                data = data[:end]
    return data


def read_body() -> bool:
    piece_bytes = draw.choice((7, 64, 1024))
    for module in (delimited, jsonbody, libsvm):
        module.PIECE_BYTES = piece_bytes  # type: ignore[attr-defined]
    kind, body = draw.choice(SEEDS)
    try:
        rows = decode(damaged(body), draw.choice((kind, kind, draw.choice(CONTENT_TYPES[:5]))), N_FEATURES)
    except RequestError:
        return False
    assert rows.values.size
    return True


def score_brief() -> bool:
    assert compiled.row is not None
    rows = [[float(f"{draw.uniform(-9, 9):.{draw.randrange(12)}f}") for _ in range(N_FEATURES)]]
    rows *= draw.choice((1, 1, 2, 40, 600))
    items = [{"features": row} for row in rows] if draw.randrange(2) else rows
    match kind := draw.choice(tuple(FORMS)):
        case "text/csv":
            text = "\r\n".join(",".join(map(str, row)) for row in rows)
        case "application/json":
            text = json.dumps(draw.choice((items, {"instances": items}, items[0])))
        case _:
            text = "\n".join(map(json.dumps, items))
    body, answered = damaged(text.encode()), draw.choice(tuple(FORMS))
    around = around_scores(OURS)[answered]
    found = compiled.row.score_brief(PACKED, N_FEATURES, SHAPE.n_trees, FORMS[kind], body, *around)
    compiled.row.float_text(draw.getrandbits(32))
    scores = np.array(
        [draw.choice((draw.uniform(-9, 9), 0.5, math.nan)) for _ in range(draw.randrange(1, 9))], np.float32
    )
    compiled.row.write_scores(scores.__array_interface__["data"][0], len(scores), *around)
    if found is None:
        return False
    values = np.ascontiguousarray(decode(body, kind, N_FEATURES).values)
    scores = walker.predict(PACKED, values, SHAPE.n_trees, 1, 1, is_margin=False)
    assert found == encode(Predictions(scores), answered), body
    return True


def walk() -> bool:
    """Whatever is sound, from one row to more than are scored at once."""
    forest = bytearray(PACKED)
    for _ in range(draw.choice((0, 0, 1, 2))):
        at = 4 * draw.randrange(len(forest) // 4)
        forest[at : at + 4] = draw.choice((draw.randrange(64), draw.getrandbits(32))).to_bytes(4, "little")
    if not packed.is_sound(whole := bytes(forest)):
        return False
    shape = packed.shape_of(whole)
    if shape.n_features > 1000 or shape.n_groups > 1000:
        return False
    packed.cost_of(whole)
    packed.document_of(whole)
    rows = np.frombuffer(
        draw.randbytes(4 * shape.n_features * (n := draw.choice((1, 9, 40) * 9 + (MOST_ROWS,)))), np.float32
    )
    walker.predict(
        whole, rows.reshape(n, -1), shape.n_trees, shape.n_groups, shape.n_outputs, is_margin=draw.random() < 0.5
    )
    if shape.n_groups == 1:
        middle = draw.randrange(n + 1)
        walker.predict_groups([whole, whole], [0, middle, middle, n], rows.reshape(-1, n), np.empty(n, np.float32))
    return True


def order_rows() -> bool:
    n_groups = draw.randrange(1, 300)
    codes = np.array([draw.randrange(n_groups) for _ in range(draw.randrange(500))], np.int64)
    order, ends = groups.in_groups(codes, n_groups)
    return ends[-1] == len(order)


def read_kept() -> bool:
    """Files that were changed at random, some with numbers for sizes that no file has."""
    names = [f"{number}" for number in range(draw.choice((0, 1, 3, 70)))]
    for name in names:
        documents = [
            draw.choice((PACKED, damaged(PACKED), draw.randbytes(draw.choice((0, 1, 31, 5000)))))
            for _ in range(draw.randrange(18))
        ]
        data = damaged(b"".join(kept_file.pieces_of(["m", name], "1", documents, [FACTS] * len(documents))))
        if draw.random() < 0.3:
            at, n_bytes = draw.randrange(24, 64, 8), draw.choice((0, 1, 17, len(data), 2**40, 2**63, 2**64 - 1))
            data = data[:at] + n_bytes.to_bytes(8, "little") + data[at + 8 :]
        Path(SCRATCH.name, name).write_bytes(data)
    directory = os.open(SCRATCH.name, os.O_RDONLY)
    found = kept_file.read_ordinary(directory, names, 1.0)
    os.close(directory)
    for name, one in zip(names, found, strict=True):
        if one is not None:
            head, documents, _, walkable = one
            assert kept_file.kept_of(head, documents, ["m", name], 0.0) is not None
            assert [bool(walkable >> at & 1) for at in range(18)] == [
                at < len(documents) and walker.is_sound(documents[at]) for at in range(18)
            ]
    return any(found)


def read_file() -> bool:
    """Somewhere in a file, more or fewer bytes than there are."""
    text, path = draw.randbytes(draw.choice((0, 1, 5000, 200_000))), Path(SCRATCH.name, "file")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    files.write(descriptor, text)
    at, n_bytes = draw.randrange(len(text) + 1), draw.randrange(300_000)
    os.lseek(descriptor, at, os.SEEK_SET)
    found = files.read(descriptor, n_bytes)
    os.close(descriptor)
    assert found == (text[at : at + n_bytes] if at + n_bytes <= len(text) else None)
    return found is not None


def import_one() -> bool:
    data = draw.choice(STOCK)
    try:
        learner = import_booster(damaged(data), "fuzz").learner
    except (ArtifactBroken, ArtifactRefused):
        return False
    forest = packed.pack(learner)
    assert forest is None or packed.is_sound(forest)
    return True


def read_ubjson() -> bool:
    values = draw.choices(VALUES, k=draw.randrange(1, 12))
    data = draw.choice((b"[" + b"".join(values) + b"]", ubj.array_head(len(values)) + b"".join(values)))
    if draw.randrange(2):
        data = ubj.mapping(dict(zip(("a", "trees", "\u00e9"), (data, *values), strict=False)))
    try:
        ubj.read(damaged(data))
    except Damaged:
        return False
    return True


def write_call() -> bool:
    """A call of anything but what it should be, now and then, on a page that is full after a few; what was written is as
    Python writes it."""
    global page
    marks = sorted(draw.randrange(10**13) for _ in range(5))
    headers: dict[str, str] = {"content-type": draw.choice(TYPES)} if draw.random() < 0.9 else {}
    if draw.random() < 0.3:
        headers["x-amzn-sagemaker-inference-id"] = _text()
    request = Request(headers, damaged(draw.choice(SEEDS)[1]) * draw.choice((1, 1, 60)), _text())
    answer = Answer(draw.choice((200, 424)), draw.choice(TYPES), damaged(b"0.5,0.25\n"))
    call = Exchange(
        request, answer, _text(), _text(), draw.choice((True, False, None)), draw.getrandbits(40), tuple(marks)
    )  # type: ignore[arg-type]
    parts: Any = call
    if draw.random() < 0.2:
        parts = list(call)
        parts[draw.randrange(len(parts))] = draw.choice((None, b"x", (1, 2), -1, 2**70, [1], "\ud800", tuple(parts)))
        parts = tuple(parts)[: draw.choice((3, 7, 7, 7))]
    declined.clear()
    paper.take(*parts)
    is_taken = not declined
    if declined and draw.random() < 0.5:
        paper.append(damaged(b"a line that Python wrote\n").replace(b"\n", b"") + b"\n", marks[0])
    if draw.random() < 0.1:
        before, page = page, bytearray(draw.choice((1, 2000, 4000, 10_000)))
        n_bytes, n_calls, _ = paper.turn(page, 0, 0, 2**62)
        text = bytes(before[:n_bytes])
        assert text.count(b"\n") == n_calls
        if is_taken and parts is call:
            assert text.endswith(line(marks[0] // S, call))
    return is_taken


def _text() -> str:
    return "".join(draw.choice('abc/"\\\n\x00\u00e9\U0001f600') for _ in range(draw.choice((0, 3, 20, 300))))


def _stock() -> list[bytes]:
    with tarfile.open(BOOSTERS) as tar:
        members = [one for one in tar if one.size <= MAX_BOOSTER_BYTES and one.name.endswith((".ubj", ".json", ".bin"))]
        return [tar.extractfile(one).read() for one in members if one.name != "manifest.json"]  # type: ignore[union-attr]


STOCK = _stock()
SCRATCH = tempfile.TemporaryDirectory()
PATIENCE_S = 60.0
WORK: tuple[Callable[[], bool], ...] = (
    *(read_body, score_brief, walk, order_rows, read_kept, read_file, import_one, read_ubjson, write_call),
)


def main(seconds: float = 600.0, seed: int | None = None) -> int:
    seed = time.time_ns() if seed is None else seed
    draw.seed(seed)
    print(f"seed      {seed}", flush=True)
    assert compiled.LIBRARY.parent.parent != Path(__file__).resolve().parents[2], "this is not the copy compiled for it"
    done: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    ends = time.monotonic() + seconds
    # On a busy machine a second has few rounds, and of some work one in a hundred is taken.
    while time.monotonic() < ends or (not _is_all_taken(taken) and time.monotonic() < ends + PATIENCE_S):
        for one in WORK:
            for _ in range(10):
                done[one.__name__] += 1
                taken[one.__name__] += one()
    for name, n in done.items():
        print(f"{name:<12} {n}, {taken[name]} of them taken")
    return 0 if _is_all_taken(taken) else 1


def _is_all_taken(taken: Counter[str]) -> bool:
    return all(taken[one.__name__] for one in WORK)


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3])))
