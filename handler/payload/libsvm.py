"""Rows as text/libsvm: `[label] [qid:n] index:value index:value ...`, one line each; what a line leaves out is missing.

An index is the model's own number of a feature, counted from zero, as it is written: so xgboost.DMatrix reads a file of
such lines, so SageMaker trained from one, and so all images of AWS's up to 3.0-5 read a request. (Later code of theirs
shifts a body that has no index 0 by one. A row's meaning then depends on its neighbours, and a model trained from a file
that counts from one, whose feature 0 is unused, reads its requests one column off.) `text/libsvm; index_base=1` says that
the first feature is 1. A label is skipped, and so is a query's number.
source   aws/sagemaker-xgboost-container, serve_utils.py, _get_sparse_matrix_from_libsvm, at v3.0-5 and after

Rule: lines are converted many at once; a token is looked at alone only to say which one is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload.numbers import MAX_CELL_BYTES, has_long_cell, read_number, shorten
from handler.payload.rows import Floats, Rows, sparse_rows

# A line costs 2 us of Python before its first cell.
MAX_LINES = 1_000_000

# Text turned to numbers in one go: its tokens are Python objects for a while, many times their text.
PIECE_BYTES = 128 * 1024

_ORDINARY = b"0123456789+-.eE: naNA"
_INDEX = re.compile(r"\d{1,18}", re.ASCII)
_COMMENT = re.compile(rb"#[^\n]*+")
_QUERY = b"qid:"


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """Cells that are there: `rows` count from zero within the body, `indices` as they are written."""

    rows: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: Floats


def read_libsvm(body: bytes, n_features: int, index_base: int = 0) -> Rows:
    """The rows of a libsvm body.

    n_features   the model's
    index_base   what the first feature is called, 0 or 1
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
        if _QUERY in line:
            line = _without_query(line, where)  # noqa: PLW2901
        n_cells = line.count(b":")
        if n_cells > n_features:
            raise FeatureMismatch(f"the model has {n_features} features, {where} names {n_cells}")
        tokens = line.split()
        if not tokens:
            raise PayloadInvalid(where, "blank, between rows")
        if b":" not in tokens[0]:
            _check_label(tokens.pop(0), where)
        if len(tokens) != n_cells or line.translate(None, _ORDINARY) or has_long_cell(line, b" "):
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


def _without_query(line: bytes, where: str) -> bytes:
    """The line without `qid:n`, the group a row was ranked in when the model was trained; a score does not depend on it."""
    before, _, behind = line.partition(_QUERY)
    number, _, cells = behind.partition(b" ")
    if b":" in before or len(number) > MAX_CELL_BYTES or not number.isdigit() or _QUERY in cells:
        raise PayloadInvalid(where, "qid: is read as a whole number before the first index:value, and once")
    return before + b" " + cells if before.strip() else b"0 " + cells


def _check_label(label: bytes, where: str) -> None:
    if len(label) <= MAX_CELL_BYTES:
        try:
            float(label)
        except ValueError:
            pass
        else:
            return
    hint = "; is this text/csv?" if b"," in label else ""
    shown = shorten(label[:MAX_CELL_BYTES].decode(errors="replace"))
    raise PayloadInvalid(where, f"{shown} is neither a label nor index:value{hint}")


def _refuse(tokens: list[bytes], where: str) -> None:
    """Raise for the first token that is not index:value, if one is not."""
    for token in tokens:
        shown = shorten(token[:MAX_CELL_BYTES].decode(errors="replace"))
        index, colon, value = token.partition(b":")
        is_index = len(token) <= MAX_CELL_BYTES and _INDEX.fullmatch(index.decode(errors="replace"))
        if not colon or not is_index or value.lower().endswith(b"null"):  # which is CSV's and JSON's word, not libsvm's
            raise PayloadInvalid(where, f"{shown} is not index:value")
        read_number(value.decode(errors="replace"), where, shown=shown, what="index:value")


def _fill(values: Floats, entries: _Entries, first_line: int, index_base: int) -> None:
    n_features = values.shape[1]
    columns = entries.indices - index_base
    outside = (columns < 0) | (columns >= n_features)
    if outside.any():
        at = int(outside.argmax())
        _refuse_index(int(entries.indices[at]), first_line + int(entries.rows[at]), n_features, index_base)
    cells = entries.rows * n_features + columns
    in_order = np.sort(cells)
    twice = np.flatnonzero(in_order[1:] == in_order[:-1])
    if len(twice):
        row, column = divmod(int(in_order[twice[0]]), n_features)
        raise PayloadInvalid(f"line {first_line + row}", f"index {column + index_base} appears twice")
    values.reshape(-1)[cells] = entries.values


def _refuse_index(index: int, line: int, n_features: int, index_base: int) -> NoReturn:
    last = n_features - 1 + index_base
    hint = (
        "; where the first feature is 1, say text/libsvm; index_base=1" if index == last + 1 and not index_base else ""
    )
    raise FeatureMismatch(
        f"the model has {n_features} features, {index_base} to {last}; line {line} has index {index}{hint}"
    )
