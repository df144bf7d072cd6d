"""Categories given as words: a model trained on a DataFrame, over tables that hold what the DataFrame held."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from container import settings
from container.operate.batch.asked import Asked
from container.operate.batch.columns import codes_of_column
from container.operate.batch.sample import look
from tests.container.operate.batch.test_run import score, write

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SAMPLE = Path(__file__).resolve().parents[3] / "fixtures" / "categories"
EXPECTED = np.array(json.loads((SAMPLE / "expected.json").read_text()), np.float32)
ASKED = Asked(target_template="{s}.tar.gz")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    shutil.copy(SAMPLE / "model.tar.gz", tmp_path / "models/m.tar.gz")
    return tmp_path / "models"


@pytest.fixture(scope="module")
def rows() -> Any:
    """As pandas wrote them: `city` holds codes, `n` the dictionary's integers."""
    found = pq.read_table(SAMPLE / "rows.parquet")
    return found.append_column("s", pa.array(["m"] * len(found)))


@pytest.fixture(scope="module")
def cities() -> list[str]:
    from container.examine.quarantine import Quarantine

    quarantine = Quarantine(1)
    try:
        (facts,) = quarantine.examine((SAMPLE / "model.tar.gz").read_bytes(), "x").facts
    finally:
        quarantine.close()
    return [str(word) for word in dict(facts.categories)[0]]


def answers(tmp_path: Path) -> Any:
    return pq.read_table(tmp_path / "out/rows/a.parquet").column("score")


def with_words(rows: Any, cities: list[str]) -> Any:
    """The same rows with each city's name, and `n` as a dictionary."""
    words = [cities[code] for code in rows.column("city").to_pylist()]
    worded = rows.set_column(0, "city", pa.array(words)).replace_schema_metadata()
    return worded.set_column(2, "n", rows.column("n").combine_chunks().dictionary_encode())


def test_rows_that_pandas_wrote_answer_as_xgboost_answers_the_data_frame(
    models: Path, rows: Any, tmp_path: Path
) -> None:
    write(rows, tmp_path / "data/a.parquet")
    assert score(models, tmp_path / "data", tmp_path / "out", ASKED).summary["errors"] == 0  # type: ignore[index]
    assert answers(tmp_path).to_numpy().tobytes() == EXPECTED.tobytes()


@pytest.mark.parametrize("kind", ["text", "dictionary", "jsonl"])
def test_words_are_the_codes_they_stand_for(
    models: Path, rows: Any, cities: list[str], tmp_path: Path, kind: str
) -> None:
    worded = with_words(rows, cities)
    if kind == "dictionary":
        worded = worded.set_column(0, "city", worded.column("city").combine_chunks().dictionary_encode())
    if kind == "jsonl":  # which has words for texts, and codes for numbers
        codes = np.array(rows.column("n").to_pylist()) - 10
        worded = worded.set_column(2, "n", pa.array(codes))
    write(worded, tmp_path / f"data/a.{'jsonl' if kind == 'jsonl' else 'parquet'}")
    assert score(models, tmp_path / "data", tmp_path / "out", ASKED).summary["errors"] == 0  # type: ignore[index]
    assert answers(tmp_path).to_numpy().tobytes() == EXPECTED.tobytes()


def test_a_sample_sees_words_and_texts_as_a_run_does(
    models: Path, rows: Any, cities: list[str], tmp_path: Path
) -> None:
    chosen = settings.read({"models": str(models), "max_age_s": "0"}, {})
    worded = with_words(rows, cities)
    x = worded.column_names.index("x")
    as_text = pa.array([str(cell) for cell in worded.column("x").to_pylist()])
    for name, data in {"pandas": rows, "words": worded, "text": worded.set_column(x, "x", as_text)}.items():
        write(data, tmp_path / name / "data/a.parquet")
        seen = look(chosen, ASKED, [str(tmp_path / name / "data")], len(data))
        outcome = score(models, tmp_path / name / "data", tmp_path / name / "out", ASKED)
        assert outcome.summary is not None
        assert sum(seen.facts["errors"].values()) == outcome.summary["errors"] == (len(data) if name == "text" else 0)


def test_a_word_that_is_none_costs_its_row_and_a_missing_one_is_missing(
    models: Path, rows: Any, cities: list[str], tmp_path: Path
) -> None:
    worded = with_words(rows, cities).slice(0, 4)
    names = worded.column("city").to_pylist()
    write(worded.set_column(0, "city", pa.array([names[0], "Atlantis", None, names[3]])), tmp_path / "data/a.parquet")
    score(models, tmp_path / "data", tmp_path / "out", ASKED)
    scores = answers(tmp_path).to_pylist()
    assert (scores[0], scores[1], scores[3]) == (EXPECTED[0], None, EXPECTED[3])
    (error,) = pq.read_table(tmp_path / "out/errors/a.parquet").to_pylist()
    assert error["row"] == 2
    assert "'Atlantis' is none of the model's categories" in error["reason"].replace('"', "'")
    assert scores[2] is not None


def test_words_of_several_chunks_with_dictionaries_of_their_own_are_coded_alike() -> None:
    chunks = [pa.array(["b", "a", None]).dictionary_encode(), pa.array(["c", "b"]).dictionary_encode()]
    codes, odd = codes_of_column(pa.chunked_array(chunks), ("a", "b"))
    assert codes[[0, 1, 4]].tolist() == [1, 0, 1]
    assert np.isnan(codes[[2, 3]]).all()
    assert list(odd) == [3]


def test_without_the_models_words_no_word_has_a_code() -> None:
    codes, odd = codes_of_column(pa.chunked_array([pa.array([3, None, 4]).dictionary_encode()]), None)
    assert np.isnan(codes).all()
    assert list(odd) == [0, 2]
    assert "does not hold the words" in odd[0]
