"""Which segment each row of a window is of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from container.operate.tables.reading import Reading
from container.operate.tables.segments import Met, segments_of, texts_of

N_TEXTS = 128  # as many as a code of 8 bits can tell apart


def window_of(column: pa.Array) -> Any:
    return SimpleNamespace(table=pa.table({"city": column}))


@pytest.mark.parametrize("read", [segments_of, texts_of])
def test_a_null_beside_as_many_texts_as_a_files_codes_can_tell_apart_is_a_segment_of_its_own(read: Any) -> None:
    texts = [str(number) for number in range(N_TEXTS)]
    codes = pa.array([*range(N_TEXTS), None, 3], pa.int8())
    window = window_of(pa.DictionaryArray.from_arrays(codes, pa.array(texts)))
    found = read(window, None, Reading(target_template="{city}.tar.gz"))
    named = [found.named(int(code)).target for code in found.codes]
    assert named == [*(f"{text}.tar.gz" for text in texts), None, "3.tar.gz"]


def test_a_segment_has_its_code_in_every_window() -> None:
    met, asked = Met(), Reading(target_template="{city}.tar.gz")
    first = segments_of(window_of(pa.array(["a", None, "b", "a"])), None, asked, met)
    second = segments_of(window_of(pa.array(["c", "b", "a", None])), None, asked, met)
    assert [first.values[code] for code in first.codes.tolist()] == [("a",), (None,), ("b",), ("a",)]
    assert second.codes.tolist()[1:] == [first.codes[2], first.codes[0], first.codes[1]]
