"""Categories of a DataFrame: rows that hold them and a model that keeps them in its file."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import xgboost

from handler.errors import PayloadInvalid
from handler.payload import fit_rows
from handler.payload.decode import decode
from handler.predictor import Facts

SAMPLE = Path(__file__).resolve().parents[2] / "fixtures" / "categories"
CITIES, SIZES = ("Cairo", "Lima", "Oslo"), (10, 11, 12, 13)


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    with tarfile.open(SAMPLE / "model.tar.gz") as archive:
        member = archive.extractfile("xgboost-model")
        assert member is not None
        return xgboost.Booster(model_file=bytearray(member.read()))


@pytest.fixture(scope="module")
def facts(booster: xgboost.Booster) -> Facts:
    kept = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["cats"]["enc"]
    assert "".join(map(chr, kept[0]["values"])) == "".join(CITIES)
    assert tuple(kept[2]["values"]) == SIZES
    assert booster.feature_names == ["city", "x", "n"]
    return Facts(
        "reg:squarederror",
        "gbtree",
        n_features=3,
        n_outputs=1,
        resident_bytes=0,
        feature_names=("city", "x", "n"),
        feature_types=("c", "float", "c"),
        categories=((0, CITIES), (2, SIZES)),
    )


def scores(booster: xgboost.Booster, rows: np.ndarray) -> list[float]:
    matrix = xgboost.DMatrix(rows, feature_names=booster.feature_names, feature_types=booster.feature_types)
    return booster.predict(matrix).tolist()


def test_a_parquet_file_of_pandas_is_scored_as_its_frame_was(booster: xgboost.Booster, facts: Facts) -> None:
    """public report f07: the dictionary's integers were taken for codes"""
    pytest.importorskip("pyarrow")
    rows = decode((SAMPLE / "rows.parquet").read_bytes(), "application/x-parquet", 3)
    assert [(column, sorted(found)) for column, found in rows.words] == [(2, list(SIZES))]
    assert scores(booster, fit_rows(rows, facts)) == json.loads((SAMPLE / "expected.json").read_text())


@pytest.mark.parametrize("content_type", ["application/x-parquet", "application/vnd.apache.arrow.stream"])
@pytest.mark.parametrize("is_dictionary", [True, False])
def test_words_in_any_dictionary_are_scored_alike(
    booster: xgboost.Booster, facts: Facts, content_type: str, is_dictionary: bool
) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    original = pq.read_table(SAMPLE / "rows.parquet").to_pydict()
    cities = pa.array([CITIES[code] for code in original["city"]])
    columns = {
        "n": pa.array(original["n"][::-1]).dictionary_encode().take(pa.array(range(len(cities))[::-1])),
        "city": cities.dictionary_encode() if is_dictionary else cities,
        "x": original["x"],
    }
    file, table = io.BytesIO(), pa.table(columns)
    if content_type == "application/x-parquet":
        pq.write_table(table, file)
    else:
        with pa.ipc.new_stream(file, table.schema) as sink:
            sink.write_table(table)
    rows = decode(file.getvalue(), content_type, 3)
    assert scores(booster, fit_rows(rows, facts)) == json.loads((SAMPLE / "expected.json").read_text())


NO_SCHEMA = [{"pandas": "[]"}, {"pandas": '{"columns": 5}'}]
NO_SCHEMA.append({"pandas": '{"columns": [7, {"name": "b", "pandas_type": "categorical"}]}'})


def file_with(metadata: dict[str, str]) -> bytes:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    table = pa.table({"a": [1.0]})
    with pq.ParquetWriter(file, table.schema, store_schema=False) as sink:
        sink.write_table(table)
        sink.add_key_value_metadata(metadata)
    return file.getvalue()


@pytest.mark.parametrize("metadata", NO_SCHEMA)
def test_metadata_that_marks_no_column_is_passed_over(metadata: dict[str, str]) -> None:
    assert decode(file_with(metadata), "application/x-parquet", 1).words == ()


def test_a_column_that_pandas_calls_categorical_holds_words() -> None:
    marked = {"pandas": '{"columns": [{"name": "a", "pandas_type": "categorical"}]}'}
    assert decode(file_with(marked), "application/x-parquet", 1).words == ((0, (1.0,)),)


@pytest.mark.parametrize("metadata", [{"pandas": "[1"}, {"ARROW:schema": "AAAA"}, {"ARROW:schema": "/////wAAAA=="}])
def test_metadata_that_cannot_be_read_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(PayloadInvalid, match="not Parquet"):
        decode(file_with(metadata), "application/x-parquet", 1)
