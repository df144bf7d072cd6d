"""What a file is, told by its content.

Rule: names are hints for people, and so are first bytes: those of the binary format are a number, which may spell the
beginning of any other. What a file is, is decided by what reads it whole. A booster saved as `model.json` may be UBJSON,
and SageMaker's images write three formats under the one name `xgboost-model`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

Bytes = bytes | memoryview


class Format(Enum):
    UBJ = "ubj"
    JSON = "json"
    BINARY = "binary"  # the format before JSON, "deprecated" from 1.6, gone in 3.1
    SERIALIZED = "serialized"  # binary and configuration behind one header: what pickles of 1.0-1.5 hold
    PICKLE = "pickle"


@dataclass(frozen=True, slots=True)
class Finding:
    """`is_certain` when the content can only be a booster; a pickle or a JSON object may be anything."""

    format: Format
    is_certain: bool


SERIALIZED_HEADER = b"CONFIG-offset:"  # src/learner.cc, serialisation_header_
# The 136 bytes of LearnerModelParam, a length, and the objective's name, which every release spells with a colon.
BINARY_HEAD = re.compile(rb"(?:binf)?.{136}[\x01-\x40]\0{7}[a-z_]{2,12}:[a-z_0-9]{2,32}", re.DOTALL)
BINARY_HEAD_BYTES = 4 + 136 + 8 + 64
# Protocols 0 and 1 have no header; these are the ways Python's two picklers begin an object.
OLD_PICKLE = re.compile(rb"(?:c[a-zA-Z_][\w.]*\n[a-zA-Z_]\w*\n|\(?i[\w.]+\n|\(c|\]q|\}q|\(dp|\(lp|ccopy_reg|ccopyreg)")


def sniff(data: Bytes) -> Finding | None:
    """What the content most probably is, or None when it is nothing we know."""
    return next(candidates(data), None)


def candidates(data: Bytes) -> Iterator[Finding]:
    """What the content may be, the most probable first."""
    head = bytes(data[:BINARY_HEAD_BYTES])
    # An objective's name at its place, between lengths: no other format has that by chance. Before 1.0 nothing stands
    # before base_score, and 4 in 100 of those with two decimals begin like JSON, a pickle or gzip.
    is_binary = is_binary_booster(head)
    if is_binary:
        yield Finding(Format.BINARY, True)
    found = _by_first_bytes(data, head)
    if found is not None and not (is_binary and found.format is Format.BINARY):
        yield found


def is_binary_booster(data: Bytes) -> bool:
    """Whether it has the head of the binary format, whatever its first bytes spell."""
    return BINARY_HEAD.match(bytes(data[:BINARY_HEAD_BYTES])) is not None


def _by_first_bytes(data: Bytes, head: bytes) -> Finding | None:
    if head[:1] == b"{" and head[1:2] in (b"L", b"}", b"S", b"U", b"i", b"I", b"l"):
        return Finding(Format.UBJ, b"learner" in head or b"Model" in head)
    if head.lstrip()[:1] == b"{":
        return Finding(
            Format.JSON, _has(data, b'"learner"') and (_has(data, b'"tree_info"') or _has(data, b'"weights"'))
        )
    if head.startswith(SERIALIZED_HEADER):
        return Finding(Format.SERIALIZED, True)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Finding(Format.PICKLE, _has(data, b"xgboost"))
    if head[:4] in (b"binf", b"bs64"):
        return Finding(Format.BINARY, False)
    if OLD_PICKLE.match(head):
        return Finding(Format.PICKLE, _has(data, b"xgboost"))
    return None


def _has(data: Bytes, needle: bytes) -> bool:
    # A memoryview cannot search; one booster file is copied at most once here, and only for text and pickles.
    return needle in (data if isinstance(data, bytes) else bytes(data))
