"""Which segment each row of a window is of: codes, and for each code a target.

Rule: a null is a code as well, and so is a value that makes no target a store could have; they are errors of their rows and
stop nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from container.operate.tables.files import DataFile, FileUnusable
from container.operate.tables.reading import Reading, fields_of, filled
from handler.errors import TargetInvalid
from handler.targets import parse_target

if TYPE_CHECKING:
    from container.operate.tables.windows import Window


# Targets that are remembered between windows, which mostly name the same segments.
MAX_REMEMBERED = 1 << 17


@dataclass(frozen=True, slots=True)
class Named:
    """A segment's target; or None, and why there is none."""

    target: str | None
    why: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """codes: of each row. values: of each code, what the template's fields are filled with."""

    codes: NDArray[np.int32]
    values: Sequence[tuple[str | None, ...]]
    template: str

    def named(self, code: int) -> Named:
        return named(self.template, self.values[code])


def segments_of(window: Window, file: DataFile, asked: Reading) -> Segments:
    """Raises FileUnusable when the columns are not there, or the path has not what the template asks for."""
    if asked.is_from_path:
        return Segments(np.zeros(len(window.table), np.int32), [_of_path(file, asked)], asked.target_template)
    encoded = [_encoded(window.table.column(name)) for name in _fields_in(window, asked)]
    codes, first_values = encoded[0]
    values: list[tuple[str | None, ...]] = [(value,) for value in first_values]
    for more_codes, more_values in encoded[1:]:
        pairs = codes.astype(np.int64) * len(more_values) + more_codes
        unique, codes = np.unique(pairs, return_inverse=True)
        values = [
            (*values[int(pair) // len(more_values)], more_values[int(pair) % len(more_values)]) for pair in unique
        ]
    return Segments(codes.astype(np.int32, copy=False), values, asked.target_template)


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
    codes, dictionary = _coded(window.table.column(name))
    if not _is_text(dictionary.type):
        dictionary = pa.array([text_of(value) for value in dictionary.to_pylist()], pa.string())
    texts = pa.concat_arrays([dictionary.cast(pa.string()), pa.nulls(1, pa.string())])
    return Texts(codes, texts, False, asked.target_template)


def named_anew(template: str, values: tuple[str | None, ...]) -> Named:
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


def _encoded(column: Any) -> tuple[NDArray[Any], list[str | None]]:
    """Codes and the text of each; null is the last code."""
    codes, dictionary = _coded(column)
    return codes, [*(text_of(value) for value in dictionary.to_pylist()), None]


def _coded(column: Any) -> tuple[NDArray[Any], Any]:
    """Codes, and the array of what they stand for; null is the code behind it."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    whole = (
        column.combine_chunks()
        if not types.is_dictionary(column.type)
        else column.unify_dictionaries().combine_chunks()
    )
    if hasattr(whole, "chunks"):  # a chunked array of one chunk, or of none
        whole = whole.chunk(0) if whole.num_chunks else whole.type.wrap_array([])
    coded = whole if types.is_dictionary(whole.type) else pc.dictionary_encode(whole)
    return coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False), coded.dictionary


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


def _of_path(file: DataFile, asked: Reading) -> tuple[str | None, ...]:
    folder, _, name = file.stem.rpartition("/")
    values = {"path": file.stem, "folder": folder, "name": name}
    values.update(part.split("=", 1) for part in folder.split("/") if "=" in part)  # type: ignore[misc]
    missing = [field for field in asked.fields if field not in values]
    if missing:
        raise FileUnusable(f"its path has no {missing[0]!r}; it has {', '.join(map(repr, values))}")
    return tuple(values[field] for field in asked.fields)
