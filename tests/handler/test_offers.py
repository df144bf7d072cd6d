"""What works for long without the interpreter lock offers its core to others now and then, and what is brief never does."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handler.forest import packed
from handler.forest.proof import sample

HANDLER = Path(__file__).resolve().parents[2] / "handler"
SOURCES = (
    *("forest/walk.c", "forest/brief.c", "payload/numbers.c", "payload/jsonrows.c", "payload/libsvm.c"),
    "payload/array.c",
)
# Stands in the place of libc's, and says how often it was called.
COUNTED = "int n_offers; int sched_yield(void) { n_offers++; return 0; }\n"
N_FEATURES = 6


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("offers")
    (folder / "counted.c").write_text(COUNTED)
    made = folder / "counted.so"
    sources = [str(HANDLER / name) for name in SOURCES]
    flags = ["-std=c11", "-O3", "-fPIC", "-shared", "-ffp-contract=off", "-Wl,-Bsymbolic"]
    subprocess.run([compiler, *flags, "-o", str(made), str(folder / "counted.c"), *sources, "-lm"], check=True)
    return ctypes.CDLL(str(made))


@pytest.fixture
def offers(library: ctypes.CDLL) -> Callable[[], int]:
    counter = ctypes.c_int.in_dll(library, "n_offers")
    counter.value = 0
    return lambda: counter.value


def _predict(library: ctypes.CDLL, n_rows: int, n_levels: int) -> None:
    forest = packed.pack(sample("reg:squarederror", n_levels=n_levels))
    assert forest is not None
    shape = packed.shape_of(forest)
    rows = np.random.default_rng(0).random((n_rows, shape.n_features), np.float32)
    scores = np.empty((n_rows, shape.n_groups), np.float32)
    at, to = ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(scores.ctypes.data)
    library.forest_predict(forest, at, ctypes.c_int64(n_rows), ctypes.c_uint32(1 << 31), 0, to)


def _numbers(library: ctypes.CDLL, n_rows: int) -> None:
    text = b"0.1,0.2,0.3,0.4,0.5,0.6\n" * n_rows
    out = np.empty(n_rows * N_FEATURES, np.float32)
    library.numbers_read.restype = ctypes.c_int64
    most = (ctypes.c_int64(N_FEATURES), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(out.size))
    assert library.numbers_read(text, ctypes.c_int64(len(text) - 1), *most) == n_rows


def _json(library: ctypes.CDLL, n_rows: int) -> None:
    text = b"[" + b",".join([b"[1,2,3,4,5,6]"] * n_rows) + b"]"
    out = np.empty(n_rows * N_FEATURES, np.float32)
    library.jsonrows_read.restype = ctypes.c_int64
    most = (ctypes.c_int64(N_FEATURES), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(out.size))
    assert library.jsonrows_read(text, ctypes.c_int64(len(text)), 0, *most) == n_rows


def _libsvm(library: ctypes.CDLL, n_rows: int) -> None:
    text = b"0 0:1 1:2 2:3 3:4 4:5 5:6\n" * n_rows + b" "
    out = np.full((n_rows, N_FEATURES), np.nan, np.float32)
    stopped = ctypes.c_int64()
    library.libsvm_read.restype = ctypes.c_int64
    places = (ctypes.c_int64(0), ctypes.c_int64(len(text) - 2), ctypes.c_int64(N_FEATURES), ctypes.c_int64(0))
    to = (ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(n_rows), ctypes.byref(stopped))
    assert library.libsvm_read(text, *places, *to) == n_rows


def _array(library: ctypes.CDLL, n_rows: int) -> None:
    text = b"[" + b",".join([b"[1,2,3,4,5,6]"] * n_rows) + b"]"
    cuts = np.empty(len(text) // 1000 + 2, np.int64)
    library.array_cut.restype = ctypes.c_int64
    sizes = (ctypes.c_int64(1), ctypes.c_int64(1000), ctypes.c_int64(100))
    to = (ctypes.c_void_p(cuts.ctypes.data), ctypes.c_int64(cuts.size))
    assert library.array_cut(text, ctypes.c_int64(len(text)), *sizes, *to) > 0


class _Around(ctypes.Structure):
    """around_t of brief.h, with a line end between scores."""

    _fields_ = [
        *((name, ctypes.c_char_p) for name in ("head", "between", "tail")),
        *((name, ctypes.c_int64) for name in ("n_head", "n_between", "n_tail")),
    ]  # fmt: skip


def _text(library: ctypes.CDLL, n_rows: int) -> None:
    scores = np.full(n_rows, 0.3, np.float32)
    room = ctypes.create_string_buffer(20 * n_rows)
    library.brief_answer.restype = ctypes.c_int64
    around = _Around(b"", b"\n", b"", 0, 1, 0)
    at = ctypes.c_void_p(scores.ctypes.data)
    assert library.brief_answer(at, ctypes.c_int64(n_rows), ctypes.byref(around), room) == 4 * n_rows - 1


LONG = {
    "rows in bulk": lambda library, n_rows: _predict(library, n_rows, 4),
    "rows walked, below their upper levels": lambda library, n_rows: _predict(library, n_rows, 8),
    "CSV": _numbers,
    "JSON": _json,
    "libsvm": _libsvm,
    "cuts of an array": _array,
    "text of scores": _text,
}


@pytest.mark.parametrize("what", LONG)
def test_a_long_call_offers_its_core_in_proportion_to_its_work(
    library: ctypes.CDLL, offers: Callable[[], int], what: str
) -> None:
    LONG[what](library, 40_000)
    n_first = offers()
    assert n_first >= 3
    LONG[what](library, 80_000)
    assert offers() - n_first == pytest.approx(2 * n_first, abs=2, rel=0.1)


@pytest.mark.parametrize("what", LONG)
def test_a_brief_call_does_not(library: ctypes.CDLL, offers: Callable[[], int], what: str) -> None:
    LONG[what](library, 30)
    assert offers() == 0
