"""Profiles of many segments, end to end in two arrays."""

from __future__ import annotations

import io

import numpy as np

from container.operate.train.profiles import Profile, Profiles


def one_of(number: int) -> Profile:
    draw = np.random.default_rng(number)
    return Profile(draw.random((3, 9), np.float32), draw.random((3, 11), np.float32))


def test_each_is_found_again_by_its_key_and_the_last_of_a_key_holds() -> None:
    made = Profiles(("a", "b", "c"))
    for key, number in (("z", 0), ("a", 1), ("m", 2), ("a", 3), ("b", 4)):
        made.add(key, one_of(number))
        assert made.get("nobody") is None
    for one in (made, Profiles.from_bytes(made.to_bytes(), "x")):
        for key, number in (("z", 0), ("m", 2), ("a", 3), ("b", 4)):
            found = one.get(key)
            assert found is not None
            np.testing.assert_array_equal(found.edges, one_of(number).edges)
            np.testing.assert_array_equal(found.shares, one_of(number).shares)


def test_the_file_is_what_arrays_stacked_by_sorted_key_give() -> None:
    keys = ["z", "a", "m"]
    made = Profiles(("a", "b", "c"))
    for number, key in enumerate(keys):
        made.add(key, one_of(number))
    stacked = [one_of(keys.index(key)) for key in sorted(keys)]
    with np.load(io.BytesIO(made.to_bytes()), allow_pickle=False) as found:
        assert found["keys"].tolist() == sorted(keys)
        assert found["names"].tolist() == ["a", "b", "c"]
        for name in ("edges", "shares"):
            whole = np.array([getattr(one, name) for one in stacked], np.float32)
            assert (found[name].dtype, found[name].shape) == (whole.dtype, whole.shape)
            assert found[name].tobytes() == whole.tobytes()


def test_there_may_be_none() -> None:
    again = Profiles.from_bytes(Profiles(()).to_bytes(), "x")
    assert again.get("a") is None
