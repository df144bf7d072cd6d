"""Which segment each row of a window is of: codes, and for each code a target.

Rule: a null is a code as well, and so is a value that makes no target a store could have; they are errors of their rows and
stop nothing. What is a thousand times as many as segments, rows, is never looked at in Python; and a segment only when it is
met first, however many windows name it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from container.operate.tables.files import DataFile, FileUnusable
from container.operate.tables.names import NOBODY, places
from container.operate.tables.reading import Reading, fields_of, filled
from handler.errors import TargetInvalid
from handler.targets import parse_target

if TYPE_CHECKING:
    import pyarrow as pa

    from container.operate.tables.windows import Window


# Targets that are remembered between windows, which mostly name the same segments.
MAX_REMEMBERED = 1 << 17

# What a template's fields are filled with.
Values = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Named:
    """A segment's target; or None, and why there is none."""

    target: str | None
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """codes: of each row. values: of each code."""

    codes: NDArray[np.int32]
    values: Sequence[Values]
    template: str

    def named(self, code: int) -> Named:
        return named(self.template, self.values[code])


class Met:
    """Segments that were met, by codes that are theirs for good: in every window, of every file. Safe to use from many
    threads."""

    def __init__(self) -> None:
        import pyarrow as pa

        self._lock = threading.Lock()  # guards what follows; read without it for segments that are known
        self._codes: dict[Values, int] = {}
        self.values: list[Values] = []
        # Those that one column of text says, and the code of each. Arrow finds 20,000 of them in 2 ms, a dictionary in 15.
        self._texts: tuple[pa.StringArray, NDArray[np.int32]] = pa.array([], pa.string()), np.empty(0, np.int32)

    def code(self, values: Values) -> int:
        code = self._codes.get(values)
        if code is None:
            with self._lock:
                code = self._added(values)
        return code

    def codes(self, texts: pa.StringArray) -> NDArray[np.int32]:
        """Of segments that each of these says alone."""
        known, codes = self._texts
        at = places(texts, known)
        if (at == NOBODY).any():
            with self._lock:
                at = places(texts, self._texts[0])
                new = texts.take(np.flatnonzero(at == NOBODY)).unique()
                self._add_texts(new)
                known, codes = self._texts
                at = places(texts, known)
        return codes[at]

    def _add_texts(self, new: pa.StringArray) -> None:
        import pyarrow as pa

        known, codes = self._texts
        added = [self._added((text,)) for text in new.to_pylist()]
        self._texts = pa.concat_arrays([known, new]), np.append(codes, np.array(added, np.int32))

    def _added(self, values: Values) -> int:
        code = self._codes.get(values)
        if code is None:
            code = len(self.values)
            self.values.append(values)
            self._codes[values] = code  # last: from now on it is read without the lock
        return code


