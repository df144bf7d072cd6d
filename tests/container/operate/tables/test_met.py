"""Segments by their codes: the same in every window of a run, however its columns are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container.operate.tables.files import DataFile
from container.operate.tables.reading import Reading
from container.operate.tables.segments import Met, segments_of
from container.operate.tables.windows import Window

pa = pytest.importorskip("pyarrow")

FILE = DataFile("a.parquet", 1, "v", str(Path("/")), "parquet")


def said(column: Any, met: Met, template: str = "{s}") -> list[tuple[str | None, ...]]:
    """What each row's code says."""
    table = pa.table({"s": column, "t": column})
    window = Window(table, np.arange(len(table)), is_named=True, is_typed=True)
    segments = segments_of(window, FILE, Reading(target_template=template), met)
    return [segments.values[code] for code in segments.codes.tolist()]


def coded(words: list[str], codes: list[int | None]) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(words))


def test_each_chunk_may_have_a_dictionary_of_its_own_and_words_that_no_row_says() -> None:
    column = pa.chunked_array([coded(["a", "b"], [1, 0, None]), coded(["c", "b"], [1, 1])])
    met = Met()
    assert said(column, met) == [("b",), ("a",), (None,), ("b",), ("b",)]
    assert said(pa.chunked_array([coded(["d", "b"], [0, 1])]), met) == [("d",), ("b",)]


def test_a_segment_has_one_code_whether_its_column_is_text_or_numbers() -> None:
    met = Met()
    assert said(pa.chunked_array([["7", None, "8"]]), met) == [("7",), (None,), ("8",)]
    n_met = len(met.values)
    assert said(pa.chunked_array([[7.0, None, 8.0]]), met) == [("7",), (None,), ("8",)]
    assert said(pa.chunked_array([["8", "7"]], pa.large_string()), met) == [("8",), ("7",)]
    assert len(met.values) == n_met


def test_several_columns_say_a_segment_together_and_no_rows_say_none() -> None:
    met = Met()
    assert said(pa.chunked_array([["x", "y"], ["x"]]), met, "{s}/{t}") == [("x", "x"), ("y", "y"), ("x", "x")]
    assert said(pa.chunked_array([], pa.string()), met) == []
    assert said(pa.chunked_array([], pa.dictionary(pa.int32(), pa.string())), met) == []


def test_a_dictionary_of_more_words_than_its_own_kind_of_codes_has_room_for_one_more() -> None:
    words = [f"w{at}" for at in range(128)]
    column = pa.chunked_array([coded(words, [127, None])])
    assert said(column, Met()) == [("w127",), (None,)]
