"""What build.sh made of our C, opened twice: one way in holds the interpreter lock, the other lets go of it.

Rule: everything works without it. Where there was no compiler, all of `holding`, `letting_go`, `row`, `sheet`, `kept`,
`files` and `ubjson` are None; where there were no headers of Python's, all but the first two.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import platform
from collections.abc import Callable
from ctypes import c_char_p, c_float, c_int, c_int64, c_uint32, c_uint64, c_void_p
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any, Protocol

from handler.messages import Parts

log = logging.getLogger(__name__)

LIBRARY = Path(__file__).with_name("libhandler.so")


def _open(kind: type[ctypes.CDLL]) -> ctypes.CDLL | None:
    if not LIBRARY.exists():
        return None
    try:
        library = kind(str(LIBRARY))
    except OSError as error:
        log.warning("%s was not compiled for %s: %s", LIBRARY, platform.machine(), error)
        return None
    library.forest_margin.argtypes = [c_float, c_int]
    library.forest_margin.restype = c_float
    library.forest_largest_tree.argtypes = [c_char_p, c_int64]
    library.forest_largest_tree.restype = c_int64
    library.forest_is_sound.argtypes = [c_char_p, c_int64, c_char_p]
    library.forest_is_sound.restype = c_int
    library.forest_predict.argtypes = [c_char_p, c_void_p, c_int64, c_uint32, c_int, c_void_p]
    library.forest_predict.restype = None
    library.forests_predict.argtypes = [c_void_p, c_int64, c_void_p, c_void_p, c_int64, c_void_p]
    library.forests_predict.restype = None
    library.groups_order.argtypes = [c_void_p, c_int64, c_int64, c_void_p, c_void_p]
    library.groups_order.restype = c_int
    library.trees_read.argtypes = [c_char_p, c_int64, c_int64, c_int64, c_int64, c_void_p, c_void_p]
    library.trees_read.restype = c_int64
    library.trees_are_sound.argtypes = [c_void_p, c_int64, c_int64, c_int, *[c_void_p] * 8]
    library.trees_are_sound.restype = c_int
    library.trees_pack.argtypes = [c_void_p, c_int64, c_int, *[c_void_p] * 5]
    library.trees_pack.restype = c_int
    library.numbers_read.argtypes = [c_char_p, c_int64, c_int64, c_void_p, c_int64]
    library.numbers_read.restype = c_int64
    library.numbers_between.argtypes = [c_char_p, c_int64, c_int64, c_int64, c_void_p, c_int64]
    library.numbers_between.restype = c_int64
    library.jsonrows_read.argtypes = [c_char_p, c_int64, c_int, c_int64, c_void_p, c_int64]
    library.jsonrows_read.restype = c_int64
    library.libsvm_read.argtypes = [c_char_p, c_int64, c_int64, c_int64, c_int64, c_void_p, c_int64, c_void_p]
    library.libsvm_read.restype = c_int64
    library.array_cut.argtypes = [c_char_p, c_int64, c_int64, c_int64, c_int64, c_void_p, c_int64]
    library.array_cut.restype = c_int64
    library.checksum.argtypes = [c_char_p, c_int64, c_uint64]
    library.checksum.restype = c_uint64
    return library


class Row(Protocol):
    """forest/row.c."""

    def score_brief(
        self, packed: bytes, n_features: int, n_trees: int, form: int, body: bytes,
        head: bytes, between: bytes, tail: bytes, /,
    ) -> bytes | None: ...  # fmt: skip
    def write_scores(self, address: int, n_rows: int, head: bytes, between: bytes, tail: bytes, /) -> bytes | None: ...
    def float_text(self, bits: int, /) -> bytes | None: ...


class Sheet(Protocol):
    """telemetry/sheet.c. Times are of the counter, but for epoch_ns, which is what its zero is on the clock.

    filled   bytes, lines, and when the first call began; the same of the page before is what `turn` answers
    aim      sets the times of a page that is empty still; False of one that is not
    """

    def take(self, /, *parts: *Parts) -> None: ...
    def append(self, line: bytes, began_ns: int, /) -> bool: ...
    def filled(self) -> tuple[int, int, int]: ...
    def aim(self, epoch_ns: int, from_ns: int, until_ns: int, /) -> bool: ...
    def turn(
        self, page: mmap.mmap | bytearray, epoch_ns: int, from_ns: int, until_ns: int, /
    ) -> tuple[int, int, int]: ...


class Sheets(Protocol):
    def Sheet(self, otherwise: Callable[[*Parts], None], /) -> Sheet: ...  # noqa: N802  as C has it


class Kept(Protocol):
    """loading/kept.c."""

    def read(
        self, directory: int, names: tuple[bytes, ...], now_ns: int, /
    ) -> list[tuple[bytes, tuple[bytes, ...], int, int] | None]: ...


class Files(Protocol):
    """files.c; files.py is what others call."""

    def read(self, descriptor: int, n_bytes: int, /) -> bytes | None: ...
    def write(self, descriptor: int, text: bytes, /) -> None: ...


class Ubjson(Protocol):
    """importer/ubjson.c."""

    def read(
        self,
        data: bytes,
        typed: Callable[[tuple[int, bytes]], Any],
        trees: Callable[[bytes, int, int], tuple[Any, int] | None],
        /,
    ) -> Any: ...


def _open_module(name: str) -> Any:
    """The same library once more, as one of the modules that it also is: a call through ctypes costs a microsecond."""
    if letting_go is None or not hasattr(letting_go, f"PyInit_{name}"):
        return None
    qualified = f"{__name__}.{name}"  # in sys.modules; a hook may have modules of these names
    loader = ExtensionFileLoader(qualified, str(LIBRARY))
    spec = spec_from_loader(qualified, loader)
    assert spec is not None
    try:
        module = module_from_spec(spec)
        loader.exec_module(module)
    except ImportError as error:
        log.warning("%s is no module of this Python's: %s", LIBRARY, error)
        return None
    return module


holding = _open(ctypes.PyDLL)
letting_go = _open(ctypes.CDLL)
row: Row | None = _open_module("row")
sheet: Sheets | None = _open_module("sheet")
kept: Kept | None = _open_module("kept")
files: Files | None = _open_module("files")
ubjson: Ubjson | None = _open_module("ubjson")
