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
# Stands in the place of offer.c, and says how often it was called.
COUNTED = "int n_offers; void offer_now(void) { n_offers++; }\n"
N_FEATURES = 6
HELD_BYTES = 16 << 10  # bodies up to this are read with the interpreter lock held, when nothing may be offered


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


def _predict(library: ctypes.CDLL, n_rows: int, n_levels: int, objective: str = "reg:squarederror") -> None:
    forest = packed.pack(sample(objective, n_levels=n_levels))
    assert forest is not None
    shape = packed.shape_of(forest)
    rows = np.random.default_rng(0).random((n_rows, shape.n_features), np.float32)
    scores = np.empty((n_rows, shape.n_groups), np.float32)
    at, to = ctypes.c_void_p(rows.ctypes.data), ctypes.c_void_p(scores.ctypes.data)
    library.forest_predict(forest, at, ctypes.c_int64(n_rows), ctypes.c_uint32(1 << 31), 0, to)


def _predict_groups(library: ctypes.CDLL, n_rows: int) -> None:
    """Ten rows for each forest."""
    forest = packed.pack(sample("reg:squarederror", n_levels=4))
    assert forest is not None
    columns = np.random.default_rng(0).random((packed.shape_of(forest).n_features, n_rows), np.float32)
    scores, n_groups = np.empty(n_rows, np.float32), n_rows // 10
    borders = np.array([[10 * group, 10 * group + 10] for group in range(n_groups)], np.int64)
    forests = (ctypes.c_char_p * n_groups)(*[forest] * n_groups)
    places = (ctypes.c_void_p(borders.ctypes.data), ctypes.c_void_p(columns.ctypes.data), ctypes.c_int64(n_rows))
    library.forests_predict(forests, ctypes.c_int64(n_groups), *places, ctypes.c_void_p(scores.ctypes.data))


def _numbers(library: ctypes.CDLL, n_rows: int, row: bytes = b"0.1,0.2,0.3,0.4,0.5,0.6\n") -> None:
    text, n_columns = row * n_rows, row.count(b",") + 1
    out = np.empty(n_rows * n_columns, np.float32)
    library.numbers_read.restype = ctypes.c_int64
    most = (ctypes.c_int64(n_columns), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(out.size))
    assert library.numbers_read(text, ctypes.c_int64(len(text) - 1), *most) == n_rows


def _json(library: ctypes.CDLL, n_rows: int, row: bytes = b"[1,2,3,4,5,6]") -> None:
    text, n_columns = b"[" + b",".join([row] * n_rows) + b"]", row.count(b",") + 1
    out = np.empty(n_rows * n_columns, np.float32)
    library.jsonrows_read.restype = ctypes.c_int64
    most = (ctypes.c_int64(n_columns), ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(out.size))
    assert library.jsonrows_read(text, ctypes.c_int64(len(text)), 0, *most) == n_rows


def _libsvm(library: ctypes.CDLL, n_rows: int, row: bytes = b"0 0:1 1:2 2:3 3:4 4:5 5:6\n") -> None:
    text = row * n_rows + b" "
    out = np.full((n_rows, N_FEATURES), np.nan, np.float32)
    stopped = ctypes.c_int64()
    library.libsvm_read.restype = ctypes.c_int64
    places = (ctypes.c_int64(0), ctypes.c_int64(len(text) - 2), ctypes.c_int64(N_FEATURES), ctypes.c_int64(0))
    to = (ctypes.c_void_p(out.ctypes.data), ctypes.c_int64(n_rows), ctypes.byref(stopped))
    assert library.libsvm_read(text, *places, *to) == n_rows


def _array(library: ctypes.CDLL, n_rows: int, row: bytes = b"[1,2,3,4,5,6]") -> None:
    text = b"[" + b",".join([row] * n_rows) + b"]"
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
    "rows of classes": lambda library, n_rows: _predict(library, n_rows, 4, "multi:softprob"),
    "rows in groups": _predict_groups,
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
    LONG[what](library, 80_000)
    n_first = offers()
    assert n_first >= 3
    LONG[what](library, 160_000)
    assert offers() - n_first == pytest.approx(2 * n_first, abs=2, rel=0.1)


DIGITS = b"0.12345678901234567," * 5 + b"0.12345678901234567\n"
LONG_NUMBERS = b"0." + b"1" * 500 + b"\n"
WORDS = b'["%b"]' % (b"a" * 1_000_000)


@pytest.mark.parametrize(
    ("work", "n_bytes"),
    [
        (lambda library: _numbers(library, 20_000, DIGITS), 20_000 * len(DIGITS)),
        (lambda library: _numbers(library, 5_000, LONG_NUMBERS), 5_000 * len(LONG_NUMBERS)),
        (lambda library: _array(library, 3, WORDS), 3 * len(WORDS)),
    ],
    ids=["numbers of many digits", "of hundreds", "an array of long words"],
)
def test_it_does_so_too_where_there_is_much_text_and_little_in_it(
    library: ctypes.CDLL, offers: Callable[[], int], work: Callable[[ctypes.CDLL], None], n_bytes: int
) -> None:
    work(library)
    assert offers() >= n_bytes // 200_000  # a byte takes a nanosecond at least


@pytest.mark.parametrize("what", LONG)
def test_a_brief_call_does_not(library: ctypes.CDLL, offers: Callable[[], int], what: str) -> None:
    LONG[what](library, 30)
    assert offers() == 0


def test_nothing_that_is_read_with_the_interpreter_lock_held_does(
    library: ctypes.CDLL, offers: Callable[[], int]
) -> None:
    _numbers(library, HELD_BYTES // 20, b"1" + b"," * 18 + b"\n")
    _numbers(library, HELD_BYTES // 20, b"1,1,1,1,1,1,1,1,1,1\n")
    _numbers(library, HELD_BYTES // 500, b"0." + b"1" * 497 + b"\n")
    _json(library, HELD_BYTES // 24, b"[1,1,1,1,1,1,1,1,1,1,1]")
    _libsvm(library, HELD_BYTES // 2, b"1\n")
    _libsvm(library, HELD_BYTES // 14, b"0 0:1 1:1 2:1\n")
    assert offers() == 0
