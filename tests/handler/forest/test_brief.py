"""A short body in one call against the longer way: the same bytes, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.compiled import row
from handler.errors import ServingError
from handler.forest.model import Forest
from handler.forest.packed import pack
from handler.importer import import_booster
from handler.messages import Request
from handler.payload import AWS, OURS, Conventions, Predictions, around_scores, encode
from handler.payload.decode import FORMS
from handler.predictor import Facts, Iterations
from handler.scoring import PlainScoring, read_rows
from tests.rig import boosters

pytestmark = pytest.mark.skipif(row is None, reason="there was no C compiler, or none of Python's headers")

N_FEATURES = 6
N_FLOATS = 200_000
MANTISSA_BITS = 23
LEAST_PLAIN, MOST_PLAIN = 114, 150  # exponents as stored: 1.2e-4 to 2 ** 24


def forest(**parameters: Any) -> Forest:
    learner = import_booster(boosters.document(boosters.train(N_FEATURES, **parameters)), "x").learner
    packed = pack(learner)
    assert packed is not None
    facts = Facts(learner.objective, learner.booster, learner.n_features, learner.n_groups, len(packed))
    return Forest(packed, facts, None)  # type: ignore[arg-type]  nobody asks it for what is not walked


MODELS = {
    "squarederror": forest(),
    "logistic": forest(objective="binary:logistic"),
    "hinge": forest(objective="binary:hinge"),
    "poisson": forest(objective="count:poisson", seed=3),
}
CLASSES = forest(objective="multi:softprob", num_class=3)


CSV, JSON, JSONLINES = FORMS


def long_way(model: Forest, body: bytes, content_type: str = CSV, media_type: str = CSV) -> bytes:
    return encode(Predictions(model.predict(read_rows(body, content_type, model.facts))), media_type)


def brief_way(model: Forest, body: bytes, content_type: str = CSV, media_type: str = CSV) -> bytes | None:
    return model.score_brief(body, FORMS[content_type], around_scores(OURS)[media_type])


# -- text ------------------------------------------------------------------------------------------------------------------


def texts(bits: np.ndarray[Any, Any]) -> list[bytes]:
    return orjson.dumps(bits.view(np.float32), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def differing(bits: np.ndarray[Any, Any]) -> list[tuple[int, bytes, bytes]]:
    assert row is not None
    ours = [row.float_text(one) for one in bits.tolist()]
    return [
        (one, mine, theirs)
        for one, mine, theirs in zip(bits.tolist(), ours, texts(bits), strict=True)
        if mine is not None and mine != theirs
    ]


def test_any_bits_are_written_as_orjson_writes_them_or_not_at_all() -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, N_FLOATS, dtype=np.uint32)
    assert differing(bits) == []


def test_ordinary_numbers_are_written_and_as_orjson_writes_them() -> None:
    assert row is not None
    random = np.random.default_rng(2)
    exponent = random.integers(LEAST_PLAIN, MOST_PLAIN + 1, N_FLOATS, dtype=np.uint32) << MANTISSA_BITS
    sign = random.integers(0, 2, N_FLOATS, dtype=np.uint32) << 31
    bits = sign | exponent | random.integers(1, 2**MANTISSA_BITS, N_FLOATS, dtype=np.uint32)
    assert differing(bits) == []
    assert all(row.float_text(one) is not None for one in bits[:1000].tolist())


def test_numbers_people_write_and_the_edges_of_what_is_ordinary_are_written_as_orjson_does() -> None:
    cents = np.arange(-100_000, 100_000).astype(np.float32)
    powers = np.float32(2) ** np.arange(-149, 128).astype(np.float32)
    near = np.concatenate([np.nextafter(powers, np.float32(0)), powers, np.nextafter(powers, np.float32(np.inf))])
    few = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)
    for values in (cents, cents / np.float32(100), cents / np.float32(10_000), near, -near):
        assert differing(np.ascontiguousarray(values, np.float32).view(np.uint32)) == []
    assert row is not None
    assert [row.float_text(one) for one in few.view(np.uint32).tolist()] == [b"0.0", b"-0.0", None, None, None]


# -- lines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_an_ordinary_line_has_the_bytes_of_the_longer_way(name: str) -> None:
    model = MODELS[name]
    x = np.random.default_rng(5).normal(0.5, 1.0, (2000, N_FEATURES)).astype(np.float32)
    n_given = 0
    for values in x:
        body = ",".join(map(repr, map(float, values))).encode() + b"\r\n"
        given_ = brief_way(model, body)
        n_given += given_ is not None
        assert given_ in (None, long_way(model, body))
    assert n_given > 1000 or name == "hinge"  # whose scores are powers of two, and zero


CELL = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.floats().map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.sampled_from(["", "nan", "NaN", "-0", "+1", ".5", "5.", "1e5", "1E-3", "01", "1e400", "1e39"]),
    st.sampled_from(["x", '"1"', " 1", "1 ", "inf"]),
    st.text("0123456789.eE+-,\t\n", max_size=12),
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    st.lists(CELL, min_size=1, max_size=N_FEATURES + 1),
    st.sampled_from(["", "\n", "\r\n", "\n\n", "\r", "\n1,2,3,4,5,6"]),
)
def test_whatever_the_line_is_the_answer_is_none_or_the_longer_ways(cells: list[str], end: str) -> None:
    body = (",".join(cells) + end).encode()
    given_ = brief_way(MODELS["squarederror"], body)
    if given_ is not None:
        assert given_ == long_way(MODELS["squarederror"], body)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_none_or_the_longer_ways(body: bytes) -> None:
    given_ = brief_way(MODELS["squarederror"], body)
    if given_ is not None:
        assert given_ == long_way(MODELS["squarederror"], body)


def test_what_is_no_ordinary_lines_for_one_output_goes_the_longer_way() -> None:
    line = b"1,2,3,4,5,6"
    assert brief_way(CLASSES, line) is None
    for body in (
        b"",
        b"\n",
        line + b"\n\n" + line,
        line + b"\n" + line[2:],
        (line + b"\n") * 600,
        b"1,2",
        line + b",7",
        b"1;2;3;4;5;6",
        b"1," * 5000,
        b"\xef\xbb\xbf" + line,
    ):
        assert brief_way(MODELS["squarederror"], body) is None


@pytest.mark.parametrize(
    "said",
    [{"best_rounds": 2, "stops_early": True}, {"missing": -999.0}, {"categories": ((0, ("a", "b")),)}],
    ids=["early", "missing", "categories"],
)
def test_a_model_whose_writer_says_how_it_predicts_goes_the_longer_way(said: dict[str, Any]) -> None:
    plain = MODELS["squarederror"]
    told = Forest(plain._packed, replace(plain.facts, **said), None)  # type: ignore[arg-type]
    assert brief_way(told, b"1,2,3,4,5,6") is None
    assert brief_way(plain, b"1,2,3,4,5,6") is not None


def test_which_rounds_answer_is_asked_the_longer_way() -> None:
    request = Request({"content-type": "text/csv"}, b"1,2,3,4,5,6")
    asked = PlainScoring().score(request, "t", MODELS["squarederror"], (), "text/csv", Iterations.ALL)
    assert asked.body == long_way(MODELS["squarederror"], request.body)


# -- tables ----------------------------------------------------------------------------------------------------------------


def bodies_of(cells: list[list[str]], blank: str = "") -> list[tuple[str, bytes]]:
    """The same rows in each spelling that is read."""
    lists = [f"{blank}[{blank}" + f"{blank},{blank}".join(row) + f"{blank}]{blank}" for row in cells]
    members = [f'{blank}{{{blank}"features"{blank}:{row}}}{blank}' for row in lists]
    lines = "\n".join(lists), "\r\n".join(members) + "\n"
    texts = [f'{{{blank}"instances"{blank}:{blank}[{",".join(rows)}]{blank}}}' for rows in (lists, members)]
    texts += [f"[{','.join(rows)}]{blank}" for rows in (lists, members)]
    texts += [lists[0], members[0]] if len(cells) == 1 else []
    csv = ("\n".join(",".join(row) for row in cells), "\r\n".join(",".join(row) for row in cells) + "\r\n")
    return (
        [(JSON, text.encode()) for text in texts]
        + [(JSONLINES, text.encode()) for text in lines]
        + [(CSV, text.replace("null", "nan").encode()) for text in csv if not blank]
    )


@pytest.mark.parametrize("media_type", FORMS)
@pytest.mark.parametrize("n_rows", [1, 2, 23, 24, 60])  # some are walked, more are scored in bulk
def test_ordinary_tables_are_answered_with_the_bytes_of_the_longer_way(n_rows: int, media_type: str) -> None:
    model = MODELS["logistic"]
    x = np.random.default_rng(n_rows).normal(0.5, 1.0, (n_rows, N_FEATURES)).astype(np.float32)
    cells = [["null" if value > 2 else repr(round(float(value), 4)) for value in row] for row in x]
    for content_type, body in bodies_of(cells) + bodies_of(cells, " "):
        assert brief_way(model, body, content_type, media_type) == long_way(model, body, content_type, media_type)


# -- where it is used ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conventions", [OURS, Conventions(one_line=True), AWS])
@pytest.mark.parametrize(
    ("content_type", "body", "media_type"),
    [
        ("text/csv", b"1,2,3,4,5,6", "text/csv"),
        ("text/csv;label_size=1", b"9,1,2,3,4,5,6", "text/csv"),
        ("text/csv", b"1,2,3,4,5,6", "application/json"),
        ("text/csv", b"1,2,3,4,5,6\n6,5,4,3,2,1\n", "text/csv"),
        ("application/json", b'{"instances":[[1,2,3,4,5,6],[6,5,4,3,2,1]]}', "application/json"),
        ("application/json", b"[1,2,3,4,5,6]", "text/csv"),
        ("application/jsonlines", b'{"features":[1,2,3,4,5,6]}', "application/jsonlines"),
        ("application/jsonlines", b"[1,2,3,4,5,6]\n[6,5,4,3,2,1]", "application/x-npy"),
    ],
)
def test_an_endpoint_answers_the_same_with_it_as_without(
    monkeypatch: pytest.MonkeyPatch, content_type: str, body: bytes, media_type: str, conventions: Conventions
) -> None:
    def answer() -> bytes:
        request = Request({"content-type": content_type}, body)
        return PlainScoring(conventions).score(request, "a", MODELS["squarederror"], (), media_type).body

    quick = answer()
    monkeypatch.setattr(Forest, "score_brief", lambda *_: None)
    assert answer() == quick


def test_what_is_refused_is_refused_in_the_same_words() -> None:
    request = Request({"content-type": "text/csv"}, b"1,2")
    with pytest.raises(ServingError, match="the model has 6 features, the rows have 2"):
        PlainScoring().score(request, "a", MODELS["squarederror"], (), "text/csv")
