"""The functions of libxgboost that serving needs, and the one that training calls most, called directly.

Rule: XGBoost's Python package is not imported; only hooks that are handed a Booster need it. It would cost half a second
and 40 MB (scipy) at start, and about 100 us a prediction (`Booster.inplace_predict` against `XGBoosterPredictFromDense`
with a prepared configuration).

Every call releases the interpreter lock. A handle may be shared by threads that predict; loading needs it alone.
Source: xgboost 3.2.0, include/xgboost/c_api.h.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import threading
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_int, c_uint64, c_void_p
from enum import IntEnum
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

log = logging.getLogger(__name__)


class XGBoostError(Exception):
    """What libxgboost said, without its stack trace."""


class Kind(IntEnum):
    """What is predicted, in libxgboost's own numbering (XGBoosterPredictFromDMatrix, "type")."""

    VALUE = 0
    MARGIN = 1
    CONTRIBS = 2
    APPROX_CONTRIBS = 3
    INTERACTIONS = 4
    APPROX_INTERACTIONS = 5
    LEAF = 6


@lru_cache(maxsize=4096)
def _config(kind: Kind, n_rounds: int) -> bytes:
    return (
        f'{{"type":{kind.value},"training":false,"iteration_begin":0,"iteration_end":{n_rounds},"strict_shape":true,'
        '"missing":NaN,"cache_id":0}'
    ).encode()


_DMATRIX_CONFIG = b'{"missing":NaN,"nthread":1}'


def _library_path() -> Path:
    spec = importlib.util.find_spec("xgboost")  # finds the package and does not import it
    if spec is None or spec.origin is None:
        raise ImportError("xgboost is not installed")
    return Path(spec.origin).parent / "lib" / "libxgboost.so"


def library_version() -> str:
    """XGBoost's own, such as 3.2.0."""
    parts = [c_int() for _ in range(3)]
    _lib.XGBoostVersion(*map(byref, parts))
    return ".".join(str(part.value) for part in parts)


_LogCallback = ctypes.CFUNCTYPE(None, c_char_p)


def _log(message: bytes) -> None:
    log.info("%s", message.decode(errors="replace").strip())


_on_log = _LogCallback(_log)  # kept: libxgboost holds no reference


def _open() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_library_path()))
    signatures: dict[str, list[type]] = {
        "XGBoosterCreate": [c_void_p, c_uint64, POINTER(c_void_p)],
        "XGBoosterFree": [c_void_p],
        "XGBoosterSetParam": [c_void_p, c_char_p, c_char_p],
        "XGBoosterLoadModelFromBuffer": [c_void_p, c_char_p, c_uint64],
        "XGBoosterSaveModelToBuffer": [c_void_p, c_char_p, POINTER(c_uint64), POINTER(c_void_p)],
        "XGBoosterGetNumFeature": [c_void_p, POINTER(c_uint64)],
        "XGBoosterUpdateOneIter": [c_void_p, c_int, c_void_p],
        "XGBoosterPredictFromDense": [
            c_void_p, c_char_p, c_char_p, c_void_p, POINTER(POINTER(c_uint64)), POINTER(c_uint64), POINTER(c_void_p),
        ],
        "XGBoosterPredictFromDMatrix": [
            c_void_p, c_void_p, c_char_p, POINTER(POINTER(c_uint64)), POINTER(c_uint64), POINTER(c_void_p),
        ],
        "XGDMatrixCreateFromDense": [c_char_p, c_char_p, POINTER(c_void_p)],
        "XGDMatrixFree": [c_void_p],
        "XGProxyDMatrixCreate": [POINTER(c_void_p)],
        "XGDMatrixSetStrFeatureInfo": [c_void_p, c_char_p, POINTER(c_char_p), c_uint64],
    }  # fmt: skip
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = c_int
    library.XGBGetLastError.restype = c_char_p
    library.XGBRegisterLogCallback.argtypes = [_LogCallback]
    library.XGBRegisterLogCallback(_on_log)
    return library


_lib = _open()
_update_one_iter = _lib.XGBoosterUpdateOneIter
_predict_from_dense = _lib.XGBoosterPredictFromDense


def _check(status: int) -> None:
    if status:
        text = (_lib.XGBGetLastError() or b"unknown error").decode(errors="replace")
        # "[12:00:00] /path/learner.cc:846: Check failed: a == b : why\nStack trace:\n ..."
        raise XGBoostError(text.split("\nStack trace", 1)[0].split(": ", 1)[-1].strip())


def boost_once(booster: c_void_p, matrix: c_void_p, number: int) -> None:
    """One round more, counted from 0, of a booster that was made with this matrix: handles of XGBoost's own package."""
    _check(_update_one_iter(booster, number, matrix))


def array_interface(rows: Floats) -> bytes:
    """What libxgboost is told of a C-contiguous float32 array, which must outlive the call it is told in."""
    n_rows, n_columns = rows.shape
    address = rows.__array_interface__["data"][0]
    return b'{"data":[%d,true],"shape":[%d,%d],"typestr":"<f4","version":3}' % (address, n_rows, n_columns)


