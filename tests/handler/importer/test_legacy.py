from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import import_booster, legacy
from handler.importer.broken import Damaged

FILE = "xgboost-1.7.6/squarederror.deprecated"
PARAMS = 4 + 136  # binf and LearnerModelParam
GBTREE = PARAMS + 8 + len("reg:squarederror") + 8 + len("gbtree")
TREE = GBTREE + 160


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def test_a_file_without_its_header_is_the_same_booster(stock):
    whole = stock.files[FILE]
    assert whole[:4] == b"binf"
    assert import_booster(whole[4:], "x").document == import_booster(whole, "x").document


def test_base64_files_are_refused():
    with pytest.raises(ArtifactRefused, match="base64"):
        import_booster(b"bs64\t" + b"A" * 400, "x")


@pytest.mark.parametrize("claim", [-1, 0x7FFFFFFF, -(1 << 31), 10_000])
def test_a_tree_count_past_the_end_is_damage(stock, claim):
    with pytest.raises(ArtifactBroken, match="trees"):
        import_booster(changed(stock.files[FILE], GBTREE, struct.pack("<i", claim)), "x")


@pytest.mark.parametrize("claim", [0, -1, 0x7FFFFFFF, 1 << 20])
def test_a_node_count_past_the_end_is_damage(stock, claim):
    with pytest.raises(ArtifactBroken, match="nodes"):
        import_booster(changed(stock.files[FILE], TREE + 4, struct.pack("<i", claim)), "x")


@pytest.mark.parametrize("claim", [1 << 60, (1 << 64) - 1, 1 << 31])
def test_a_string_past_the_end_is_damage(stock, claim):
    with pytest.raises(Damaged):
        legacy.read(changed(stock.files[FILE], PARAMS, struct.pack("<Q", claim)))


def test_a_release_that_never_wrote_the_format_is_refused(stock):
    with pytest.raises(ArtifactRefused, match=r"XGBoost 9\.7"):
        import_booster(changed(stock.files[FILE], 4 + 20, struct.pack("<I", 9)), "x")


def test_trees_with_several_roots_are_refused(stock):
    with pytest.raises(ArtifactRefused, match="roots"):
        import_booster(changed(stock.files[FILE], TREE, struct.pack("<i", 2)), "x")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_base_score_that_is_no_number_is_damage(stock, bad):
    with pytest.raises(ArtifactBroken, match="base_score"):
        import_booster(changed(stock.files[FILE], 4, struct.pack("<f", bad)), "x")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_are_a_booster_or_one_of_two_errors(stock, data):
    for name in (FILE, "xgboost-0.90/dart.bin", "xgboost-1.2.1/squarederror.pkl", "xgboost-0.90/gblinear.bin"):
        image = bytearray(stock.files[name])
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(image) - 4))
            image[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
        with contextlib.suppress(ArtifactBroken, ArtifactRefused):
            import_booster(bytes(image), "x")
