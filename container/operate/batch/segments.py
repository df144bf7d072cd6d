"""Which segment each row of a window is of: codes, and for each code a target.

Rule: a row without a segment has code 0, and so does every row whose target no store could have; they are errors of their
rows and stop nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from container.operate.batch.asked import Asked, filled
from container.operate.batch.inputs import DataFile
from container.operate.batch.troubles import FileUnusable
from handler.errors import TargetInvalid
from handler.targets import parse_target

if TYPE_CHECKING:
    from container.operate.batch.tables import Window


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """codes: of each row. targets: of each code; None where there is none, and then `whys` says why."""

    codes: NDArray[Any]
    targets: tuple[str | None, ...]
    whys: tuple[str, ...]


def segments_of(window: Window, file: DataFile, asked: Asked) -> Segments:
    """Raises FileUnusable when the columns are not there, or the path has not what the template asks for."""
    if asked.is_from_path:
        known, why = _checked(filled(asked.target_template, _of_path(file, asked)))
        return Segments(np.zeros(len(window.table), np.uint16), (known,), (why,))
    missing = [name for name in asked.fields if name not in window.table.column_names]
    if missing:
        has = ", ".join(map(repr, window.table.column_names[:8]))
        raise FileUnusable(f"it has no column {missing[0]!r} to tell segments by; it has {has}")
    encoded = [_encoded(window.table.column(name)) for name in asked.fields]
    codes, values = encoded[0]
    combined: list[tuple[str | None, ...]] = [(value,) for value in values]
    for more_codes, more_values in encoded[1:]:
        pairs = codes.astype(np.int64) * len(more_values) + more_codes
        unique, codes = np.unique(pairs, return_inverse=True)
        combined = [
            (*combined[int(pair) // len(more_values)], more_values[int(pair) % len(more_values)]) for pair in unique
        ]
    targets: list[str | None] = []
    whys: list[str] = []
    for one in combined:
        known, why = _target_of(one, asked)
        targets.append(known)
        whys.append(why)
    # NumPy sorts 16 bits by radix, ten times as fast as more.
    small = np.uint16 if len(targets) <= 1 << 16 else np.int64
    return Segments(codes.astype(small, copy=False), tuple(targets), tuple(whys))


def _target_of(values: tuple[str | None, ...], asked: Asked) -> tuple[str | None, str]:
    filling: dict[str, str] = {}
    for name, value in zip(asked.fields, values, strict=True):
        if value is None:
            return None, f"column {name!r}, which tells the segment, is null"
        filling[name] = value
    return _checked(filled(asked.target_template, filling))


def _encoded(column: Any) -> tuple[NDArray[Any], list[str | None]]:
    """Codes and the text of each; null is the last code, where there is one."""
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
    values: list[str | None] = [text_of(value) for value in coded.dictionary.to_pylist()]
    codes = coded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    return codes, [*values, None]


def text_of(value: Any) -> str | None:
    """A segment's value as people write it: 12 for 12.0, which a column of integers with a null in it has become."""
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _checked(target: str) -> tuple[str | None, str]:
    try:
        return parse_target(target), ""
    except TargetInvalid as error:
        return None, str(error)


def _of_path(file: DataFile, asked: Asked) -> dict[str, str]:
    folder, _, name = file.stem.rpartition("/")
    values = {"path": file.stem, "folder": folder, "name": name}
    values.update(part.split("=", 1) for part in folder.split("/") if "=" in part)  # type: ignore[misc]
    missing = [field for field in asked.fields if field not in values]
    if missing:
        raise FileUnusable(f"its path has no {missing[0]!r}; it has {', '.join(map(repr, values))}")
    return values
