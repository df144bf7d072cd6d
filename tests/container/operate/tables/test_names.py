"""Names with numbers, held against a dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pa = pytest.importorskip("pyarrow")

from container.operate.tables.names import NOBODY, Names  # noqa: E402  needs pyarrow

TEXTS = st.lists(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=8), max_size=6)


@settings(max_examples=100, deadline=None)
@given(windows=TEXTS)
def test_a_name_keeps_the_number_it_got_first_and_is_found_by_it_and_in_order(windows: list[list[str]]) -> None:
    names, numbers = Names(), dict[str, int]()
    for window in windows:
        expected = [numbers.setdefault(one, len(numbers)) for one in window]
        assert names.number(window).tolist() == expected
    assert list(names) == list(numbers)
    assert [names.find(one) for one in numbers] == list(numbers.values())
    assert [names[int(at)] for at in names.in_order()] == sorted(numbers)
    assert ["\x00nobody" in names, None in names, names.find("\x00nobody")] == [False, False, NOBODY]
    asked = pa.array([*numbers, None, "\x00nobody"], pa.string())
    assert names.known(asked).tolist() == [*numbers.values(), NOBODY, NOBODY]