def segments_of(window: Window, file: DataFile, asked: Reading, met: Met | None = None) -> Segments:
    """met: that may be in other windows. Raises FileUnusable when the columns are not there, or the path has not what the
    template asks for."""
    met = Met() if met is None else met
    if asked.is_from_path:
        of_path = np.full(len(window.table), met.code(_of_path(file, asked)), np.int32)
        return Segments(of_path, met.values, asked.target_template)
    fields = _fields_in(window, asked)
    if len(fields) == 1:
        return Segments(_of_one_column(window.table.column(fields[0]), met), met.values, asked.target_template)
    codes: NDArray[Any]
    (codes, first_values), *others = [_encoded(window.table.column(name)) for name in fields]
    values: list[Values] = [(value,) for value in first_values]
    for more_codes, more_values in others:
        pairs = codes.astype(np.int64) * len(more_values) + more_codes
        unique, codes = np.unique(pairs, return_inverse=True)
        values = [
            (*values[int(pair) // len(more_values)], more_values[int(pair) % len(more_values)]) for pair in unique
        ]
    of_code = np.array([met.code(one) for one in values], np.int32)
    return Segments(of_code[codes], met.values, asked.target_template)


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """codes: of each row. texts: Arrow's, of each code what tells the segment, as one text; null where there is none."""

    codes: NDArray[Any]
    texts: Any
    is_joined: bool
    template: str

    def named(self, code: int) -> Named:
        text = self.texts[code].as_py()
        return named_anew(self.template, tuple(orjson.loads(text)) if self.is_joined else (text,))


def texts_of(window: Window, file: DataFile, asked: Reading) -> Texts:
    """As `segments_of`, without a Python object for each of thousands of values. Raises FileUnusable."""
    import pyarrow as pa

    if asked.is_from_path or len(asked.fields) > 1:
        found = segments_of(window, file, asked)
        joined = [orjson.dumps(values).decode() for values in found.values]
        return Texts(found.codes, pa.array(joined, pa.string()), True, asked.target_template)
    (name,) = _fields_in(window, asked)
    coded = _coded(window.table.column(name))
    codes, dictionary = _codes_of(coded), coded.dictionary
    if not _is_text(dictionary.type):
        dictionary = pa.array([text_of(value) for value in dictionary.to_pylist()], pa.string())
    texts = pa.concat_arrays([dictionary.cast(pa.string()), pa.nulls(1, pa.string())])
    return Texts(codes, texts, False, asked.target_template)


def named_anew(template: str, values: Values) -> Named:
    """What the template makes of values for its fields."""
    filling: dict[str, str] = {}
    for field, value in zip(fields_of(template), values, strict=True):
        if value is None:
            return Named(None, f"column {field!r}, which tells the segment, is null")
        filling[field] = value
    try:
        return Named(parse_target(filled(template, filling)))
    except TargetInvalid as error:
        return Named(None, str(error))


named = lru_cache(maxsize=MAX_REMEMBERED)(named_anew)


def _fields_in(window: Window, asked: Reading) -> tuple[str, ...]:
    """Columns that tell the segment. Raises FileUnusable where one is missing."""
    missing = [name for name in asked.fields if name not in window.table.column_names]
    if missing:
        has = ", ".join(map(repr, window.table.column_names[:8]))
        raise FileUnusable(f"it has no column {missing[0]!r} to tell segments by; it has {has}")
    return asked.fields


def _of_one_column(column: Any, met: Met) -> NDArray[np.int32]:
    """Where it is a dictionary already, each chunk has its own, which are not made into one for that."""
    import pyarrow.types as types

    chunks = column.chunks if types.is_dictionary(column.type) else [_coded(column)]
    of_words = _of_words([chunk.dictionary for chunk in chunks], met)
    codes = np.empty(len(column), np.int32)
    start = 0
    for chunk, of_word in zip(chunks, of_words, strict=True):
        of_null = met.code((None,)) if chunk.indices.null_count else NOBODY
        codes[start : start + len(chunk)] = np.append(of_word, np.int32(of_null))[_codes_of(chunk)]
        start += len(chunk)
    return codes


def _of_words(dictionaries: list[Any], met: Met) -> list[NDArray[np.int32]]:
    """The code of each word of each. Text is looked for in one go: what it is looked for in is made ready each time."""
    import pyarrow as pa

    if all(words.type == pa.string() for words in dictionaries):
        ends = np.cumsum([len(words) for words in dictionaries])
        return np.split(met.codes(pa.concat_arrays(dictionaries)), ends[:-1]) if dictionaries else []
    return [np.array([met.code((text_of(word),)) for word in words.to_pylist()], np.int32) for words in dictionaries]


def _encoded(column: Any) -> tuple[NDArray[Any], list[str | None]]:
    """Codes and the text of each; null is the last code."""
    coded = _coded(column)
    return _codes_of(coded), [*(text_of(value) for value in coded.dictionary.to_pylist()), None]


def _codes_of(coded: Any) -> NDArray[Any]:
    """Null is the code behind the dictionary's, for which a file's own type of codes may be too narrow."""
    import pyarrow as pa

    codes: NDArray[Any] = coded.indices.cast(pa.int32()).fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)
    return codes


def _coded(column: Any) -> Any:
    """As one array of codes into a dictionary."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    whole = (
        column.combine_chunks()
        if not types.is_dictionary(column.type)
        else column.unify_dictionaries().combine_chunks()
    )
    if hasattr(whole, "chunks"):  # a chunked array of one chunk, or of none
        whole = whole.chunk(0) if whole.num_chunks else whole.type.wrap_array([])
    return whole if types.is_dictionary(whole.type) else pc.dictionary_encode(whole)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def text_of(value: Any) -> str | None:
    """A segment's value as people write it: 12 for 12.0, which a column of integers with a null in it has become."""
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _of_path(file: DataFile, asked: Reading) -> Values:
    folder, _, name = file.stem.rpartition("/")
    values = {"path": file.stem, "folder": folder, "name": name}
    values.update(part.split("=", 1) for part in folder.split("/") if "=" in part)  # type: ignore[misc]
    missing = [field for field in asked.fields if field not in values]
    if missing:
        raise FileUnusable(f"its path has no {missing[0]!r}; it has {', '.join(map(repr, values))}")
    return tuple(values[field] for field in asked.fields)
