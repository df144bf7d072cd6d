"""Rows as JSON: application/json and application/jsonlines.

What is read, one row or many:
    [1, 2]  [[1, 2], [3, 4]]                       plain arrays
    {"instances": [[1, 2], ...]}                   SageMaker's envelope, around any of these:
    {"features": [1, 2]}                           SageMaker's dense row
    {"data": {"features": {"values": [...]}}}      SageMaker's common format; sparse with "keys" and "shape"
    {"age": 41, "income": null}                    an object by feature name
null is a missing value, true and false are 1 and 0. A column of strings holds words, which a model may have for a category;
a number in quotes is a string too.

Rule: whole arrays are converted at once; cells are visited one by one only to say which of them is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import error as NotPackable  # noqa: N812 - says what it means here
from typing import Any, NoReturn

import numpy as np
import orjson

from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload.numbers import TOO_LARGE, fits_float32, packer, shorten
from handler.payload.rows import MAX_WORDS, Floats, Rows, Word, sparse_rows

# Names a row for the caller: "instances[3]", "line 4".
Place = Callable[[int], str]

_BOM = b"\xef\xbb\xbf"

# Arrays and objects in one JSON body. Each costs 100 to 300 bytes beside its numbers, and "[]," makes one of three
# bytes, so 25 MB could become 700. Formats without that cost (CSV, npy, Parquet) have no such limit.
MAX_LISTS = 300_000


@dataclass(frozen=True, slots=True)
class _Width:
    """How wide a sparse row may say that it is."""

    n_features: int
    may_be_short: bool

    def fits(self, n_columns: int) -> bool:
        return n_columns == self.n_features or (self.may_be_short and 0 < n_columns < self.n_features)


def read_json(body: bytes, n_features: int, *, may_be_short: bool = False) -> Rows:
    """The rows of an application/json body.

    n_features     the model's: the width of a sparse row
    may_be_short   the shape of a sparse row may be smaller
    raises         PayloadInvalid naming the row and its cell; FeatureMismatch for a sparse row of another width
    """
    n_lists = body.count(b"[") + body.count(b"{")
    if n_lists > MAX_LISTS:
        raise PayloadInvalid(
            "", f"{n_lists} arrays and objects, more than {MAX_LISTS}; send so many rows as CSV or npy"
        )
    width = _Width(n_features, may_be_short)
    document = _parse(body, "")
    n_quotes = body.count(b'"')
    if isinstance(document, dict) and "instances" in document:
        if len(document) > 1:
            others = ", ".join(shorten(key) for key in document if key != "instances")
            raise PayloadInvalid("", f"unknown keys beside 'instances': {others}")
        items = document["instances"]
        if not isinstance(items, list):
            raise PayloadInvalid("instances", f"{_kind(items)}, not an array of rows")
        return _gather(items, lambda index: f"instances[{index}]", width, n_quotes - 2)
    if isinstance(document, list):
        if document and not isinstance(document[0], (list, dict)):
            return _cells([document], lambda _: "", has_strings=n_quotes > 0)
        return _gather(document, lambda index: f"[{index}]", width, n_quotes)
    _refuse_other_envelopes(document)
    return _gather([document], lambda _: "", width, n_quotes)


def read_jsonlines(body: bytes, n_features: int, *, may_be_short: bool = False) -> Rows:
    """The rows of an application/jsonlines body: one row per line, in any shape `read_json` knows, without envelope.

    n_features     the model's: the width of a sparse row
    may_be_short   the shape of a sparse row may be smaller
    raises         PayloadInvalid naming line and cell; FeatureMismatch for a sparse row of another width
    """
    text = body.removeprefix(_BOM)
    n_lines_above = text[: len(text) - len(text.lstrip())].count(b"\n")
    first = n_lines_above + 1
    text = text.strip()
    n_lists = text.count(b"\n") + 1 + text.count(b"[") + text.count(b"{")
    if n_lists > 2 * MAX_LISTS:
        raise PayloadInvalid("", f"more than {MAX_LISTS} rows; send so many as CSV or npy")
    items = [_parse(line, f"line {first + index}") for index, line in enumerate(text.split(b"\n"))]
    width = _Width(n_features, may_be_short)
    return _gather(items, lambda index: f"line {first + index}", width, text.count(b'"'))


def _refuse_other_envelopes(document: Any) -> None:
    """Other servers' words for rows: {"inputs": [...]}, {"data": [...]}, {"dataframe_split": {...}}."""
    if not isinstance(document, dict):
        return
    for key, value in document.items():
        is_ours = isinstance(value, dict) if key == "data" else key == "features"
        if isinstance(value, (list, dict)) and not is_ours:
            raise PayloadInvalid(
                shorten(key), f"{_kind(value)}; rows are read from 'instances': {{\"instances\": [[...], ...]}}"
            )


