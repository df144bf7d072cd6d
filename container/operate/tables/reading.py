"""How tables are to be read: what tells a row's segment, which columns are text, where names and formats come from."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import lru_cache

from container.operate.troubles import Misused

FORMATS = ("parquet", "csv", "jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What all that read tables ask alike.

    target_template  a target with {fields}; each is a column, or of the file's path where the target comes from that
    is_from_path     fields are of the path: {path}, {folder}, {name}, and {key} of a folder `key=value`
    keep             columns that are carried along
    data_format      one of FORMATS, for files whose names do not say; None asks their names
    has_header       of CSV; without one, columns are called 0, 1, ...
    """

    target_template: str
    is_from_path: bool = False
    keep: tuple[str, ...] = ()
    data_format: str | None = None
    has_header: bool = True

    @property
    def fields(self) -> tuple[str, ...]:
        """The template's, each once."""
        return fields_of(self.target_template)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that are taken as they are written: those that name the segment, and those carried along."""
        return (*(() if self.is_from_path else self.fields), *self.keep)


@lru_cache(maxsize=64)
def fields_of(template: str) -> tuple[str, ...]:
    """The names in braces. Raises Misused for what is no template."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise Misused(f"--target {template!r}: {error}") from error
    fields = [field for _, field, _, _ in parsed if field is not None]
    if not fields or not all(fields) or any(spec or conversion for _, _, spec, conversion in parsed):
        raise Misused(f"--target {template!r}: write names of columns in braces, such as us/{{city}}.tar.gz")
    return tuple(dict.fromkeys(fields))


def filled(template: str, values: dict[str, str]) -> str:
    """The template with each field's value in its place; braces in values stay what they are."""
    return "".join(literal + (values[field] if field is not None else "") for literal, field in _pieces_of(template))


@lru_cache(maxsize=64)
def _pieces_of(template: str) -> tuple[tuple[str, str | None], ...]:
    return tuple((literal, field) for literal, field, _, _ in string.Formatter().parse(template))
