"""An artifact's verdict as one file of the disk cache: how it is written, and what is believed of what is read.

    magic      16 bytes
    checksum   uint64, of what follows up to the head's text, then of that, then of each document
    counts     2 x uint64: bytes of the head's text, documents
    sizes      uint64 for each document
    head       JSON: whose it is, its version, the facts of each document
    documents

Rule: what is not as it was written is nothing. The checksum is there for disks that fail and writers that were killed, of
whose work it lets one in 2e19 pass. Whoever may write here could count any; it is the directory that nobody else may write
into, and each packed forest is looked at before it is walked.

Numbers lie in this machine's order, as in the documents themselves.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from handler.compiled import holding, kept, letting_go
from handler.predictor import Facts
from handler.typed_json import read_as

MAGIC = b"mme disk 3\n\0\0\0\0\0"
_FRONT = struct.Struct("=16sQQQ")
CHECKED_FROM = len(MAGIC) + 8
# Of bytes, from which on other threads may have the interpreter lock meanwhile: some 10 us.
_LONG = 1 << 17
_NS = 10**9
MOST_AT_ONCE = 64  # files that kept.c reads


@dataclass(frozen=True, slots=True)
class Kept:
    """One artifact's verdict.

    checked_s_ago  since the store last said that `version` is its newest
    walkable       a bit for each document that walk.c has found sound since it was read; of others it was not asked
    """

    version: str
    documents: tuple[bytes, ...]
    facts: tuple[Facts, ...]
    checked_s_ago: float
    walkable: int = 0


@dataclass(frozen=True, slots=True)
class _Head:
    identity: tuple[str, ...]
    version: str
    facts: tuple[Facts, ...]


_head = msgspec.json.Decoder(_Head)


def pieces_of(identity: Sequence[str], version: str, documents: Sequence[bytes], facts: Sequence[Facts]) -> list[bytes]:
    """A file, piece by piece."""
    head = json.dumps({"identity": identity, "version": version, "facts": [one.as_dict() for one in facts]}).encode()
    counts = struct.pack(f"={2 + len(documents)}Q", len(head), len(documents), *map(len, documents))
    return [MAGIC, checksum([counts, head, *documents]).to_bytes(8, sys.byteorder), counts, head, *documents]


def parsed(data: bytes, identity: Sequence[str], checked_s_ago: float) -> Kept | None:
    """A file's content, if it is sound and says that it is this artifact's."""
    if len(data) < _FRONT.size:
        return None
    magic, expected, n_head, n_documents = _FRONT.unpack_from(data)
    at = _FRONT.size + 8 * n_documents
    if magic != MAGIC or at > len(data):
        return None
    sizes = struct.unpack_from(f"={n_documents}Q", data, _FRONT.size)
    if at + n_head + sum(sizes) != len(data):
        return None
    texts = []
    for n_bytes in (n_head, *sizes):
        texts.append(data[at : at + n_bytes])
        at += n_bytes
    if checksum([data[CHECKED_FROM : _FRONT.size + 8 * n_documents], *texts]) != expected:
        return None
    return kept_of(texts[0], tuple(texts[1:]), identity, checked_s_ago)


def kept_of(
    head: bytes, documents: tuple[bytes, ...], identity: Sequence[str], checked_s_ago: float, walkable: int = 0
) -> Kept | None:
    """Of a file whose checksum is right, if it says that it is this artifact's."""
    try:
        found = read_as(_head, head)
    except (ValueError, RecursionError):  # by somebody who can count checksums
        return None
    if found.identity != tuple(identity) or len(found.facts) != len(documents):
        return None
    return Kept(found.version, documents, found.facts, checked_s_ago, walkable)


def read_ordinary(
    directory: int, names: Sequence[str], now_s: float
) -> list[tuple[bytes, tuple[bytes, ...], int, int] | None]:
    """Of each file its head, its documents, its mtime in ns and which documents are walkable, as `Kept` has it, where it is
    ours and whole; its atime is now_s then, to the hour. None for anything else, which is to be looked at by itself."""
    if kept is None:
        return [None] * len(names)
    found: list[tuple[bytes, tuple[bytes, ...], int, int] | None] = []
    for at in range(0, len(names), MOST_AT_ONCE):
        some = tuple(name.encode() for name in names[at : at + MOST_AT_ONCE])
        found += kept.read(directory, some, int(now_s * _NS))
    return found


def checksum(pieces: Sequence[bytes]) -> int:
    """XXH64 of each, begun with that of those before it. Where nothing is compiled, of SHA-256 as much: XXH64 in Python
    would take longer than a download, and what is written there is another maker's, which nobody else looks for."""
    if holding is None or letting_go is None:
        return int.from_bytes(hashlib.sha256(b"".join(pieces)).digest()[:8], sys.byteorder)
    found = 0
    for piece in pieces:
        count = holding.checksum if len(piece) < _LONG else letting_go.checksum
        found = count(piece, len(piece), found)
    return found
