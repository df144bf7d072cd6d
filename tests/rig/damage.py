"""Bytes that were right once, changed as disks, half writes and attackers change them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

_VALUES = st.sampled_from([None, True, -1, 1.5, 10**30, "", "x", [], {}, [[]], {"format": 1}])


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """Of any document: cut, with bytes put in or changed."""
    at = st.integers(0, max(0, len(whole) - 1))
    return st.one_of(
        at.map(lambda end: whole[:end]),
        st.tuples(at, st.binary(min_size=1, max_size=4)).map(lambda one: whole[: one[0]] + one[1] + whole[one[0] :]),
        st.tuples(at, st.binary(min_size=1, max_size=4)).map(
            lambda one: whole[: one[0]] + one[1] + whole[one[0] + len(one[1]) :]
        ),
        st.binary(max_size=64),
    )


def retyped(whole: bytes) -> st.SearchStrategy[bytes]:
    """Of a JSON document: one value, anywhere in it, is another or missing."""
    value = json.loads(whole)
    places = list(_places(value))
    return st.tuples(st.sampled_from(places), st.one_of(_VALUES, st.just(...))).map(
        lambda one: json.dumps(_changed(value, one[0], one[1])).encode()
    )


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    for name, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(one, (*path, name))


def _changed(value: Any, path: tuple[Any, ...], into: Any) -> Any:
    if not path:
        return None if into is ... else into
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and into is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = _changed(value[path[0]], path[1:], into)
    return copy
