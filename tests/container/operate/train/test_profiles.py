"""Profiles of many segments, written one by one and read back."""

from __future__ import annotations

import io

import numpy as np

from container.operate.train import profiles
from container.operate.train.profiles import Profile, Profiles


def one_of(number: int) -> Profile:
    draw = np.random.default_rng(number)
    return Profile(draw.random((3, 9), np.float32), draw.random((3, 11), np.float32))


def written(names: tuple[str, ...], of_keys: dict[str, Profile]) -> bytes:
    made = io.BytesIO()
    profiles.write(made, names, sorted(of_keys.items()))
    return made.getvalue()


def test_each_is_found_again_by_its_key() -> None:
    of_keys = {key: one_of(number) for number, key in enumerate("zamb")}
    again = Profiles.from_bytes(written(("a", "b", "c"), of_keys), "x")
    assert again.get("nobody") is None
    for key, expected in of_keys.items():
        found = again.get(key)
        assert found is not None
        np.testing.assert_array_equal(found.edges, expected.edges)
        np.testing.assert_array_equal(found.shares, expected.shares)


def test_the_file_is_what_numpy_writes_of_arrays_stacked_by_sorted_key() -> None:
    of_keys = {key: one_of(number) for number, key in enumerate(["z", "ä", "m"])}
    stacked = [of_keys[key] for key in sorted(of_keys)]
    whole = io.BytesIO()
    np.savez_compressed(
        whole,
        keys=np.array(sorted(of_keys), np.str_),
        names=np.array(("a", "b", "c"), np.str_),
        edges=np.array([one.edges for one in stacked]),
        shares=np.array([one.shares for one in stacked]),
    )
    assert written(("a", "b", "c"), of_keys) == whole.getvalue()


def test_there_may_be_none() -> None:
    again = Profiles.from_bytes(written((), {}), "x")
    assert again.get("a") is None