def _parse(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if not where else f"{where}, column {error.colno}"
        if not text.strip():
            raise PayloadInvalid(where, "empty, where a row was expected") from error
        hint = "; a missing value is null" if b"NaN" in text else ""
        raise PayloadInvalid(place, f"not JSON: {error.msg}{hint}") from error


def _gather(items: Sequence[Any], place: Place, width: _Width, n_quotes: int) -> Rows:
    """One shape for all rows, decided by the first.

    n_quotes   quote characters in the rows' text; when no more than the keys account for, no cell is a string
    """
    if not items:
        raise PayloadInvalid("", "the body holds no rows")
    first = items[0]
    if isinstance(first, list):
        return _cells(items, place, has_strings=n_quotes > 0)
    if not isinstance(first, dict):
        raise PayloadInvalid(place(0), f"{_kind(first)}, where a row was expected")
    if isinstance(first.get("data"), dict):
        return _gather_tensors(items, place, width)
    if isinstance(first.get("features"), list):
        rows = [_member(item, "features", place, index) for index, item in enumerate(items)]
        return _cells(rows, place, has_strings=n_quotes > 2 * len(rows))
    names = tuple(first)
    rows = [_by_name(item, names, place, index) for index, item in enumerate(items)]
    return _cells(rows, place, n_quotes > 2 * len(rows) * len(names), names)


def _member(item: Any, key: str, place: Place, index: int) -> Any:
    if isinstance(item, dict) and len(item) == 1 and key in item:
        return item[key]
    raise PayloadInvalid(place(index), f"not an object with the one key {key!r}")


def _by_name(item: Any, names: tuple[str, ...], place: Place, index: int) -> list[Any]:
    if isinstance(item, dict) and len(item) == len(names):
        try:
            return [item[name] for name in names]
        except KeyError:
            pass
    if not isinstance(item, dict):
        raise PayloadInvalid(place(index), f"{_kind(item)}, where the first row is an object")
    odd = sorted(set(names) ^ set(item))
    raise PayloadInvalid(place(index), f"not the names of the first row; {shorten(odd[0])} is in one of them only")


def _cells(rows: Sequence[Any], place: Place, has_strings: bool, names: tuple[str, ...] | None = None) -> Rows:
    """The rows of lists of numbers, booleans and None; and of strings, where a column has nothing else."""
    if not has_strings:
        try:
            if len(rows) == 1:  # the common case, in a third of the time
                return Rows(np.ndarray((1, len(rows[0])), np.float32, packer(len(rows[0]))(*rows[0])), names)
        except (ValueError, TypeError, NotPackable, OverflowError):
            pass
        try:
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is found by that
                values = np.array(rows, dtype=np.float32)
        except (ValueError, TypeError, OverflowError):
            pass
        else:
            if values.ndim == 2 and values.shape[1] and not np.isinf(values).any():
                return Rows(values, names)
    return _checked(rows, place, names)


def _checked(rows: Sequence[Any], place: Place, names: tuple[str, ...] | None) -> Rows:
    checked: list[list[float]] = []
    words: dict[int, dict[Word, int]] = {}
    of_numbers: set[int] = set()
    for index, row in enumerate(rows):
        where = place(index)
        if not isinstance(row, list):
            raise PayloadInvalid(where, f"{_kind(row)}, not an array of numbers")
        if not row:
            raise PayloadInvalid(where, "an empty row")
        if len(row) != len(rows[0]):
            raise PayloadInvalid(where, f"{len(row)} values, where the first row has {len(rows[0])}")
        cells = []
        for at, cell in enumerate(row):
            column = names[at] if names else at
            if isinstance(cell, str) and at not in of_numbers:
                cells.append(_word(cell, words.setdefault(at, {}), where, column))
                continue
            cells.append(_number(cell, where, column))
            if cell is not None:
                of_numbers.add(at)
                if at in words:
                    raise PayloadInvalid(f"{where}[{column!r}]", f"{_kind(cell)}, where rows before have strings")
        checked.append(cells)
    return Rows(np.array(checked, dtype=np.float32), names, tuple((at, tuple(seen)) for at, seen in words.items()))


def _word(word: str, seen: dict[Word, int], row: str, column: int | str) -> float:
    if len(seen) >= MAX_WORDS and word not in seen:
        raise PayloadInvalid(f"{row}[{column!r}]", f"more than {MAX_WORDS} different words in one column")
    return seen.setdefault(word, len(seen))


def _number(cell: Any, row: str, column: int | str) -> float:
    if cell is None:
        return math.nan
    if isinstance(cell, (int, float)):
        if fits_float32(cell):
            return float(cell)
        raise PayloadInvalid(f"{row}[{column!r}]", f"{cell!r} is {TOO_LARGE}")
    raise PayloadInvalid(f"{row}[{column!r}]", f"{_kind(cell)}, where a number was expected")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"the string {shorten(value)}"
        case list():
            return "an array"
        case _:
            return "an object"


def _gather_tensors(items: Sequence[Any], place: Place, width: _Width) -> Rows:
    """SageMaker's common format: {"data": {"features": {"values": [...], "keys": [...], "shape": [...]}}}."""
    tensors = []
    for index, item in enumerate(items):
        tensor = _member(_member(item, "data", place, index), "features", place, index)
        if not isinstance(tensor, dict) or "values" not in tensor or not tensor.keys() <= {"values", "keys", "shape"}:
            raise PayloadInvalid(place(index), "not a tensor of 'values', and 'keys' and 'shape' when it is sparse")
        tensors.append(tensor)
    if not any("keys" in tensor for tensor in tensors):
        return _cells([tensor["values"] for tensor in tensors], place, has_strings=True)
    values = sparse_rows(len(tensors), width.n_features)
    for index, tensor in enumerate(tensors):
        _scatter(tensor, values[index], width, place(index))
    return Rows(values)


def _scatter(tensor: dict[str, Any], row: Floats, width: _Width, where: str) -> None:
    n_features = width.n_features
    match tensor.get("shape", [n_features]):
        case [int(n_columns)] | [1, int(n_columns)] if not width.fits(n_columns):
            raise FeatureMismatch(f"the model has {n_features} features, {where or 'the row'} has shape {n_columns}")
        case [int()] | [1, int()]:
            pass
        case _:
            _refuse_tensor(where)
    keys, values = tensor.get("keys"), tensor["values"]
    if not isinstance(keys, list) or not isinstance(values, list) or len(keys) != len(values):
        raise PayloadInvalid(where, "'keys' and 'values' are not arrays of one length")
    for key in keys:
        if type(key) is not int or not 0 <= key < n_features:
            raise FeatureMismatch(
                f"the model has {n_features} features, {where or 'the row'} has key {key!r}, counted from 0"
            )
    if len(set(keys)) != len(keys):
        raise PayloadInvalid(where, "a key appears twice")
    row[keys] = [_number(value, f"{where} values", at) for at, value in enumerate(values)]


def _refuse_tensor(where: str) -> NoReturn:
    raise PayloadInvalid(where, "'shape' is not one row's: [n_features]")
