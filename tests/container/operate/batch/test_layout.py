"""Columns of answers: what a cell may be, and that it comes back to its row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from container.operate.batch.layout import layout_of
from container.operate.batch.scoring import _Gathered
from handler.payload import Predictions

pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (np.array([0.1, 0.2, 0.3], np.float32), "float"),
        (np.array([0.1, 0.2, 0.3]), "double"),
        (np.array([3, 1, 2]), "int64"),
        (np.array([True, False, True]), "bool"),
        (np.array(["no", "yes", "no"]), "string"),
        (np.array([["no", "yes"]] * 3), "list<item: string>"),
        (np.arange(6, dtype=np.float32).reshape(3, 2), "list<item: float>"),
        (np.arange(12, dtype=np.float32).reshape(3, 2, 2), "list<item: list<item: float>>"),
    ],
)
def test_answers_come_back_to_their_rows_as_what_they_are(array: np.ndarray[Any, Any], kind: str) -> None:
    (column,) = layout_of(Predictions({"output": array}))
    assert str(column.type) == kind
    assert column.fits(array)
    order = np.array([2, 0, 3, 1])  # the row in the last place but one has no answer
    gathered = _Gathered(column, 4)
    gathered.put(slice(0, 2), array[:2])
    gathered.put(np.array([3]), array[2:])
    scattered = gathered.scattered(order, 4)
    assert str(scattered.type) == kind
    assert scattered.to_pylist() == [array[1].tolist(), array[2].tolist(), array[0].tolist(), None]


def test_numbers_do_not_fit_where_words_are_and_words_not_where_numbers_are() -> None:
    (words,) = layout_of(Predictions({"label": np.array(["a"])}))
    (numbers,) = layout_of(Predictions({"label": np.array([1])}))
    assert not words.fits(np.array([1]))
    assert not numbers.fits(np.array(["a"]))
    assert not numbers.fits(np.array([[1]]))


@pytest.mark.parametrize(
    ("borders", "answered"),
    [([0, 3, 3, 4], [True] * 4), ([3, 4, 0, 1], [True, False, False, True]), ([], [False] * 4)],
)
def test_groups_that_one_call_scores_answer_their_rows_alone(borders: list[int], answered: list[bool]) -> None:
    (column,) = layout_of(Predictions({"output": np.zeros(1, np.float32)}))
    gathered = _Gathered(column, 4)
    gathered.together(borders)[:] = [1, 2, 3, 4]
    order = np.array([2, 0, 3, 1])
    wanted = [None] * 5  # a row in no group has no answer either
    for place, number, is_answered in zip(order.tolist(), [1, 2, 3, 4], answered, strict=True):
        wanted[place] = number if is_answered else None
    assert gathered.scattered(order, 5).to_pylist() == wanted
    assert gathered.scattered(order, 4).to_pylist() == wanted[:4]
