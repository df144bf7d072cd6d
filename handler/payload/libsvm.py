"""Rows as text/libsvm: `[label] [qid:n] index:value index:value ...`, one line each; what a line leaves out is missing.

An index is the model's own number of a feature, counted from zero, as it is written: so xgboost.DMatrix reads a file of
such lines, so SageMaker trained from one, and so all images of AWS's up to 3.0-5 read a request. (Later code of theirs
shifts a body that has no index 0 by one. A row's meaning then depends on its neighbours, and a model trained from a file
that counts from one, whose feature 0 is unused, reads its requests one column off.) `text/libsvm; index_base=1` says that
the first feature is 1. A label is skipped, and so is a query's number.
source   aws/sagemaker-xgboost-container, serve_utils.py, _get_sparse_matrix_from_libsvm, at v3.0-5 and after

Rule: ordinary lines are read by libsvm.c, to the same bits. Of the others those of a piece are converted at once; a token is
looked at alone only to say which one is wrong.
"""

from __future__ import annotations

import re
from ctypes import byref, c_int64
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from handler.compiled import holding, letting_go
from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload.delimited import BRIEF_BYTES
from handler.payload.numbers import MAX_CELL_BYTES, has_long_cell, read_number, shorten
from handler.payload.rows import Floats, Rows, sparse_rows
from handler.payload.steps import count, find, trimmed

# A line costs 2 us of Python before its first cell.
MAX_LINES = 1_000_000

# Text turned to numbers in one go, in 1 ms: its tokens are Python objects for a while, many times their text.
PIECE_BYTES = 32 * 1024

_BOM = b"\xef\xbb\xbf"
_LINE_END = b"\n"

_ORDINARY = b"0123456789+-.eE: naNA"
_INDEX = re.compile(r"\d{1,18}", re.ASCII)
_COMMENT = re.compile(rb"#[^\n]*+")
_QUERY = b"qid:"


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """Cells that are there: `rows` count from zero within a piece, `indices` as they are written."""

    rows: NDArray[np.int64]
    indices: NDArray[np.int64]
    values: Floats


def read_libsvm(body: bytes, n_features: int, index_base: int = 0) -> Rows:
    """The rows of a libsvm body.

    n_features   the model's
    index_base   what the first feature is called, 0 or 1
    raises       PayloadInvalid naming the line; FeatureMismatch for an index the model does not have
    """
    start, end = trimmed(body, b" \t\r\n", len(_BOM) if body.startswith(_BOM) else 0)
    n_lines = count(body, b"\n", start, end) + 1
    if n_lines > MAX_LINES:
        raise PayloadInvalid("", f"{n_lines} lines, more than {MAX_LINES}; send so many rows as CSV or npy")
    values = sparse_rows(n_lines, n_features)
    n_rows, at, line = 0, start, count(body, b"\n", 0, start) + 1
    blank: int | None = None  # after a row
    while at < end:
        n_read, at = _read_ordinary(body, at, end, values[n_rows:], index_base)
        if n_read and blank is not None:
            raise _blank(blank)
        n_rows += n_read
        line += n_read
        if at >= end:
            break
        lines, at = _piece(body, at, end, line, n_features)
        first, last = _filled(lines, may_begin_blank=not n_rows)
        if first < last:
            if blank is not None:
                raise _blank(blank)
            entries = _read_piece(lines[first:last], line + first, n_features)
            _fill(values[n_rows : n_rows + last - first], entries, line + first, index_base)
            n_rows += last - first
        if n_rows and last < len(lines) and blank is None:
            blank = line + last
        line += len(lines)
    if not n_rows:
        raise PayloadInvalid("", "the body holds no rows")
    return Rows(values[:n_rows])


def _read_ordinary(body: bytes, at: int, end: int, values: Floats, index_base: int) -> tuple[int, int]:
    """Lines from `at` on, each into one of `values`, as far as C reads them: how many, and where it stopped."""
    if holding is None or letting_go is None:
        return 0, at
    read = holding if end - at <= BRIEF_BYTES else letting_go
    stopped = c_int64()
    address = values.__array_interface__["data"][0]
    n_rows = read.libsvm_read(body, at, end, values.shape[1], index_base, address, len(values), byref(stopped))
    return n_rows, stopped.value


