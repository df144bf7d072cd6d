"""Multi Model Server's archives (.mar): a zip with a folder MAR-INF beside what it holds.

Rule: as for tar, nothing is written to disk, and a size is believed only after it has been compared with what is left of
its bound. Called where it can do no harm: a central directory may list more members than memory holds.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator
from typing import Protocol

from handler.archives.tarball import RATIO_FLOOR_BYTES, Entry, NotReadable, OverLimit

MANIFEST_FOLDER = "MAR-INF/"  # MMS's; what it says is of no consequence to a booster
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
STEP = 1 << 18  # bytes inflated between two looks at the budget


class Bounds(Protocol):
    @property
    def unpacked_max_bytes(self) -> int: ...
    @property
    def max_ratio(self) -> int: ...
    @property
    def max_members(self) -> int: ...


def entries(blob: bytes, bounds: Bounds) -> Iterator[Entry]:
    """The members of a .mar, in order, those of MAR-INF left out.

    raises   NotReadable when it is damaged, encrypted or packed in a way MMS could not unpack either; OverLimit past a bound
    """
    budget = min(bounds.unpacked_max_bytes, max(RATIO_FLOOR_BYTES, bounds.max_ratio * len(blob)))
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            if len(members) > bounds.max_members:
                raise OverLimit(f"has more than {bounds.max_members} members")
            for member in members:
                if member.filename.startswith(MANIFEST_FOLDER):
                    continue
                kind = _kind(member)
                data = _read(archive, member, budget) if kind == "file" else b""
                budget -= len(data)
                yield Entry(member.filename, kind, memoryview(data))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NotReadable(f"zip is damaged ({error})") from error


def _kind(member: zipfile.ZipInfo) -> str:
    mode = member.external_attr >> 16  # Unix archivers put it there; others leave it 0
    if member.is_dir():
        return "directory"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "file" if not stat.S_IFMT(mode) or stat.S_ISREG(mode) else "a device"


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, budget: int) -> bytes:
    if member.flag_bits & 0x1:
        raise NotReadable(f"member {member.filename!r} is encrypted")
    if member.compress_type not in METHODS:
        raise NotReadable(f"member {member.filename!r} is packed by method {member.compress_type}")
    data = bytearray()
    with archive.open(member) as stream:
        while piece := stream.read(STEP):
            data += piece
            if len(data) > budget:
                raise OverLimit("unpacks to more than it may")
    return bytes(data)
