"""npy, RecordIO-protobuf, Parquet and Arrow in."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from handler.errors import ContentTypeUnsupported, FeatureMismatch, PayloadInvalid
from handler.payload import arrow, media, recordio
from handler.payload.decode import decode

NPY = "application/x-npy"
RECORDIO = "application/x-recordio-protobuf"
PARQUET = "application/x-parquet"
STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
SAMPLES = Path(__file__).resolve().parents[2] / "fixtures" / "recordio"
NAN = np.nan


def saved(array: np.ndarray, **options: bool) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@given(
    arrays.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i8", ">i2", "u1", "?"]),
        arrays.array_shapes(min_dims=1, max_dims=2, max_side=5),
    ),
    st.booleans(),
)
def test_any_saved_array_reads_back(array: np.ndarray, is_fortran: bool) -> None:
    expected = np.atleast_2d(array)
    with np.errstate(over="ignore"):
        expected = expected.astype(np.float32)
    body = saved(np.asfortranarray(array) if is_fortran else array)
    if np.isinf(expected).any():
        with pytest.raises(PayloadInvalid, match="infinite"):
            decode(body, NPY, 3)
    else:
        found = decode(body, NPY, 3).values
        assert np.array_equal(found, expected, equal_nan=True)
        assert found.flags.c_contiguous


def header(text: str) -> bytes:
    line = text.ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"PK", "npy header: no magic string"),
        (saved(np.ones(3))[:-1], r"npy header: shape \(3,\) of float64 takes 24 bytes, 23 are there"),
        (saved(np.ones(3)) + b"\0", "takes 24 bytes, 25 are there"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976, 2), }"), "0 are there"),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }"),
            "neither one row nor rows and columns",
        ),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 60), "neither one row"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535, "65535 bytes announced, at most 1024 are read"),
        (b"\x93NUMPY\x09\x00" + bytes(8), "only versions 1 to 3 are read"),
        (saved(np.array([{"a": 1}]), allow_pickle=True), "its type is not a number"),
        (saved(np.array(["1"])), "its type is not a number"),
        (saved(np.zeros(1, "f4,f4")), "its type is not a number"),
        (header("{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }"), "type <f3 is not a number"),
        (saved(np.ones((1, 1, 1))), "neither one row nor rows and columns"),
        (saved(np.ones((0, 3))), "the body holds no rows"),
        (saved(np.array([[1.0, 2.0], [3.0, 1e39]])), "row 2, column 2: infinite, or too large for a float32"),
    ],
)
def test_an_npy_body_that_lies_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(PayloadInvalid, match=message):
        decode(body, NPY, 3)


def field(number: int, content: bytes) -> bytes:
    return recordio._field(number, content)


def framed(*messages: bytes) -> bytes:
    return b"".join(
        struct.pack("<II", 0xCED7230A, len(message)) + message + bytes(-len(message) % 4) for message in messages
    )


def record(tensor: bytes, kind: int = 2) -> bytes:
    return field(1, field(1, b"values") + field(2, field(kind, tensor)))


def dense(*values: float) -> bytes:
    return record(field(1, np.array(values, "<f4").tobytes()))


@pytest.mark.parametrize(
    ("name", "n_features", "expected"),
    [
        ("train.pb", 5, [[1, 0, 0, 0, 0]] * 4 + [[0, 1, 0, 0, 0]]),
        ("sparse.pb", 5, [[1, NAN, NAN, NAN, NAN]] * 4 + [[NAN, 1, NAN, NAN, NAN]]),
        ("single_feature_label.pb", 1, [[NAN]]),
        ("diagonal.pbr", 3, [[1, NAN, NAN], [NAN, 1, NAN], [NAN, NAN, 1]]),
        ("single_value_bot_right.pbr", 3, [[NAN] * 3, [NAN] * 3, [NAN, NAN, 1]]),
        ("dense_as_sparse.pbr", 3, [[1] * 3] * 3),
    ],
)
def test_bodies_that_amazon_wrote(name: str, n_features: int, expected: list[list[float]]) -> None:
    found = decode((SAMPLES / name).read_bytes(), RECORDIO, n_features).values
    assert np.array_equal(found, np.array(expected, np.float32), equal_nan=True)


@given(
    arrays.arrays(
        st.sampled_from(["<f4", "<f8"]),
        st.tuples(st.integers(1, 6), st.integers(1, 40)),
        elements=st.floats(width=32, allow_infinity=False),
    ),
    st.booleans(),
)
def test_dense_records_read_alike_at_once_or_one_by_one(table: np.ndarray, has_uid: bool) -> None:
    kind = 2 if table.dtype == np.float32 else 3
    messages = [
        record(field(1, row.tobytes()), kind) + field(3, b"u" * (at if has_uid else 0)) for at, row in enumerate(table)
    ]
    found = decode(framed(*messages), RECORDIO, 3).values
    assert np.array_equal(found, table.astype(np.float32), equal_nan=True)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40))
def test_integers_of_either_sign_read_back(numbers: list[int]) -> None:
    packed = bytearray()
    for number in numbers:
        rest = number & (2**64 - 1)
        while rest >= 0x80:
            packed.append(rest & 0x7F | 0x80)
            rest >>= 7
        packed.append(rest)
    found = decode(framed(record(field(1, bytes(packed)), 7)), RECORDIO, 3).values
    assert found.tolist() == np.array([numbers], np.float32).tolist()


def test_values_written_one_by_one_read_like_packed_ones() -> None:
    tensor = b"".join(bytes([1 << 3 | 5]) + struct.pack("<f", number) for number in (1.0, 2.0, 3.0))
    assert decode(framed(record(tensor)), RECORDIO, 3).values.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"abc", "record 1: 3 bytes, too few for a frame"),
        (b"12345678", "record 1: not RecordIO: magic number 0x34333231 at byte 0"),
        (struct.pack("<II", 0xCED7230A, 0xFFFFFFFF), "record 1: 4294967295 bytes announced, 0 there"),
        (framed(dense(1, 2)) + framed(dense(1, 2))[:-8], "record 2: 24 bytes announced, 16 there"),
        (framed(b""), "record 1: no tensor of numbers"),
        (framed(record(b"")), "record 1: no values"),
        (framed(dense(1, 2), dense(1)), "record 2: 1 values, where others have 2"),
        (framed(dense(1, np.inf)), "record 1, value 2: infinite"),
        (framed(dense(1), dense(np.inf)), "record 2, value 1: infinite"),
        (framed(record(field(1, b"12345"))), "record 1: values are not whole numbers of 4 bytes"),
        (framed(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "record 1: .* does not end"),
        (framed(b"\x0a\xff\xff\xff\xff\x0f"), "record 1: .* ends beyond its message"),
        (framed(b"\x0b"), "record 1: .* wire type 3"),
        (framed(record(field(1, bytes(4)) + field(2, b"\0\1"))), "record 1: 2 keys for 1 values"),
        (framed(record(field(1, bytes(8)) + field(2, b"\0\0"))), "record 1: a key appears twice"),
        (framed(b"\x1a\x00" * 20_000), "record 1: a message of more than 10000 fields"),
        (framed(dense(*range(9_000)), *[dense(1)] * 1000), "record 2: 1 values, where others have 9000"),
        (framed(record(field(1, b"\xff" * 100), 7)), "record 1: .* does not end"),
    ],
)
def test_a_recordio_body_that_lies_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(PayloadInvalid, match=message):
        decode(body, RECORDIO, 3)


@pytest.mark.parametrize("tensor", [field(2, b"\3"), field(2, b"\0") + field(3, b"\4")])
def test_a_sparse_record_of_another_width_is_a_mismatch(tensor: bytes) -> None:
    with pytest.raises(FeatureMismatch, match="the model has 3 features, record 1 has"):
        decode(framed(record(field(1, bytes(4)) + tensor)), RECORDIO, 3)


@given(st.binary(max_size=80), st.integers(0, 79))
def test_damaged_records_are_rows_or_a_refusal(noise: bytes, at: int) -> None:
    whole = framed(dense(1, 2, 3), record(field(1, bytes(4)) + field(2, b"\1") + field(3, b"\3")))
    with contextlib.suppress(PayloadInvalid, FeatureMismatch):
        assert decode(whole[:at] + noise + whole[at + len(noise) :], RECORDIO, 3).values.size


@given(st.binary(max_size=200), st.sampled_from([NPY, RECORDIO, PARQUET, STREAM, FILE]))
def test_any_bytes_are_rows_or_a_refusal(body: bytes, content_type: str) -> None:
    with contextlib.suppress(PayloadInvalid, FeatureMismatch):
        assert decode(body, content_type, 3).values.size


class TestArrow:
    """With pyarrow, and without."""

    def bodies(self, table: object) -> dict[str, bytes]:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        found = {}
        for content_type, writer in ((STREAM, pa.ipc.new_stream), (FILE, pa.ipc.new_file)):
            file = io.BytesIO()
            with writer(file, table.schema) as sink:
                sink.write_table(table, max_chunksize=2)
            found[content_type] = file.getvalue()
        file = io.BytesIO()
        pq.write_table(table, file, row_group_size=2)
        return {**found, PARQUET: file.getvalue()}

    def test_numbers_of_every_type_read_with_their_names(self) -> None:
        pa = pytest.importorskip("pyarrow")
        table = pa.table(
            {
                "a": pa.array([1, None, 3], pa.int64()),
                "b": pa.array([0.5, NAN, None], pa.float32()),
                "c": pa.array([True, False, None]),
                "d": pa.nulls(3),
            }
        )
        expected = np.array([[1, 0.5, 1, NAN], [NAN, NAN, 0, NAN], [3, NAN, NAN, NAN]], np.float32)
        for content_type, body in self.bodies(table).items():
            rows = decode(body, content_type, 4)
            assert rows.names == ("a", "b", "c", "d")
            assert np.array_equal(rows.values, expected, equal_nan=True)
            assert rows.values.flags.c_contiguous

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"a": [b"x"]}, "column 'a': type binary is neither a number nor text"),
            ({"a": [[1.0]]}, "column 'a': type list<.*> is neither a number nor text"),
            ({"a": [1e39]}, "row 1, column 1: infinite, or too large"),
            ({"a": []}, "the body holds no rows"),
        ],
    )
    def test_what_is_no_number_is_refused(self, columns: dict[str, list[object]], message: str) -> None:
        pa = pytest.importorskip("pyarrow")
        table = pa.table({name: pa.array(cells, None if cells else pa.int8()) for name, cells in columns.items()})
        for content_type, body in self.bodies(table).items():
            with pytest.raises(PayloadInvalid, match=message):
                decode(body, content_type, 1)

    def test_words_are_numbered_through_all_batches(self) -> None:
        pa = pytest.importorskip("pyarrow")
        words = ["b", "a", None, "b", "c", "a"]
        table = pa.table(
            {
                "text": pa.array(words),
                "large": pa.array(words, pa.large_string()),
                "dictionary": pa.chunked_array([pa.array(part).dictionary_encode() for part in (words[:3], words[3:])]),
                "numbers": pa.array([7, 5, None, 7, 9, 5]).dictionary_encode(),
            }
        )
        stream = io.BytesIO()  # where each batch may have a dictionary of its own; a file has but one
        with pa.ipc.new_stream(stream, table.schema) as sink:
            sink.write_table(table)
        for content_type, body in (*self.bodies(table.unify_dictionaries()).items(), (STREAM, stream.getvalue())):
            rows = decode(body, content_type, 4)
            for column, found in rows.words:
                read = [None if np.isnan(cell) else found[int(cell)] for cell in rows.values[:, column]]
                assert read == table.column(column).to_pylist(), (content_type, column)
            assert [column for column, _ in rows.words] == [0, 1, 2, 3]

    def test_a_dictionary_whose_indices_lie_outside_it_is_refused(self) -> None:
        pa = pytest.importorskip("pyarrow")
        indices = pa.array([0, 5], pa.int8())
        lying = pa.DictionaryArray.from_arrays(indices, pa.array(["a", "b"]), safe=False)
        file = io.BytesIO()
        batch = pa.RecordBatch.from_arrays([lying], names=["a"])
        with pa.ipc.new_stream(file, batch.schema) as sink:
            sink.write_batch(batch)
        with pytest.raises(PayloadInvalid, match="not an Arrow stream"):
            decode(file.getvalue(), STREAM, 1)

    def test_words_beyond_number_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pa = pytest.importorskip("pyarrow")
        monkeypatch.setattr(arrow, "MAX_WORDS", 3)
        for words in (["a", "b", "c", "d"], ["a", "a", "b", "b", "c", "c", "d"]):
            for content_type, body in self.bodies(pa.table({"a": words})).items():
                with pytest.raises(PayloadInvalid, match=r"column 'a': (4 different words, )?more than 3"):
                    decode(body, content_type, 1)

    def test_a_few_bytes_that_claim_millions_of_cells_are_refused(self) -> None:
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        file = io.BytesIO()
        pq.write_table(pa.table({f"f{at}": np.zeros(500_000, np.int8) for at in range(80)}), file)
        assert len(file.getvalue()) < 200_000
        with pytest.raises(PayloadInvalid, match="500000 rows of 80 columns, more than"):
            decode(file.getvalue(), PARQUET, 80)
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, pa.schema([("a", pa.null())])) as sink:
            sink.write_batch(pa.record_batch([pa.nulls(100_000_000)], names=["a"]))
        with pytest.raises(PayloadInvalid, match="100000000 rows of 1 columns"):
            decode(stream.getvalue(), STREAM, 1)

    @pytest.mark.parametrize("compression", ["lz4", "zstd"])
    def test_compressed_arrow_is_read_and_what_it_unpacks_to_is_bounded(self, compression: str) -> None:
        pa = pytest.importorskip("pyarrow")
        options = pa.ipc.IpcWriteOptions(compression=compression)
        for content_type, writer in ((STREAM, pa.ipc.new_stream), (FILE, pa.ipc.new_file)):
            for n_rows, is_read in ((1_000, True), (20_000_000, False)):
                file = io.BytesIO()
                batch = pa.record_batch({"a": np.zeros(n_rows), "b": np.zeros(n_rows)})
                with writer(file, batch.schema, options=options) as sink:
                    sink.write_batch(batch)
                if is_read:
                    assert decode(file.getvalue(), content_type, 2).values.shape == (n_rows, 2)
                else:
                    assert len(file.getvalue()) < 2_000_000
                    with pytest.raises(PayloadInvalid, match="320000000 bytes uncompressed, more than 256000000"):
                        decode(file.getvalue(), content_type, 2)

    def test_without_pyarrow_the_refusal_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        for content_type in (PARQUET, STREAM, FILE):
            with pytest.raises(ContentTypeUnsupported, match="pyarrow is not installed here"):
                decode(b"PAR1", content_type, 1)


@pytest.mark.parametrize("kind", ["parquet", "stream"])
def test_a_body_may_not_swell_without_end(kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    file = io.BytesIO()
    if kind == "parquet":
        table = pa.table({"f0": pa.array(np.zeros(2_000_000, "i1"))})
        pyarrow.parquet.write_table(table, file, compression="zstd")
    else:
        table = pa.table({"f0": pa.nulls(2_000_000)})  # which takes no bytes at all
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    body = file.getvalue()
    assert len(body) < 50_000
    with pytest.raises(PayloadInvalid, match="more than"):
        decode(body, media.PARQUET if kind == "parquet" else media.ARROW_STREAM, 1)
