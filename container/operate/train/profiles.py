"""What the values of a segment's features look like, and how far they have moved since the release that is live.

    profiles/ID.npz     beside the release's manifest: of each segment and feature, where tenths of the rows end, and what
                        share of the rows each tenth has now; missing values are a share of their own

Rule: it is the population stability index over tenths of what the live release was trained on: below 0.1 nothing has
happened, from 0.25 on the segment's world is another one.

Source: Siddiqi, Credit Risk Scorecards, 2006, for the index and both marks.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from container.operate.release.shelf import PROFILES
from container.operate.tables.names import NOBODY, Names
from container.operate.tables.pages import Pages
from container.operate.tables.spill import scratch_file
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
    """Those of a release, to be asked for one by one: what they are lies on disk meanwhile."""

    def __init__(self, keys: Sequence[str], names: tuple[str, ...], edges: Floats, shares: Floats) -> None:
        """Raises ValueError where these are no profiles of so many segments and features."""
        self.names = names
        self._keys = Names(keys)
        self._n_features = edges.shape[1]
        if names and len(keys) and self._n_features != len(names):
            raise ValueError("it names other features than it has")
        if len(self._keys) != len(keys) or not len(keys) == len(edges) == len(shares):
            raise ValueError("it is not of so many segments")
        shapes = (N_PARTS - 1, N_PARTS + 1)
        for values, n_parts in zip((edges, shares), shapes, strict=True):
            if values.shape[1:] != (self._n_features, n_parts) or values.dtype != np.float32:
                raise ValueError("it is no profile of so many features")
        self._pages = Pages()
        self._starts = [self._pages.add(np.ascontiguousarray(one).data) for one in (edges, shares) if one.size]

    def get(self, key: str) -> Profile | None:
        number = self._keys.find(key)
        if number == NOBODY:
            return None
        read = []
        for start, n_parts in zip(self._starts, (N_PARTS - 1, N_PARTS + 1), strict=True):
            n_bytes = 4 * self._n_features * n_parts
            data = self._pages.get(start + number * n_bytes, n_bytes)
            read.append(np.frombuffer(data, np.float32).reshape(self._n_features, n_parts))
        return Profile(*read)

    def places(self, columns: Columns) -> dict[int, int]:
        """By feature of some columns, its place here: by name, or by number where there are no names."""
        if not columns.names:
            return {at: at for at in range(columns.n_features)} if self._n_features == columns.n_features else {}
        at = {name: number for number, name in enumerate(self.names)}
        return {number: at[name] for number, name in enumerate(columns.names) if name in at}

    @classmethod
    def from_bytes(cls, data: bytes, uri: str) -> Profiles:
        """Raises Refused."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                keys, names = (found[name].tolist() for name in ("keys", "names"))
                return cls(list(map(str, keys)), tuple(map(str, names)), found["edges"], found["shares"])
        except Exception as error:  # NumPy and zipfile have a dozen ways to say what they cannot read
            raise Refused(f"{uri} is not as it was written: {error}") from error


def write(out: IO[bytes], names: tuple[str, ...], of_keys: Iterable[tuple[str, Profile]]) -> None:
    """The file of a release, as `numpy.savez_compressed` would write it of whole arrays. of_keys: in order. Raises Refused
    where one has other features than those before, NotNow where the disk is full."""
    keys: list[str] = []
    n_features = 0
    with scratch_file() as edges, scratch_file() as shares:
        for key, profile in of_keys:
            if keys and len(profile.edges) != n_features:
                raise Refused(f"the profile of {key} is of {len(profile.edges)} features, others of {n_features}")
            n_features = len(profile.edges)
            keys.append(key)
            edges.write(profile.edges.astype(np.float32, copy=False).tobytes())
            shares.write(profile.shares.astype(np.float32, copy=False).tobytes())
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, texts in (("keys", keys), ("names", names)):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.array(texts, np.str_), allow_pickle=False)
            for name, values, n_parts in (("edges", edges, N_PARTS - 1), ("shares", shares, N_PARTS + 1)):
                shape = (len(keys), n_features, n_parts)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    facts = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(member, facts)
                    values.seek(0)
                    shutil.copyfileobj(values, member)


def place_of(release: str) -> str:
    return f"{PROFILES}{release}.npz"


def read(shelf: WritingStore, release: str) -> Profiles | None:
    """Raises Refused for one that is damaged."""
    try:
        fetched = shelf.fetch(place_of(release))
    except ArtifactMissing:
        return None
    return Profiles.from_bytes(fetched.data, fetched.uri)


def put(shelf: WritingStore, release: str, names: tuple[str, ...], of_keys: Iterable[tuple[str, Profile]]) -> None:
    with scratch_file() as file:
        write(file, names, of_keys)
        shelf.put(place_of(release), file, NOTHING)
