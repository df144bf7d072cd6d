"""Rows as JSON: application/json and application/jsonlines.

What is read, one row or many:
    [1, 2]  [[1, 2], [3, 4]]                       plain arrays
    {"instances": [[1, 2], ...]}                   SageMaker's envelope, around any of these:
    {"features": [1, 2]}                           SageMaker's dense row
    {"data": {"features": {"values": [...]}}}      SageMaker's common format; sparse with "keys" and "shape"
    {"age": 41, "income": null}                    an object by feature name
null is a missing value, true and false are 1 and 0. A column of strings holds words, which a model may have for a category;
a number in quotes is a string too. An object that has a name twice is refused, however long the body is: RFC 8259 wants
names to be unique, and readers differ in which of the two they take.

Rule: whole arrays are converted at once, of a large body a piece after the other; cells are visited one by one only to say
which of them is wrong. What jsonrows.c reads, of a body that is one piece, is what all this makes of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import error as NotPackable  # noqa: N812 - says what it means here
from typing import Any, NoReturn

import numpy as np
import orjson

from handler.compiled import holding, letting_go
from handler.errors import FeatureMismatch, PayloadInvalid
from handler.payload.delimited import BRIEF_BYTES
from handler.payload.numbers import TOO_LARGE, fits_float32, packer, shorten
from handler.payload.rows import MAX_COLUMNS_READ, MAX_WORDS, Floats, Rows, Word, refuse_too_wide, sparse_rows
from handler.payload.steps import count, escaped, find, trimmed

# Names a row for the caller: "instances[3]", "line 4".
Place = Callable[[int], str]

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\n\r\x0b\x0c"

# Text turned to rows in one go: as Python's lists and numbers it holds the interpreter lock for 1 ms.
PIECE_BYTES = 64 * 1024
# In which a row is read as fast by orjson.
ONE_ROW_BYTES = 256
# How a body of many rows begins.
_HEAD = re.compile(
    rb'(?:\xef\xbb\xbf)?[ \t\r\n]{0,64}+(?:(\{)[ \t\r\n]{0,64}+"instances"[ \t\r\n]{0,64}+:[ \t\r\n]{0,64}+)?\['
)

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
    if len(body) > MAX_LISTS and (n_lists := count(body, b"[") + count(body, b"{")) > MAX_LISTS:
        raise PayloadInvalid(
            "", f"{n_lists} arrays and objects, more than {MAX_LISTS}; send so many rows as CSV or npy"
        )
    if (rows := _read_ordinary(body, n_features, is_lines=False)) is not None:
        return rows
    width = _Width(n_features, may_be_short)
    if len(body) > PIECE_BYTES and letting_go is not None:
        head = _HEAD.match(body)
        if head is not None:
            return _read_array(body, head.end(), is_in_envelope=head[1] is not None, width=width)
        _refuse_many_values(body, n_features, "", 0, len(body))
    document = _parse(body, "")
    n_quotes = _quotes(body, 0, len(body))
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


def _read_ordinary(body: bytes, n_features: int, *, is_lines: bool) -> Rows | None:
    """What jsonrows.c reads in one go: rows of numbers that are as wide as the model; None for anything else."""
    if holding is None or letting_go is None or not ONE_ROW_BYTES < len(body) <= PIECE_BYTES:
        return None
    n_cells = body.count(b",") + 1 + (body.count(b"\n") if is_lines else 0)  # at most
    if n_features < 1 or n_cells < n_features:
        return None
    values = np.empty((n_cells // n_features, n_features), np.float32)
    read = holding if len(body) <= BRIEF_BYTES else letting_go
    at = values.__array_interface__["data"][0]
    n_rows = read.jsonrows_read(body, len(body), is_lines, n_features, at, values.size)
    return Rows(values[:n_rows]) if n_rows > 0 else None


def _read_array(body: bytes, start: int, *, is_in_envelope: bool, width: _Width) -> Rows:
    """The rows of an array whose items begin at `start`, a piece of it after the other."""
    cuts = _cuts(body, start, width.n_features)
    end = cuts[-1]
    if end < len(body):
        first, last = trimmed(body, _BLANKS, end + 1)
        if last - first > 1 or body[first:last] != b"}" * is_in_envelope:
            raise PayloadInvalid("", 'more behind the array of rows, which stands alone or in {"instances": [...]}')
    name = "instances" if is_in_envelope else ""
    table = _Table(lambda index: f"{name}[{index}]", width)
    row: list[Any] = []  # where the whole array is one
    for cut in cuts:
        items = _parse_items(body, start, cut, b"]" if cut < end else body[end : end + 1])
        if not items and (cut < end or table.n_rows or row):
            raise PayloadInvalid("", f"not JSON: nothing between a comma and byte {cut}")
        if row or (items and not is_in_envelope and not table.n_rows and not isinstance(items[0], (list, dict))):
            row += items
            refuse_too_wide(len(row), width.n_features)
        else:
            table.take(items, _quotes(body, start, cut))
        start = cut + 1
    return _cells([row], lambda _: "", has_strings=True) if row else table.rows()


def _cuts(body: bytes, start: int, n_features: int) -> list[int]:
    """Where the pieces of an array end. Raises FeatureMismatch for an item too wide to be read."""
    assert letting_go is not None
    cuts = np.empty(len(body) // PIECE_BYTES + 2, np.int64)
    most = _most_values(n_features)
    n_cuts = letting_go.array_cut(body, len(body), start, PIECE_BYTES, most, cuts.ctypes.data, len(cuts))
    if n_cuts < 0:
        raise FeatureMismatch(f"the model has {n_features} features, row {-n_cuts} has more than {most} values")
    found: list[int] = cuts[:n_cuts].tolist()
    return found


def _most_values(n_features: int) -> int:
    """Of a row, before it is read: a sparse one has two for each feature."""
    return 2 * max(MAX_COLUMNS_READ, n_features + 1)


def _refuse_many_values(body: bytes, n_features: int, where: str, start: int, end: int) -> None:
    """For what is parsed in one go however long it is: a row alone, or what is no array of rows."""
    n_commas, most = count(body, b",", start, end), _most_values(n_features)
    if n_commas > most:
        raise PayloadInvalid(where, f"{n_commas} commas in what is no array of rows; more than {most} are not read")


def _parse_items(body: bytes, start: int, cut: int, closing: bytes) -> list[Any]:
    """The items of an array between two cuts; `closing` is what stands behind the last. Raises PayloadInvalid."""
    try:
        items: list[Any] = orjson.loads(b"[%b%b" % (body[start:cut], closing))
    except orjson.JSONDecodeError as error:
        line = count(body, b"\n", 0, start) + error.lineno
        column = error.colno if error.lineno > 1 else start - body.rfind(b"\n", 0, start) + error.colno - 2
        hint = "; a missing value is null" if b"NaN" in body[start:cut] else ""
        raise PayloadInvalid(f"line {line}, column {column}", f"not JSON: {error.msg}{hint}") from error
    return items


def read_jsonlines(body: bytes, n_features: int, *, may_be_short: bool = False) -> Rows:
    """The rows of an application/jsonlines body: one row per line, in any shape `read_json` knows, without envelope.

    n_features     the model's: the width of a sparse row
    may_be_short   the shape of a sparse row may be smaller
    raises         PayloadInvalid naming line and cell; FeatureMismatch for a sparse row of another width
    """
    if (rows := _read_ordinary(body, n_features, is_lines=True)) is not None:
        return rows
    start, end = trimmed(body, _BLANKS, len(_BOM) if body.startswith(_BOM) else 0)
    if len(body) >= 2 * MAX_LISTS:
        n_lists = count(body, b"\n", start, end) + 1 + count(body, b"[") + count(body, b"{")
        if n_lists > 2 * MAX_LISTS:
            raise PayloadInvalid("", f"more than {MAX_LISTS} rows; send so many as CSV or npy")
    first = count(body, b"\n", 0, start) + 1
    width = _Width(n_features, may_be_short)
    if end - start <= PIECE_BYTES:
        text = body[start:end]
        items = [_parse(one, f"line {first + index}") for index, one in enumerate(text.split(b"\n"))]
        return _gather(items, lambda index: f"line {first + index}", width, _quotes(text, 0, len(text)))
    table = _Table(lambda index: f"line {first + index}", width)
    while True:
        cut = find(body, b"\n", min(start + PIECE_BYTES, end), end)
        line = first + table.n_rows
        if cut - start > 2 * PIECE_BYTES:
            _refuse_many_values(body, n_features, f"lines {line} and on", start + PIECE_BYTES, cut)
        text = body[start:cut]
        items = [_parse(one, f"line {line + index}") for index, one in enumerate(text.split(b"\n"))]
        table.take(items, _quotes(text, 0, len(text)))
        if cut >= end:
            return table.rows()
        start = cut + 1


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


def _quotes(text: bytes, start: int, end: int) -> int:
    """Quotes around the strings and names of a JSON text: two for each, however often a name is there."""
    n_quotes = count(text, b'"', start, end)
    return n_quotes - escaped(text, b'"', start, end) if n_quotes else 0


def _gather(items: Sequence[Any], place: Place, width: _Width, n_quotes: int) -> Rows:
    """The rows of all items at once; `n_quotes` as in `_Table.take`."""
    if not n_quotes and items and isinstance(items[0], list) and (values := _all_at_once(items)) is not None:
        return Rows(values)
    table = _Table(place, width)
    table.take(items, n_quotes)
    return table.rows()


class _Table:
    """Rows of one shape, which the first decides, taken a piece of the body at a time."""

    __slots__ = ("_blocks", "_columns", "_is_sparse", "_names", "_place", "_take", "_width", "n_rows")

    def __init__(self, place: Place, width: _Width) -> None:
        self._place = place
        self._width = width
        self._blocks: list[Floats] = []
        self._names: tuple[str, ...] | None = None
        self._columns = _Columns()
        self._take: Callable[[Sequence[Any], Place, int], Floats] | None = None
        self._is_sparse: bool | None = None  # where rows are tensors
        self.n_rows = 0

    def take(self, items: Sequence[Any], n_quotes: int) -> None:
        """n_quotes   of their text, see `_quotes`; when no more than the names account for, no cell is a string"""
        if not items:
            return
        before, place = self.n_rows, self._place
        here: Place = (lambda index: place(before + index)) if before else place
        if self._take is None:
            self._take = self._shape_of(items[0], here)
        self._blocks.append(self._take(items, here, n_quotes))
        self.n_rows += len(items)

    def rows(self) -> Rows:
        if not self._blocks:
            raise PayloadInvalid("", "the body holds no rows")
        values = self._blocks[0] if len(self._blocks) == 1 else np.concatenate(self._blocks)
        return Rows(values, self._names, self._columns.words())

    def _shape_of(self, first: Any, place: Place) -> Callable[[Sequence[Any], Place, int], Floats]:
        if isinstance(first, list):
            return self._lists
        if not isinstance(first, dict):
            raise PayloadInvalid(place(0), f"{_kind(first)}, where a row was expected")
        if isinstance(first.get("data"), dict):
            return self._tensors
        if isinstance(first.get("features"), list):
            return self._features
        self._names = tuple(first)
        return self._objects

    def _lists(self, items: Sequence[Any], place: Place, n_quotes: int) -> Floats:
        return self._values(items, place, n_quotes)

    def _features(self, items: Sequence[Any], place: Place, n_quotes: int) -> Floats:
        rows = [_member(item, "features", place, index) for index, item in enumerate(items)]
        return self._values(rows, place, n_quotes - 2 * len(rows))

    def _objects(self, items: Sequence[Any], place: Place, n_quotes: int) -> Floats:
        names = self._names or ()
        rows = [_by_name(item, names, place, index) for index, item in enumerate(items)]
        return self._values(rows, place, n_quotes - 2 * len(rows) * len(names), names)

    def _values(self, rows: Sequence[Any], place: Place, n_quotes: int, names: tuple[str, ...] | None = None) -> Floats:
        """n_quotes   beside those of the names"""
        values = self._columns.values(rows, place, has_strings=n_quotes > 0, names=names)
        _refuse_doubled(rows, place, n_quotes)
        return values

    def _tensors(self, items: Sequence[Any], place: Place, n_quotes: int) -> Floats:
        """SageMaker's common format: {"data": {"features": {"values": [...], "keys": [...], "shape": [...]}}}."""
        tensors = [_tensor(item, place, index) for index, item in enumerate(items)]
        n_quotes -= 2 * sum(2 + len(tensor) for tensor in tensors)
        is_sparse = any("keys" in tensor for tensor in tensors)
        if self._is_sparse not in {None, is_sparse}:
            raise PayloadInvalid(place(0), "some tensors have 'keys' and some have none")
        self._is_sparse = is_sparse
        if not is_sparse:
            return self._values([tensor["values"] for tensor in tensors], place, n_quotes)
        values = sparse_rows(len(tensors), self._width.n_features, self.n_rows)
        for index, tensor in enumerate(tensors):
            _scatter(tensor, values[index], self._width, place(index))
        _refuse_doubled((), place, n_quotes)  # all of them are numbers by now
        return values


