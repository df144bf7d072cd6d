"""Rows as text/libsvm: `[label] index:value index:value ...`, one line each; what a line leaves out is missing.

Indices count from zero or one, and a body does not say which. AWS's image takes the smallest index of the whole body:
one or more means they count from one. So does this, though it makes a row's meaning depend on its neighbours: a body
of zero-based rows that all lack feature 0 is read one column off. `text/libsvm; index_base=0` (or 1) says it outright.
source   aws/sagemaker-xgboost-container, serve_utils.py, _get_sparse_matrix_from_libsvm

Rule: lines are converted many at once; a token is looked at alone only to say which one is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload.numbers import TOO_LARGE, fits_float32, shorten
from handler.payload.rows import Floats, Rows, sparse_rows

# A line costs 2 us of Python before its first cell.
MAX_LINES = 1_000_000

# Text turned to numbers in one go: its tokens are Python objects for a while, many times their text.
PIECE_BYTES = 128 * 1024

_ORDINARY = b"0123456789+-.eE: naNA"
_TOKEN = re.compile(r"(\d{1,18}):([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?nan)", re.ASCII | re.IGNORECASE)
_INFINITE = re.compile(r"\d+:[+-]?inf(?:inity)?", re.ASCII | re.IGNORECASE)
_COMMENT = re.compile(rb"#[^\n]*")


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """Cells that are there: `rows` count from zero within the body, `indices` as they are written."""

    rows: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: Floats


def read_libsvm(body: bytes, n_features: int, index_base: int | None = None) -> Rows:
    """The rows of a libsvm body.

    n_features   the model's
    index_base   what the first feature is called, 0 or 1; None to tell by the smallest index, as AWS's image does
    raises       PayloadInvalid naming the line; FeatureMismatch for an index the model does not have
    """
    text = body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\t", b" ")
    if b"#" in text:
        text = _COMMENT.sub(b"", text)
    first_line = text[: len(text) - len(text.lstrip(b" \n"))].count(b"\n") + 1
    text = text.strip(b" \n")
    if not text:
        raise PayloadInvalid("", "the body holds no rows")
    n_lines = text.count(b"\n") + 1
    if n_lines > MAX_LINES:
        raise PayloadInvalid("", f"{n_lines} lines, more than {MAX_LINES}; send so many rows as CSV or npy")
    values = sparse_rows(n_lines, n_features)
    _fill(values, _read(text.split(b"\n"), first_line, n_features), first_line, index_base)
    return Rows(values)


def _read(lines: list[bytes], first_line: int, n_features: int) -> _Entries:
    parts = []
    start, n_bytes = 0, 0
    for at, line in enumerate(lines, 1):
        n_bytes += len(line)
        if n_bytes >= PIECE_BYTES or at == len(lines):
            parts.append(_read_piece(lines[start:at], start, first_line, n_features))
            start, n_bytes = at, 0
    return _Entries(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _read_piece(lines: list[bytes], first_row: int, first_line: int, n_features: int) -> _Entries:
    cells: list[bytes] = []
    counts = []
    for row, line in enumerate(lines, first_row):
        where = f"line {first_line + row}"
        n_cells = line.count(b":")
        if n_cells > n_features:
            raise FeatureMismatch(f"the model has {n_features} features, {where} names {n_cells}")
        tokens = line.split()
        if not tokens:
            raise PayloadInvalid(where, "blank, between rows")
        if b":" not in tokens[0]:
            _check_label(tokens.pop(0), where)
        if len(tokens) != n_cells or line.translate(None, _ORDINARY):
            _refuse(tokens, where)
        cells += b":".join(tokens).split(b":") if tokens else []
        counts.append(n_cells)
    rows = np.repeat(np.arange(first_row, first_row + len(lines)), counts)
    converted = _convert(cells)
    if converted is None:
        for row, line in enumerate(lines, first_row):
            _refuse([token for token in line.split() if b":" in token], f"line {first_line + row}")
        raise PayloadInvalid(f"lines {first_line + first_row} and on", "not index:value")
    return _Entries(rows, *converted)


def _convert(cells: list[bytes]) -> tuple[NDArray[np.int64], Floats] | None:
    """Indices and values from index, value, index, value ...; None when one is not what it should be."""
    try:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is found by that
            values = np.array(cells[1::2], dtype=np.float32)
        indices = np.array(cells[0::2], dtype=np.int64)
    except (ValueError, OverflowError):
        return None
    if np.isinf(values).any() or (len(indices) and indices.min() < 0):
        return None
    return indices, values


def _check_label(label: bytes, where: str) -> None:
    try:
        float(label)
    except ValueError as error:
        hint = "; is this text/csv?" if b"," in label else ""
        shown = shorten(label.decode(errors="replace"))
        raise PayloadInvalid(where, f"{shown} is neither a label nor index:value{hint}") from error


def _refuse(tokens: list[bytes], where: str) -> None:
    """Raise for the first token that is not index:value, if one is not."""
    for token in tokens:
        text = token.decode(errors="replace")
        found = _TOKEN.fullmatch(text)
        if _INFINITE.fullmatch(text) or (found and not fits_float32(float(found[2]))):
            raise PayloadInvalid(where, f"{shorten(text)} is {TOO_LARGE}")
        if not found:
            raise PayloadInvalid(where, f"{shorten(text)} is not index:value")


def _fill(values: Floats, entries: _Entries, first_line: int, index_base: int | None) -> None:
    n_features = values.shape[1]
    if not len(entries.indices):
        return
    if index_base is None:
        index_base = 1 if entries.indices.min() >= 1 else 0
    columns = entries.indices - index_base
    outside = (columns < 0) | (columns >= n_features)
    if outside.any():
        at = int(outside.argmax())
        line, index = first_line + entries.rows[at], entries.indices[at]
        raise FeatureMismatch(
            f"the model has {n_features} features, line {line} has index {index}, counted from {index_base}"
        )
    cells = entries.rows * n_features + columns
    in_order = np.sort(cells)
    twice = np.flatnonzero(in_order[1:] == in_order[:-1])
    if len(twice):
        row, column = divmod(int(in_order[twice[0]]), n_features)
        raise PayloadInvalid(f"line {first_line + row}", f"index {column + index_base} appears twice")
    values.reshape(-1)[cells] = entries.values
