from __future__ import annotations

import pytest

from container.platform.jobs.channels import place, share


@pytest.mark.parametrize(
    ("key", "prefix", "path"),
    [
        ("p/a/b.csv", "p/", "a/b.csv"),
        ("p/a/b.csv", "p", "a/b.csv"),
        ("p/a/b.csv", "", "p/a/b.csv"),
        ("p/a/b.csv", "p/a/b.csv", "b.csv"),
        ("p/a/b.csv", "p/a/b", "b.csv"),
        ("p/day=1/b.csv", "p/da", "day=1/b.csv"),
    ],
)
def test_a_file_lies_where_its_key_goes_on_after_the_prefix(key: str, prefix: str, path: str) -> None:
    assert place(key, prefix) == path


def test_each_object_is_of_one_host() -> None:
    objects = list(range(7))
    shares = [share(objects, at, 3) for at in range(3)]  # type: ignore[arg-type]
    assert sorted(one for mine in shares for one in mine) == objects
    assert {len(one) for one in shares} == {2, 3}
