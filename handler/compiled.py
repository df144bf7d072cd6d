"""What build.sh made of our C, opened twice: one way in holds the interpreter lock, the other lets go of it.

Rule: everything works without it. Where there was no compiler, `holding` and `letting_go` are None.
"""

from __future__ import annotations

import ctypes
import logging
import platform
from ctypes import c_char_p, c_float, c_int, c_int64, c_uint32, c_void_p
from pathlib import Path

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
    library.forest_predict.argtypes = [c_char_p, c_void_p, c_int64, c_uint32, c_int, c_void_p]
    library.forest_predict.restype = None
    library.numbers_read.argtypes = [c_char_p, c_int64, c_int64, c_void_p, c_int64]
    library.numbers_read.restype = c_int64
    return library


holding = _open(ctypes.PyDLL)
letting_go = _open(ctypes.CDLL)
