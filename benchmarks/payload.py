"""How long it takes to read a body and to write an answer, without a model between them.

    python benchmarks/payload.py [--columns 20] [--rows 10000] [--seconds 0.3]

Each figure is the best of five runs: what the code costs, not what a busy machine adds.
"""

from __future__ import annotations

import argparse
import io
import json
import timeit
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from handler.payload import Predictions, choose_media_type, decode, encode, fit_rows
from handler.payload.recordio import write_recordio
from handler.predictor import Facts

BEST_OF = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="Time bodies in and answers out.")
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--rows", type=int, default=10_000, help="rows of the large body")
    parser.add_argument("--seconds", type=float, default=0.3, help="about how long one run takes")
    arguments = parser.parse_args()
    for n_rows in (1, arguments.rows):
        print(f"\n{n_rows} rows of {arguments.columns} columns {'bytes':>21} {'us':>12} {'ns/cell':>9}")
        table = np.random.default_rng(0).normal(size=(n_rows, arguments.columns)).astype(np.float32)
        for name, n_bytes, n_cells, work in steps(table):
            us = measure(work, arguments.seconds)
            print(f"{name:42} {n_bytes:12} {us:12.2f} {1000 * us / n_cells:9.1f}")


def steps(table: np.ndarray) -> Iterator[tuple[str, int, int, Callable[[], object]]]:
    """Name, size of the body, number of its cells, and the work to time."""
    n_rows, n_columns = table.shape
    for name, content_type, body in bodies(table):
        yield f"read  {name}", len(body), table.size, partial(decode, body, content_type, n_columns)
    scores = Predictions(table[:, :1])
    for accept in ("text/csv", "application/json", "application/jsonlines", "application/x-npy"):
        n_bytes = len(encode(scores, accept))
        yield f"write {accept}", n_bytes, n_rows, partial(answer, scores, accept)
    line = csv(table)
    yield "read, fit and write text/csv", len(line), table.size, partial(round_trip, line, n_columns, scores)


def bodies(table: np.ndarray) -> Iterator[tuple[str, str, bytes]]:
    """The same rows in every format: name, content type, body."""
    text = csv(table)
    is_missing = np.random.default_rng(1).random(table.shape) < 0.1
    yield "text/csv", "text/csv", text
    yield "text/csv, a tenth empty", "text/csv", csv(np.where(is_missing, np.nan, table)).replace(b"nan", b"")
    yield "text/csv, quoted", "text/csv", b'"' + text.replace(b",", b'","').replace(b"\n", b'"\n"') + b'"'

    rows = [[float(cell) for cell in line.split(b",")] for line in text.split(b"\n")]
    named = [{f"f{at}": cell for at, cell in enumerate(row)} for row in rows]
    instances = {"instances": [{"features": row} for row in rows]}
    yield "application/json [[...]]", "application/json", json.dumps(rows).encode()
    yield 'application/json {"instances": ...}', "application/json", json.dumps(instances).encode()
    yield 'application/json [{"f0": ...}]', "application/json", json.dumps(named).encode()
    yield "application/jsonlines", "application/jsonlines", "\n".join(map(json.dumps, rows)).encode()

    lines = [" ".join(f"{at}:{cell}" for at, cell in enumerate(row)) for row in rows]
    yield "text/libsvm", "text/libsvm", "\n".join(lines).encode()

    file = io.BytesIO()
    np.save(file, table)
    yield "application/x-npy", "application/x-npy", file.getvalue()

    frames = bytearray(write_recordio({"values": table}))
    frames[8 :: len(frames) // len(table)] = b"\n" * len(table)  # the field `label` made `features`
    yield "application/x-recordio-protobuf", "application/x-recordio-protobuf", bytes(frames)


def csv(table: np.ndarray) -> bytes:
    return encode(Predictions(table.astype(np.float32)), "text/csv")


def answer(scores: Predictions, accept: str) -> bytes:
    return encode(scores, choose_media_type(accept))


def round_trip(body: bytes, n_columns: int, scores: Predictions) -> bytes:
    model = Facts("reg:squarederror", "gbtree", n_features=n_columns, n_outputs=1, resident_bytes=0)
    fit_rows(decode(body, "text/csv", n_columns), model)
    return answer(scores, "text/csv")


def measure(work: Callable[[], object], seconds: float) -> float:
    """Microseconds for one call."""
    once = timeit.timeit(work, number=1)
    number = max(1, int(seconds / max(once, 1e-7)))
    return min(timeit.repeat(work, number=number, repeat=BEST_OF)) / number * 1e6


if __name__ == "__main__":
    main()
