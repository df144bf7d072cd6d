import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.forest import groups
from handler.forest.groups import in_groups


@given(st.lists(st.integers(0, 9), max_size=60), st.booleans())
def test_rows_come_group_by_group_and_in_a_group_as_they_came(codes: list[int], is_compiled: bool) -> None:
    with pytest.MonkeyPatch.context() as patched:
        if not is_compiled:
            patched.setattr(groups, "letting_go", None)
        order, ends = in_groups(np.array(codes, np.int32), 10)
    assert order.tolist() == sorted(range(len(codes)), key=codes.__getitem__)
    assert ends.tolist() == [sum(code <= group for code in codes) for group in range(10)]


@pytest.mark.parametrize("code", [-1, 3])
def test_a_number_that_is_no_groups_is_told(code: int) -> None:
    with pytest.raises(AssertionError, match="no group"):
        in_groups(np.array([0, code, 2], np.int32), 3)


def test_there_may_be_more_groups_than_16_bits_number() -> None:
    codes = np.random.default_rng(0).permutation(70_000)
    order, ends = in_groups(codes, 70_000)
    assert (codes[order] == np.arange(70_000)).all()
    assert (ends == np.arange(1, 70_001)).all()