def _piece(body: bytes, start: int, end: int, line: int, n_features: int) -> tuple[list[bytes], int]:
    """Lines without comments, of about PIECE_BYTES, and where the next begins."""
    cut = find(body, b"\n", min(start + PIECE_BYTES, end), end)
    if cut - start > 2 * PIECE_BYTES:
        _refuse_long_line(body, start, cut, line, n_features)
    text = body[start:cut].replace(b"\r\n", b"\n").replace(b"\t", b" ").removesuffix(b"\r")
    if b"#" in text:
        text = _COMMENT.sub(b"", text)
    return text.split(b"\n"), cut + 1


def _refuse_long_line(body: bytes, start: int, end: int, line: int, n_features: int) -> None:
    """The last line of a piece, where that is what makes it long: before anything is done to all of it at once."""
    last = body.rfind(b"\n", start, start + PIECE_BYTES) + 1 or start
    where = f"line {line + body.count(_LINE_END, start, last)}"
    comment = find(body, b"#", last, end)
    colon = find(body, b":", last, comment)
    is_query = body[max(last, colon - 3) : colon + 1] == _QUERY
    _check_width(count(body, b":", last, comment) - is_query, n_features, where)
    if end - last > max(PIECE_BYTES, 2 * MAX_CELL_BYTES * (n_features + 2)):
        raise PayloadInvalid(where, f"{end - last} bytes; at most {MAX_CELL_BYTES} are read of an index:value")


def _check_width(n_cells: int, n_features: int, where: str) -> None:
    if n_cells > n_features:
        raise FeatureMismatch(f"the model has {n_features} features, {where} names {n_cells}")


def _filled(lines: list[bytes], *, may_begin_blank: bool) -> tuple[int, int]:
    """From which line to before which there is something in them."""
    first, last = 0, len(lines)
    while first < last and may_begin_blank and not lines[first].strip():
        first += 1
    while last > first and not lines[last - 1].strip():
        last -= 1
    return first, last


def _blank(line: int) -> PayloadInvalid:
    return PayloadInvalid(f"line {line}", "blank, between rows")


def _read_piece(lines: list[bytes], first_line: int, n_features: int) -> _Entries:
    cells: list[bytes] = []
    counts = []
    for number, line in enumerate(lines, first_line):
        where = f"line {number}"
        line = _without_query(line, where)  # noqa: PLW2901
        n_cells = line.count(b":")
        _check_width(n_cells, n_features, where)
        tokens = line.split()
        if not tokens:
            raise _blank(number)
        if b":" not in tokens[0]:
            _check_label(tokens.pop(0), where)
        if len(tokens) != n_cells or line.translate(None, _ORDINARY) or has_long_cell(line, b" "):
            _refuse(tokens, where)
        cells += b":".join(tokens).split(b":") if tokens else []
        counts.append(n_cells)
    converted = _convert(cells)
    if converted is None:
        for number, line in enumerate(lines, first_line):
            where = f"line {number}"
            _refuse([token for token in _without_query(line, where).split() if b":" in token], where)
        raise PayloadInvalid(f"lines {first_line} and on", "not index:value")
    return _Entries(np.repeat(np.arange(len(lines)), counts), *converted)


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
    before, found, behind = line.partition(_QUERY)
    if not found:
        return line
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
    values.reshape(-1)[cells] = entries.values  # a view: whole rows lie together


def _refuse_index(index: int, line: int, n_features: int, index_base: int) -> NoReturn:
    last = n_features - 1 + index_base
    hint = (
        "; where the first feature is 1, say text/libsvm; index_base=1" if index == last + 1 and not index_base else ""
    )
    raise FeatureMismatch(
        f"the model has {n_features} features, {index_base} to {last}; line {line} has index {index}{hint}"
    )
