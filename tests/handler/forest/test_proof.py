"""The walker is asked before it is trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handler import compiled
from handler.forest import walker
from handler.forest.packed import TRANSFORMS
from handler.forest.proof import agrees, sample, walker_agrees

pytestmark = pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")


def test_this_walker_agrees_with_this_libxgboost() -> None:
    assert walker_agrees()


@pytest.mark.parametrize("objective", TRANSFORMS)
@pytest.mark.parametrize("booster", ["gbtree", "dart"])
def test_every_objective_is_transformed_as_libxgboost_does(objective: str, booster: str) -> None:
    assert agrees(sample(objective, booster))


def test_a_walker_that_is_off_by_one_bit_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    right = walker.predict

    def wrong(*arguments: Any, **options: Any) -> np.ndarray[Any, Any]:
        scores = right(*arguments, **options)
        scores[-1] = np.nextafter(scores[-1], np.float32(np.inf))
        return scores

    monkeypatch.setattr(walker, "predict", wrong)
    assert not walker_agrees()


def test_exponentials_and_logarithms_are_this_machines_libm() -> None:
    """zig's own library has both and rounds otherwise; whatever brings it along brings them."""
    names = compiled.LIBRARY.read_bytes().split(b"\0")
    assert {b"expf", b"logf"} <= set(names)  # symbols it asks others for: it is stripped, so its own have no names
