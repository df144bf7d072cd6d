from __future__ import annotations

import contextlib
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.importer import json_text
from handler.importer.broken import Damaged


def test_numbers_json_does_not_know_are_read_as_xgboost_writes_them():
    nan, high, low = json_text.read(b"[NaN, Infinity, -Infinity]")
    assert math.isnan(nan)
    assert (high, low) == (math.inf, -math.inf)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"b":'])
def test_a_million_levels_are_refused_not_recursed_into(opening):
    with pytest.raises(Damaged, match=r"deeper|more objects"):
        json_text.read(opening * 1_000_000)
    with pytest.raises(Damaged, match=r"deeper|more objects"):
        json_text.read(b"[NaN," + opening * 1_000_000)


def test_brackets_in_strings_are_no_levels():
    assert json_text.read(b'{"a": "' + b"[" * 1000 + b'\\"{{{"}') == {"a": "[" * 1000 + '"{{{'}


def test_millions_of_empty_objects_are_refused_before_they_fill_memory():
    with pytest.raises(Damaged, match="more objects"):
        json_text.read(b"[" + b"{}," * 2_000_000 + b"{}]")


@pytest.mark.parametrize(
    "text", [b'"' + b'\\"' * 500_000, b'"' * 1_000_001, b"\\" * 1_000_000, b'"' + b"\\" * 1_000_001]
)
def test_unclosed_strings_and_backslashes_take_linear_time(text):
    begun = time.perf_counter()
    with pytest.raises(Damaged):
        json_text.read(text)
    assert time.perf_counter() - begun < 20


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='{}[]",:\\0123456789.eE-NaInfity truelsn', max_size=60))
def test_any_text_is_a_value_or_damage(text):
    with contextlib.suppress(Damaged):
        json_text.read(text.encode())
