"""Where captured calls lie, as SageMaker has it: `ENDPOINT/VARIANT/yyyy/mm/dd/hh/MM-SS-mmm-UUID.jsonl`.

Rule: a file's calls are all of the hour in its key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from handler.stores import Store
from handler.stores.store import StoredObject

SUFFIX = ".jsonl"
_ODD = re.compile(r"[^A-Za-z0-9._=-]")


def key(endpoint: str, variant: str, at_s: float, name: str) -> str:
    """name: what tells two files of one millisecond apart."""
    at = datetime.fromtimestamp(at_s, UTC)
    return (
        f"{_plain(endpoint)}/{_plain(variant)}/{at:%Y/%m/%d/%H}/{at:%M-%S}-{at.microsecond // 1000:03}-{name}{SUFFIX}"
    )


def files(store: Store, since: datetime | None = None) -> Iterator[StoredObject]:
    """Every file of captured calls below the store, of all endpoints and variants. since: no hour before it."""
    for one in store.list():
        if one.target.endswith(SUFFIX):
            hour = hour_of(one.target)
            if since is None or hour is None or hour + timedelta(hours=1) > since:
                yield one


def hour_of(target: str) -> datetime | None:
    """The hour whose calls a file holds; None where its key does not say."""
    try:
        return datetime(*map(int, target.split("/")[-5:-1]), tzinfo=UTC)  # type: ignore[arg-type,misc]
    except (ValueError, TypeError):
        return None


def _plain(name: str) -> str:
    return _ODD.sub("_", name).lstrip(".") or "_"
