"""What a fleet's replicas say of themselves, asked of their admin ports, and what that makes together.

Rule: a replica that does not answer is told as such and keeps nobody waiting: all are asked at once, each for PATIENCE_S.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

PATIENCE_S = 3.0
PAGE_MODELS = 1_000  # the most that an admin port tells at once
MAX_PAGES = 20
_HIT, _EVICTIONS = "mme_model_cache_hit", "mme_evictions_total"


@dataclass(frozen=True, slots=True)
class Model:
    """One model in the memory of one replica."""

    name: str
    replica: str
    n_bytes: int
    hits: int
    age_s: float
    idle_s: float
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What one replica says.

    why        why no calls should be sent to it; empty when they should
    now        the last minute, as its own status page has it
    lookups, hits, evictions   since it started
    """

    name: str
    admin: str
    why: str
    now: Mapping[str, Any] = field(default_factory=dict)
    lookups: int = 0
    hits: int = 0
    evictions: int = 0
    models: tuple[Model, ...] = ()


class Asker:
    """Asks replicas, by name and the address of their admin port such as `http://127.0.0.1:8081`."""

    def __init__(self, admins: Mapping[str, str]) -> None:
        self._admins = dict(admins)
        self._pool = ThreadPoolExecutor(max(1, len(self._admins)), thread_name_prefix="ask")

    def ask(self) -> tuple[Told, ...]:
        return tuple(self._pool.map(_told, self._admins, self._admins.values()))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _told(name: str, admin: str) -> Told:
    try:
        health = _json(f"{admin}/readyz", wants_200=False)
        figures = _figures(_text(f"{admin}/metrics"))
        return Told(
            name,
            admin,
            "; ".join(health["reasons"]),
            _json(f"{admin}/status.json")["now"],
            figures.get(f"{_HIT}_count", 0),
            figures.get(f"{_HIT}_sum", 0),
            figures.get(_EVICTIONS, 0),
            tuple(_models(name, admin)),
        )
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        return Told(name, admin, f"nobody answers ({error})")


def _models(name: str, admin: str) -> Iterator[Model]:
    offset: int | None = 0
    for _ in range(MAX_PAGES):
        page = _json(f"{admin}/models?sort=hits&limit={PAGE_MODELS}&offset={offset}")
        for one in page["models"]:
            yield Model(
                one["name"], name, one["n_bytes"], one["hits"], one["age_s"], one["idle_s"], one.get("is_pinned", False)
            )
        offset = page["next_offset"]
        if offset is None:
            return


def _json(url: str, *, wants_200: bool = True) -> Any:
    return json.loads(_text(url, wants_200=wants_200))


def _text(url: str, *, wants_200: bool = True) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url} is no http address")
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310  http and https only, see above
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        if wants_200:
            raise
        return error.read().decode()


def _figures(text: str) -> dict[str, int]:
    """Of Prometheus's text the series that are looked at here, without their labels."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in (f"{_HIT}_count", f"{_HIT}_sum", _EVICTIONS):
            found[name] = int(float(line.rpartition(" ")[2]))
    return found


@dataclass(frozen=True, slots=True)
class Together:
    """What a fleet is.

    hit_ratio       of the last minute, by how much each replica was asked; None when nobody was
    n_models        different models in memory
    n_copies        models in memory, each counted as often as it is held
    """

    requests_per_s: float
    hit_ratio: float | None
    hit_ratio_ever: float | None
    evictions: int
    n_models: int
    n_copies: int
    loaded_bytes: int
    budget_bytes: int


def together(told: Sequence[Told]) -> Together:
    asked = [(one.now["requests_per_s"], one.now["hit_ratio"]) for one in told if one.now.get("hit_ratio") is not None]
    requests = sum(per_s for per_s, _ in asked)
    lookups = sum(one.lookups for one in told)
    return Together(
        requests_per_s=round(sum(one.now.get("requests_per_s", 0.0) for one in told), 2),
        hit_ratio=round(sum(per_s * ratio for per_s, ratio in asked) / requests, 4) if requests else None,
        hit_ratio_ever=round(sum(one.hits for one in told) / lookups, 4) if lookups else None,
        evictions=sum(one.evictions for one in told),
        n_models=len({model.name for one in told for model in one.models}),
        n_copies=sum(len(one.models) for one in told),
        loaded_bytes=sum(one.now.get("loaded_bytes", 0) for one in told),
        budget_bytes=sum(one.now.get("budget_bytes", 0) for one in told),
    )


def merged_models(told: Sequence[Told]) -> list[dict[str, Any]]:
    """Each model once, busiest first, with the replicas that hold it: bytes and hits of all copies together."""
    found: dict[str, dict[str, Any]] = {}
    for one in told:
        for model in one.models:
            row = found.setdefault(
                model.name,
                {"name": model.name, "n_bytes": 0, "hits": 0, "age_s": model.age_s, "idle_s": model.idle_s,
                 "is_pinned": False, "replicas": []},
            )  # fmt: skip
            row["n_bytes"] += model.n_bytes
            row["hits"] += model.hits
            row["age_s"] = max(row["age_s"], model.age_s)
            row["idle_s"] = min(row["idle_s"], model.idle_s)
            row["is_pinned"] = row["is_pinned"] or model.is_pinned
            row["replicas"].append(model.replica)
    return sorted(found.values(), key=lambda row: (-row["hits"], row["name"]))
