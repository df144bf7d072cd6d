from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import foreign, import_booster

BEGINNINGS = (
    b"",
    b"{",
    b"[",
    b"\0\0\0\2",
    b"\0\0\0",
    b"\x08\x08\x12",
    b"\x04\0\0\0\x08\0\0\0\x01\0\0\0",
    b"tree\n",
    b"<",
)


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=40))
def test_any_bytes_are_something_or_nothing(beginning: bytes, rest: bytes) -> None:
    what = foreign.named(beginning + rest)
    assert what is None or (what.isprintable() and len(what) < 250)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"tree\nversion=v3\n", "LightGBM"),
        (b'\n{"name":"tree","num_tree_per_iteration":1}', "LightGBM"),
        (b"CBM1" + bytes(20), "CatBoost"),
        (b"booster[0]:\n0:leaf=1", "a dump for people"),
        (b'[\n  { "nodeid": 0, "leaf": 1 }\n]', "a dump for people"),
        (b'<PMML version="4.4">', "PMML"),
        (b"\x93NUMPY\x01\0", "an array"),
        (b"\x78\x9c" + bytes(20), "joblib"),
    ],
)
def test_what_is_no_booster_is_refused_by_its_name(data: bytes, what: str) -> None:
    with pytest.raises(ArtifactRefused, match=what):
        import_booster(data, "x")


@pytest.mark.parametrize("cut", [40, 400, -2])
@pytest.mark.parametrize("suffix", [".deprecated", ".json", ".ubj"])
def test_a_damaged_booster_is_called_damaged_and_nothing_else(cut: int, suffix: str, stock) -> None:  # type: ignore[no-untyped-def]
    for release in ("1.7.6", "3.0.5"):
        with pytest.raises(ArtifactBroken):
            import_booster(stock.files[f"xgboost-{release}/squarederror{suffix}"][:cut], "x")