def _refuse_doubled(rows: Sequence[Any], place: Place, n_quotes: int) -> None:
    """For a name that its object has twice, of which a parser keeps the last: its text has more strings than there are.

    n_quotes   in the text of these rows, beside those of the names that were kept
    """
    if n_quotes <= 0 or n_quotes == 2 * sum(isinstance(cell, str) for row in rows for cell in row):
        return
    raise PayloadInvalid(place(0) if len(rows) == 1 else "", "an object has the same name twice")


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


def _cells(rows: Sequence[Any], place: Place, has_strings: bool) -> Rows:
    if not has_strings and (values := _all_at_once(rows)) is not None:
        return Rows(values)
    columns = _Columns()
    values = columns.values(rows, place, has_strings=has_strings)
    return Rows(values, words=columns.words())


class _Columns:
    """What the columns of one body hold: numbers, booleans and None; or strings, where a column has nothing else."""

    __slots__ = ("_n_columns", "_of_numbers", "_unseen", "_words")

    def __init__(self) -> None:
        self._n_columns = 0
        self._of_numbers: set[int] = set()
        self._unseen: list[Floats] = []  # blocks whose columns are not among these yet
        self._words: dict[int, dict[Word, int]] = {}

    def words(self) -> tuple[tuple[int, tuple[Word, ...]], ...]:
        return () if not self._words else tuple((at, tuple(seen)) for at, seen in self._words.items())

    def values(
        self, rows: Sequence[Any], place: Place, *, has_strings: bool, names: tuple[str, ...] | None = None
    ) -> Floats:
        """Of some rows; they have to go with those before."""
        if not has_strings and not self._words:
            values = _all_at_once(rows)
            if values is not None and values.shape[1] == (self._n_columns or values.shape[1]):
                self._n_columns = values.shape[1]
                self._unseen.append(values)
                return values
        return self._checked(rows, place, names)

    def _checked(self, rows: Sequence[Any], place: Place, names: tuple[str, ...] | None) -> Floats:
        for block in self._unseen:
            self._of_numbers.update(np.flatnonzero(~np.isnan(block).all(axis=0)).tolist())
        self._unseen.clear()
        checked: list[list[float]] = []
        for index, row in enumerate(rows):
            where = place(index)
            if not isinstance(row, list):
                raise PayloadInvalid(where, f"{_kind(row)}, not an array of numbers")
            if not row:
                raise PayloadInvalid(where, "an empty row")
            self._n_columns = self._n_columns or len(row)
            if len(row) != self._n_columns:
                raise PayloadInvalid(where, f"{len(row)} values, where the first row has {self._n_columns}")
            checked.append([self._cell(cell, at, where, names[at] if names else at) for at, cell in enumerate(row)])
        return np.array(checked, dtype=np.float32)

    def _cell(self, cell: Any, at: int, where: str, column: int | str) -> float:
        if isinstance(cell, str) and at not in self._of_numbers:
            return _word(cell, self._words.setdefault(at, {}), where, column)
        number = _number(cell, where, column)
        if cell is not None:
            self._of_numbers.add(at)
            if at in self._words:
                raise PayloadInvalid(f"{where}[{column!r}]", f"{_kind(cell)}, where rows before have strings")
        return number


def _all_at_once(rows: Sequence[Any]) -> Floats | None:
    """Rows of numbers, booleans and None; None when there is anything else."""
    try:
        if len(rows) == 1:  # the common case, in a third of the time
            return np.ndarray((1, len(rows[0])), np.float32, packer(len(rows[0]))(*rows[0]))
    except (ValueError, TypeError, NotPackable, OverflowError):
        pass
    try:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is found by that
            values = np.array(rows, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        return None
    return values if values.ndim == 2 and values.shape[1] and not np.isinf(values).any() else None


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


def _tensor(item: Any, place: Place, index: int) -> dict[str, Any]:
    tensor = _member(_member(item, "data", place, index), "features", place, index)
    if not isinstance(tensor, dict) or "values" not in tensor or not tensor.keys() <= {"values", "keys", "shape"}:
        raise PayloadInvalid(place(index), "not a tensor of 'values', and 'keys' and 'shape' when it is sparse")
    return tensor


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
