"""Tar archives and gzip streams, read from bytes that are already here.

Rule: a length is believed only after it has been compared with the bytes that are left, and nothing is written to disk.
The standard library's tarfile follows links, knows sparse files and has looped on crafted headers; a model archive
needs none of what it can do beyond this page.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from isal import isal_zlib

BLOCK = 512  # bytes; POSIX.1-1988 ustar
STEP = 1 << 18  # bytes inflated between two looks at the budget
RATIO_FLOOR_BYTES = 1 << 22  # below 4 MiB unpacked no ratio is a bomb; a model of equal trees packs very well
_SIZE_BYTES = 4  # at the end of a gzip stream: how long its content is
PAX_MAX_BYTES = 1 << 16  # a pax or long-name header: paths are 1 KiB at most on S3

_PLAIN_HEADS = (b"\x08\0", b"\x08\x08")  # RFC 1952: deflate; no flag, or a file name

REGULAR = (b"0", b"\0", b"7")
DIRECTORY = b"5"
KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a fifo",
    b"S": "a sparse file",
}

# Its types say that it is an exception, and mean that it is a class of them.
_ISAL_ERROR = cast("type[Exception]", isal_zlib.error)


class NotReadable(Exception):
    """The bytes are no sound archive; the message says where and why."""


class OverLimit(Exception):
    """The archive is sound so far, yet passes a bound; the message names it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. `kind` is "file", "directory" or what else it is, in words; `data` is empty unless it is a file."""

    name: str
    kind: str
    data: memoryview


def inflate(blob: bytes, max_bytes: int, max_ratio: int) -> bytes | bytearray:
    """The content of a gzip stream, all its members, checksums verified.

    raises   NotReadable when it is damaged, truncated or followed by anything but zero padding;
             OverLimit past `max_bytes`, or past `max_ratio` times the compressed size
    source   RFC 1952
    """
    try:
        return _inflate(blob, max_bytes, max_ratio, _by_isal)
    except (_ISAL_ERROR, NotReadable, OverLimit):
        # ISA-L takes 0.4 of the time that zlib takes; what it finds fault with, zlib judges, in its own words.
        return _inflate(blob, max_bytes, max_ratio, _by_zlib)


def _by_isal(head: bytes) -> Any:
    """Raises NotReadable for headers with more than a name, at which it does not look as closely as zlib does."""
    if head[2:4] not in _PLAIN_HEADS:
        raise NotReadable("its header is for zlib")
    return isal_zlib.decompressobj(wbits=31)


def _by_zlib(_: bytes) -> Any:
    return zlib.decompressobj(wbits=31)


def _inflate(blob: bytes, max_bytes: int, max_ratio: int, new_stream: Callable[[bytes], Any]) -> bytes | bytearray:
    """new_stream: what zlib.decompressobj makes, for a stream with such a head. Errors come as they are unless zlib's."""
    out = bytearray()
    budget = min(max_bytes, max(RATIO_FLOOR_BYTES, max_ratio * len(blob)))
    # What an ordinary stream says of itself at its end: all of it then comes in one piece, which nobody has to put together.
    stated = int.from_bytes(blob[-_SIZE_BYTES:], "little")
    most = max(STEP, min(stated, budget, RATIO_FLOOR_BYTES) + 1)
    view = memoryview(blob)
    at = 0
    while at < len(blob):
        if blob[at : at + 2] != b"\x1f\x8b":
            if out and _is_zero(blob[at:]):
                break  # tape padding
            raise NotReadable("bytes that are no gzip follow the end of the gzip stream")
        stream = new_stream(blob[at : at + 4])
        while not stream.eof:
            # Fed in slices: what zlib has not yet looked at it gives back as a copy, after each step.
            given = stream.unconsumed_tail or view[at : at + STEP]
            at += 0 if stream.unconsumed_tail else len(given)
            try:
                piece = stream.decompress(given, most)
            except zlib.error as error:
                raise NotReadable(f"gzip stream is damaged ({error})") from error
            if stream.eof and at == len(blob) and not out and len(piece) <= budget and not stream.unused_data:
                return bytes(piece)
            out += piece
            if len(out) > budget:
                if len(out) > max_bytes:
                    raise OverLimit(f"unpacks to more than {max_bytes} bytes")
                raise OverLimit(f"unpacks to more than {max_ratio} times its {len(blob)} bytes")
            if not piece and not stream.unconsumed_tail and at == len(blob) and not stream.eof:
                raise NotReadable("gzip stream is truncated")
        at -= len(stream.unused_data)
    return out


