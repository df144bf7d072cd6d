"""What the values of a segment's features look like, and how far they have moved since the release that is live.

    profiles/ID.npz     beside the release's manifest: of each segment and feature, where tenths of the rows end, and what
                        share of the rows each tenth has now; missing values are a share of their own

Rule: it is the population stability index over tenths of what the live release was trained on: below 0.1 nothing has
happened, from 0.25 on the segment's world is another one.

Source: Siddiqi, Credit Risk Scorecards, 2006, for the index and both marks.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from container.operate.release.shelf import PROFILES
from container.operate.train.rows import Columns, SegmentRows
from container.operate.troubles import Refused
from handler.errors import ArtifactMissing
from handler.payload.rows import Floats
from handler.stores.writing import NOTHING, WritingStore

N_PARTS = 10
# Of a share that is nothing: the index would be infinite for one row where there was none.
_LEAST = 1e-3
# Words are told apart up to so many; the others are together.
_N_WORDS = N_PARTS - 1


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """One segment's. edges: (n_features, 9), where a tenth ends. shares: (n_features, 11), the last of missing values."""

    edges: Floats
    shares: Floats

    @classmethod
    def of(cls, edges: Any, shares: Any) -> Profile:
        """Out of what was read back. Raises ValueError where that is none."""
        made = cls(np.asarray(edges, np.float32), np.asarray(shares, np.float32))
        n_features = len(made.edges)
        if made.edges.shape != (n_features, N_PARTS - 1) or made.shares.shape != (n_features, N_PARTS + 1):
            raise ValueError("it is no profile of so many features")
        return made


@dataclass(frozen=True, slots=True)
class Drift:
    """The feature that has moved most."""

    feature: str
    index: float


def profile_of(rows: SegmentRows, columns: Columns) -> Profile:
    n_features = rows.features.shape[1]
    edges = np.zeros((n_features, N_PARTS - 1), np.float32)
    shares = np.zeros((n_features, N_PARTS + 1), np.float32)
    for feature in range(n_features):
        values = _sorted(rows.features[:, feature])
        if feature in columns.categories:
            edges[feature] = np.arange(_N_WORDS)
        elif len(values):
            edges[feature] = values[np.arange(1, N_PARTS) * len(values) // N_PARTS]
        shares[feature] = _shares(values, edges[feature], len(rows.features))
    return Profile(edges, shares)


def drift_of(rows: SegmentRows, columns: Columns, before: Profile, places: Mapping[int, int]) -> Drift | None:
    """places: by feature, where it is in the profile before. None where there is none of them."""
    worst: Drift | None = None
    for feature, place in places.items():
        index = index_of(rows.features[:, feature], before, place)
        if worst is None or index > worst.index:
            name = columns.names[feature] if columns.names else f"f{feature}"
            worst = Drift(name, round(index, 4))
    return worst


def index_of(values: Floats, before: Profile, place: int) -> float:
    """How far one feature's values, missing ones among them, have moved from where it was in a profile."""
    shares = np.maximum(_shares(_sorted(values), before.edges[place], len(values)), _LEAST)
    were = np.maximum(before.shares[place], _LEAST)
    return float(np.sum((shares - were) * np.log(shares / were)))


def _sorted(values: Floats) -> Floats:
    """Without what is missing."""
    in_order = np.sort(values)  # NaN comes last
    return in_order[: int(np.searchsorted(in_order, np.nan))]


def _shares(values: Floats, edges: Floats, n_rows: int) -> NDArray[np.float64]:
    up_to = np.searchsorted(values, edges, side="right")
    counts = np.diff(np.concatenate(([0], up_to, [len(values), n_rows])))
    shares: NDArray[np.float64] = counts / max(1, n_rows)
    return shares


class Profiles:
    """Those of a release, end to end: an object for each takes more than what is in it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._n_features = 0
        self._at: dict[str, int] = {}
        self._edges = bytearray()
        self._shares = bytearray()

    def add(self, key: str, profile: Profile) -> None:
        """Raises Refused where it has other features than those before."""
        if not self._at:
            self._n_features = len(profile.edges)
        elif len(profile.edges) != self._n_features:
            raise Refused(f"the profile of {key} is of {len(profile.edges)} features, others of {self._n_features}")
        at = self._at.setdefault(key, len(self._at))
        for held, values in ((self._edges, profile.edges), (self._shares, profile.shares)):
            data = values.tobytes()
            held[at * len(data) : (at + 1) * len(data)] = data

    def get(self, key: str) -> Profile | None:
        at = self._at.get(key)
        if at is None:
            return None
        return Profile(*(one[at].copy() for one in self._arrays()))  # a view would keep others from being added

    def _arrays(self) -> tuple[Floats, Floats]:
        """Edges and shares of all, as they were added."""
        shape = (len(self._at), self._n_features)
        return (
            np.frombuffer(self._edges, np.float32).reshape(*shape, N_PARTS - 1),
            np.frombuffer(self._shares, np.float32).reshape(*shape, N_PARTS + 1),
        )

    def places(self, columns: Columns) -> dict[int, int]:
        """By feature of some columns, its place here: by name, or by number where there are no names."""
        if not columns.names:
            return {at: at for at in range(columns.n_features)} if self._n_features == columns.n_features else {}
        at = {name: number for number, name in enumerate(self.names)}
        return {number: at[name] for number, name in enumerate(columns.names) if name in at}

    def to_bytes(self) -> bytes:
        keys = sorted(self._at)
        in_order = [self._at[key] for key in keys]
        edges, shares = self._arrays()
        out = io.BytesIO()
        np.savez_compressed(
            out,
            keys=np.array(keys, np.str_),
            names=np.array(self.names, np.str_),
            edges=edges[in_order],
            shares=shares[in_order],
        )
        return out.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, uri: str) -> Profiles:
        """Raises Refused."""
        try:
            return cls._unpacked(data)
        except Exception as error:  # NumPy and zipfile have a dozen ways to say what they cannot read
            raise Refused(f"{uri} is not as it was written: {error}") from error

    @classmethod
    def _unpacked(cls, data: bytes) -> Profiles:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            keys, names, edges, shares = (found[name] for name in ("keys", "names", "edges", "shares"))
        made = cls(tuple(map(str, names.tolist())))
        for at, key in enumerate(keys.tolist()):
            made.add(str(key), Profile.of(edges[at], shares[at]))
        if made.names and made._at and made._n_features != len(made.names):
            raise ValueError("it names other features than it has")
        return made


def place_of(release: str) -> str:
    return f"{PROFILES}{release}.npz"


def read(shelf: WritingStore, release: str) -> Profiles | None:
    """Raises Refused for one that is damaged."""
    try:
        fetched = shelf.fetch(place_of(release))
    except ArtifactMissing:
        return None
    return Profiles.from_bytes(fetched.data, fetched.uri)


def put(shelf: WritingStore, release: str, profiles: Profiles) -> None:
    shelf.put(place_of(release), profiles.to_bytes(), NOTHING)