class _Desk:
    """What one thread hands to every prediction. A proxy of libxgboost's own making would cost 10 us of 40 a call."""

    def __init__(self) -> None:
        self.shape = POINTER(c_uint64)()
        self.scores = c_void_p()
        self._n_axes = c_uint64()
        self._proxy = c_void_p()
        _check(_lib.XGProxyDMatrixCreate(byref(self._proxy)))
        self.arguments = (self._proxy, byref(self.shape), byref(self._n_axes), byref(self.scores))

    def __del__(self, free: Callable[[c_void_p], int] = _lib.XGDMatrixFree) -> None:
        free(self._proxy)  # bound above: at the interpreter's end this module may be gone before a thread's desk


class _OwnDesk(threading.local):
    def __init__(self) -> None:
        self.desk = _Desk()


_desk = _OwnDesk()


class Booster:
    """One native handle, loaded anew as often as wanted.

    libxgboost keeps about 380 bytes for every pair of a handle and a thread that has predicted with it, and freeing
    the handle clears only the freeing thread's. So handles are not freed but loaded again: see `HandlePool`.
    """

    __slots__ = ("_handle",)

    def __init__(self) -> None:
        handle = c_void_p()
        _check(_lib.XGBoosterCreate(None, 0, byref(handle)))
        self._handle = handle
        _check(_lib.XGBoosterSetParam(handle, b"nthread", b"1"))

    @classmethod
    def borrowed(cls, handle: c_void_p) -> Booster:
        """Around a handle that somebody else has, and frees."""
        booster = cls.__new__(cls)
        booster._handle = handle
        return booster

    def load(self, document: bytes) -> None:
        """Make this the booster of a UBJ or JSON document. Only for bytes that libxgboost wrote itself: it is not safe
        on damaged ones."""
        _check(_lib.XGBoosterLoadModelFromBuffer(self._handle, document, len(document)))
        self.n_features()  # configures the booster now, while no other thread has it

    def save(self) -> bytes:
        """The booster as a UBJ document."""
        size, data = c_uint64(), c_void_p()
        _check(_lib.XGBoosterSaveModelToBuffer(self._handle, b'{"format":"ubj"}', byref(size), byref(data)))
        return ctypes.string_at(data, size.value)

    def n_features(self) -> int:
        count = c_uint64()
        _check(_lib.XGBoosterGetNumFeature(self._handle, byref(count)))
        return count.value

    def predict_dense(self, rows: Floats, kind: Kind, n_rounds: int = 0) -> Floats:
        """Score rows as they lie in memory; trees only, and of the kinds only VALUE and MARGIN.

        rows      float32, C-contiguous, (n_rows, n_features)
        n_rounds  boosting rounds that answer, from the first on; 0 for all
        returns   float32, (n_rows, n_outputs)
        """
        desk = _desk.desk
        if _predict_from_dense(self._handle, array_interface(rows), _config(kind, n_rounds), *desk.arguments):
            _check(1)
        shape = desk.shape
        n_rows, n_outputs = shape[0], shape[1]
        # libxgboost owns the scores until this thread's next call with this handle
        copy = ctypes.string_at(desk.scores, n_rows * n_outputs * 4)
        return np.frombuffer(copy, np.float32).reshape(n_rows, n_outputs)

    def predict_matrix(
        self, rows: Floats, kind: Kind, feature_types: tuple[str, ...] = (), n_rounds: int = 0
    ) -> Floats:
        """Score rows through a DMatrix: every booster, every kind, not safe beside another call on the same handle.

        returns   float32; (n_rows, n_outputs), and for the other kinds the axes of XGBoost's "strict_shape"
        """
        matrix = c_void_p()
        _check(_lib.XGDMatrixCreateFromDense(array_interface(rows), _DMATRIX_CONFIG, byref(matrix)))
        try:
            if feature_types:
                values = (c_char_p * len(feature_types))(*(name.encode() for name in feature_types))
                _check(_lib.XGDMatrixSetStrFeatureInfo(matrix, b"feature_type", values, len(feature_types)))
            shape, n_axes, scores = POINTER(c_uint64)(), c_uint64(), c_void_p()
            _check(
                _lib.XGBoosterPredictFromDMatrix(
                    self._handle, matrix, _config(kind, n_rounds), byref(shape), byref(n_axes), byref(scores)
                )
            )
            axes = tuple(shape[axis] for axis in range(n_axes.value))
            count = int(np.prod(axes, dtype=np.int64))
            return np.frombuffer(ctypes.string_at(scores, count * 4), np.float32).reshape(axes)
        finally:
            _lib.XGDMatrixFree(matrix)

    def free(self) -> None:
        _check(_lib.XGBoosterFree(self._handle))
        self._handle = c_void_p()