def looks_like_tar(data: bytes | bytearray) -> bool:
    """True when the first block is a tar header with a sound checksum (or the whole is an empty archive)."""
    if len(data) < BLOCK:
        return False
    head = bytes(data[:BLOCK])
    return _is_zero(bytes(data[: 2 * BLOCK])) or _checksum_fits(head)


def entries(data: bytes | bytearray, max_members: int) -> Iterator[Entry]:
    """The members of a tar, in order, as views of `data`.

    Understands ustar, the older v7 layout, GNU long names and pax `path`; sizes in octal or base-256.
    raises   NotReadable on a damaged header, a member longer than the archive, a missing end marker, or data behind it;
             OverLimit past `max_members`
    """
    view = memoryview(data)
    at = n_members = 0
    long_name: str | None = None
    while True:
        head = bytes(view[at : at + BLOCK])
        if len(head) < BLOCK:
            # A tar cut at a member's edge looks whole but for this; one fold of an ensemble would be missing.
            raise NotReadable("tar is truncated: it ends without its end marker")
        if _is_zero(head):
            if not _is_zero(bytes(view[at:])):
                raise NotReadable(f"tar has data behind its end marker at byte {at}")
            return
        if not _checksum_fits(head):
            raise NotReadable(f"tar header at byte {at} is damaged")
        size = _number(head[124:136], at)
        start = at + BLOCK
        if size > len(data) - start:
            raise NotReadable(f"tar member at byte {at} claims {size} bytes, {len(data) - start} are left")
        at = start + -(-size // BLOCK) * BLOCK
        flag = head[156:157]
        n_members += 1
        if n_members > max_members:
            raise OverLimit(f"has more than {max_members} members")
        if flag in (b"L", b"K", b"x", b"g"):
            if size > PAX_MAX_BYTES:
                raise OverLimit(f"has a name header of {size} bytes")
            body = bytes(view[start : start + size])
            if flag == b"L":
                long_name = _text(body.rstrip(b"\0"))
            elif flag == b"x":
                long_name = _pax_path(body, start) or long_name
            continue
        name, long_name = long_name or _ustar_name(head), None
        if flag in REGULAR and not name.endswith("/"):
            yield Entry(name, "file", view[start : start + size])
        elif flag == DIRECTORY or flag in REGULAR:
            yield Entry(name, "directory", view[:0])
        else:
            yield Entry(name, KINDS.get(flag, f"a member of type {flag!r}"), view[:0])


def _checksum_fits(head: bytes) -> bool:
    stated = head[148:156].strip(b" \0")
    try:
        expected = int(stated, 8)
    except ValueError:
        return False
    return expected == _sum_of(head) - sum(head[148:156]) + 8 * 0x20


def _sum_of(block: bytes) -> int:
    """Of a header's bytes, in a tenth of the time that `sum` takes: the lower half of Adler-32 is that and 1, modulo 65,521,
    which 256 bytes do not reach (RFC 1950)."""
    return sum((zlib.adler32(block[at : at + 256]) & 0xFFFF) - 1 for at in (0, 256))


def _is_zero(raw: bytes) -> bool:
    """To strip them takes a call for each byte."""
    return raw == bytes(len(raw))


def _number(field: bytes, at: int) -> int:
    if field[0] & 0x80:  # GNU base-256, for sizes from 8 GiB; a set second bit would make it negative
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40:
            raise NotReadable(f"tar header at byte {at} has a negative size")
        return value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise NotReadable(f"tar header at byte {at} has an unreadable size")
    return int(digits, 8)


def _ustar_name(head: bytes) -> str:
    name = head[:100].split(b"\0", 1)[0]
    # GNU's own variant ("ustar  ") keeps times where POSIX keeps the prefix.
    prefix = head[345:500].split(b"\0", 1)[0] if head[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _pax_path(body: bytes, at: int) -> str | None:
    """The `path` record of a pax header. A `size` record, needed from 8 GiB only, overrides the header's: refused."""
    path = None
    while body:
        digits, space, _ = body[:8].partition(b" ")
        if not space or not digits.isdigit() or not 0 < len(digits) + 1 < int(digits) <= len(body):
            raise NotReadable(f"pax header at byte {at} is damaged")
        record, body = body[len(digits) + 1 : int(digits)], body[int(digits) :]
        key, equals, value = record.rstrip(b"\n").partition(b"=")
        if not equals:
            raise NotReadable(f"pax header at byte {at} is damaged")
        if key == b"path":
            path = _text(value)
        elif key == b"size" or key.startswith(b"GNU.sparse"):
            raise NotReadable(f"pax header at byte {at} uses {_text(key)!r}, which a model archive has no need of")
    return path


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
