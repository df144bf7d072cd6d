"""What things are called: by their content where AWS never lets them change, so that one file always means the same things.

Rule: a name says whose it is and, where it ends in a digest, that what it names is exactly that. Counts are not content: they
change in place.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

Json = dict[str, Any]

DEPLOYMENT = "mme.deployment"  # the tag that says whose something is
ASKED, BEFORE = (
    "mme.asked",
    "mme.before",
)  # tags of an endpoint: the config last asked for, and the one that was there then
BOUNDS = "mme.bounds"  # tag of an endpoint: the scaling bounds last asked for, as `1-4`, and those before
VARIANT = "AllTraffic"  # a new config must have the same variants, so there is one name for ever
N_DIGITS = 10


def digest(content: Json) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:N_DIGITS]


def named(name: str, content: Json) -> str:
    return f"{name}-{digest(content)}"


def is_named(name: str, of: str) -> bool:
    """`of` is a name that `named` gave to something of that deployment. `prices-eu-0123456789` is not of `prices`."""
    head, _, tail = of.rpartition("-")
    return head == name and len(tail) == N_DIGITS and set(tail) <= set("0123456789abcdef")


def alarm_prefix(name: str) -> str:
    return f"mme/{name}/"


def policy_prefix(name: str) -> str:
    return f"mme-{name}-"


def tag_list(tags: dict[str, str]) -> list[Json]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
