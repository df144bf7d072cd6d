"""From predictions to the bytes of an answer.

Rule: a float32 is written as the shortest decimal that reads back as the same float32: by orjson for whole arrays at once,
whose separators are then put right with bytes.replace, and to the same letters by brief.c, where a row of many is one
number. NaN (no prediction is one, but a float may be) is null in JSON and nan in CSV.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from handler.compiled import row
from handler.errors import AcceptUnsupported
from handler.payload import media
from handler.payload.conventions import OURS, Conventions
from handler.payload.recordio import write_recordio

EXACT_IN_FLOAT32 = 1 << 24
_NUMPY = orjson.OPT_SERIALIZE_NUMPY
# Numbers that are written in one go, 0.3 ms: nobody else gets the interpreter meanwhile. More are written in pieces.
PIECE_NUMBERS = 10_000
# From here on C writes all of them, to the same letters: it needs no lock for that, and to ask for it again may take longer
# than writing fewer.
MANY_NUMBERS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What is to be written, at least one row of it.

    outputs   scores, (n_rows, n_outputs); or named outputs, rows along the first axis: (n_rows,) for a number per row,
              more axes for a list per row
    """

    outputs: NDArray[Any] | Mapping[str, NDArray[Any]]


# A text's beginning, what stands between two scores, and its end: where a row is one score.
Around = tuple[bytes, bytes, bytes]
_AROUND: dict[str, Around] = {
    media.CSV: (b"", b"\n", b""),
    media.JSON: (b'{"predictions":[{"score":', b'},{"score":', b"}]}"),
    media.JSONLINES: (b'{"score":', b'}\n{"score":', b"}\n"),
}


def around_scores(conventions: Conventions) -> Mapping[str, Around]:
    """What `encode` puts around the texts of plain scores, one a row, for each media type that is made of such."""
    if conventions.is_aws:
        return {}
    return _AROUND | {media.CSV: (b"", b",", b"")} if conventions.one_line else _AROUND


def encode(predictions: Predictions, media_type: str, conventions: Conventions = OURS) -> bytes:
    """The answer's body.

    predictions   scores or named outputs
    media_type    as `Conventions.media_type` gave it
    raises        AcceptUnsupported for a media type we have no writer for
    """
    outputs = predictions.outputs
    if conventions.is_aws:
        media_type = media.parse_media_type(media_type)[0]
    if isinstance(outputs, np.ndarray):
        if not outputs.flags.c_contiguous:  # orjson takes no other
            outputs = np.ascontiguousarray(outputs)
        if conventions.is_aws and media_type in _AWS_WRITERS:
            return _AWS_WRITERS[media_type](outputs)
        around = around_scores(conventions).get(media_type)
        text = None if around is None else _text_of_many(outputs, around)
        if text is not None:
            return text
        if conventions.one_line and media_type == media.CSV:
            return _scores_one_line(outputs)
        write_scores = _SCORE_WRITERS.get(media_type)
        if write_scores is not None:
            return write_scores(outputs)
    else:
        if media_type == media.RECORDIO and not all(map(_fits_floats, outputs.values())):
            # Its tensors are float32, which labels that are texts or large numbers are not.
            raise AcceptUnsupported(media_type, [other for other in media.ACCEPTED if other != media.RECORDIO])
        write_named = _NAMED_WRITERS.get(media_type)
        if write_named is not None:
            return write_named({name: np.ascontiguousarray(column) for name, column in outputs.items()})
    raise AcceptUnsupported(media_type, media.ACCEPTED)


def _pieces(scores: NDArray[Any]) -> Iterator[NDArray[Any]]:
    n_rows = max(1, PIECE_NUMBERS // max(1, scores[0].size))
    return (scores[start : start + n_rows] for start in range(0, len(scores), n_rows))


def _joined(head: bytes, between: bytes, pieces: list[bytes], tail: bytes) -> bytes:
    """Head, pieces and tail in one go: adding to a long answer would copy it again, with the interpreter lock held."""
    pieces[0] = head + pieces[0]
    pieces[-1] += tail
    return between.join(pieces)


def _fits_floats(column: NDArray[Any]) -> bool:
    return column.dtype.kind == "f" or (
        column.dtype.kind in "iub" and bool((np.abs(column.astype(np.int64)) <= EXACT_IN_FLOAT32).all())
    )


def _text_of_many(scores: NDArray[Any], around: Around) -> bytes | None:
    """One number a row, written without the interpreter lock; None where that is not to be had: of few, of other numbers than
    float32, and where C has no text for one."""
    if row is None or len(scores) < MANY_NUMBERS or scores.dtype != np.float32 or scores.shape[1:] != (1,):
        return None
    return row.write_scores(scores.__array_interface__["data"][0], len(scores), *around)


def _scores_csv(scores: NDArray[Any], between: bytes = b"\n") -> bytes:
    """Rows, with `between` between two of them and a comma between the numbers of one."""
    return between.join([_csv_text(piece)[2:-2].replace(b"],[", between) for piece in _pieces(scores)])


def _scores_one_line(scores: NDArray[Any]) -> bytes:
    """`0.5,1.5`, or with several outputs `[0.5, 0.2],[1.5, 0.1]`, which is no CSV: what AWS's multi-model handler writes, but
    for the digits, which are float32's here and float64's there."""
    if scores.shape[1] == 1:
        return _scores_csv(scores, b",")
    return b",".join(
        [_csv_text(piece)[1:-1].replace(b",", b", ").replace(b"], [", b"],[") for piece in _pieces(scores)]
    )


def _aws_csv(scores: NDArray[Any]) -> bytes:
    """source   aws/sagemaker-xgboost-container at v3.0-5, algorithm_mode/handler_service.py, default_output_fn"""
    return b",".join([",".join(map(str, _aws_list(piece))).encode() for piece in _pieces(scores)])


def _aws_json(scores: NDArray[Any]) -> bytes:
    """source   aws/sagemaker-inference-toolkit at v1.5.5, encoder.py, _array_to_json"""
    return _joined(b"[", b", ", [json.dumps(_aws_list(piece))[1:-1].encode() for piece in _pieces(scores)], b"]")


def _aws_list(scores: NDArray[Any]) -> list[Any]:
    """Python's floats, which show each float32 with the digits of a float64."""
    plain: list[Any] = (scores[:, 0] if scores.shape[1] == 1 else scores).tolist()
    return plain


def _scores_json(scores: NDArray[Any]) -> bytes:
    return _joined(b'{"predictions":[', b",", [_score_objects(piece, b",") for piece in _pieces(scores)], b"]}")


def _scores_jsonlines(scores: NDArray[Any]) -> bytes:
    return _joined(b"", b"\n", [_score_objects(piece, b"\n") for piece in _pieces(scores)], b"\n")


def _score_objects(scores: NDArray[Any], between: bytes) -> bytes:
    """{"score":0.5} for each row, or {"score":[0.5,0.2]} when a row has several outputs."""
    text = orjson.dumps(scores, option=_NUMPY)
    if scores.shape[1] == 1:
        return b'{"score":' + text[2:-2].replace(b"],[", b"}" + between + b'{"score":') + b"}"
    return b'{"score":' + text[1:-1].replace(b"],[", b"]}" + between + b'{"score":[') + b"}"


def _csv_text(values: NDArray[Any]) -> bytes:
    """A JSON array, but for NaN and the infinities, which JSON has no words for."""
    text = orjson.dumps(values, option=_NUMPY)
    if b"null" in text:
        words = json.dumps(values.astype(str).tolist(), separators=(",", ":"))
        text = words.replace('"', "").encode()
    return text


def _named_csv(columns: Mapping[str, NDArray[Any]]) -> bytes:
    cells = [_csv_cells(column) for column in columns.values()]
    rows = zip(*cells, strict=True)
    n_rows = max(1, PIECE_NUMBERS // len(cells))
    pieces = []
    while piece := list(islice(rows, n_rows)):
        pieces.append(b"\n".join(map(b",".join, piece)))
    return b"\n".join(pieces)


def _csv_cells(column: NDArray[Any]) -> list[bytes]:
    """One cell per row; a list is written as AWS's image does, in quotes: "[0.4, 0.6]"."""
    if column.dtype.kind == "U":  # what an XGBClassifier calls its classes
        texts = column.tolist() if column.ndim == 1 else [json.dumps(row) for row in column.tolist()]
        return [_csv_quoted(text) for text in texts]
    if column.ndim == 1:
        return [cell for piece in _pieces(column) for cell in _csv_text(piece)[1:-1].split(b",")]
    return [b'"' + _csv_text(row).replace(b",", b", ") + b'"' for row in column]


def _csv_quoted(text: str) -> bytes:
    """RFC 4180, 2.6 and 2.7."""
    quoted = '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text
    return quoted.encode()


def _named_json(columns: Mapping[str, NDArray[Any]]) -> bytes:
    records = (orjson.dumps(record, option=_NUMPY) for record in _records(columns))
    return _joined(b'{"predictions":[', b",", list(records), b"]}")


def _named_jsonlines(columns: Mapping[str, NDArray[Any]]) -> bytes:
    option = _NUMPY | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps(record, option=option) for record in _records(columns))


def _records(columns: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, Any]]:
    # orjson writes arrays of numbers, and texts only as Python has them
    plain = [column.tolist() if column.dtype.kind == "U" else column for column in columns.values()]
    for values in zip(*plain, strict=True):
        yield dict(zip(columns, values, strict=True))


def _scores_npy(scores: NDArray[Any]) -> bytes:
    """(n_rows,) for a model with one output, as Booster.predict gives it; else (n_rows, n_outputs)."""
    return _npy(scores[:, 0] if scores.shape[1] == 1 else scores)


def _named_npy(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """A structured array: one field per output, one element per row."""
    fields = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    table = np.empty(len(next(iter(columns.values()))), dtype=fields)
    for name, column in columns.items():
        table[name] = column
    return _npy(table)


def _npy(array: NDArray[Any]) -> bytes:
    written = _Written()
    np.save(written, array, allow_pickle=False)
    return b"".join(written.parts)


class _Written:
    """What numpy takes for a file."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, part: bytes) -> None:
        self.parts.append(part)


_SCORE_WRITERS: dict[str, Callable[[NDArray[Any]], bytes]] = {
    media.CSV: _scores_csv,
    media.JSON: _scores_json,
    media.JSONLINES: _scores_jsonlines,
    media.NPY: _scores_npy,
    media.RECORDIO: lambda scores: write_recordio({"score": scores}),
}

_AWS_WRITERS: dict[str, Callable[[NDArray[Any]], bytes]] = {media.CSV: _aws_csv, media.JSON: _aws_json}

_NAMED_WRITERS: dict[str, Callable[[Mapping[str, NDArray[Any]]], bytes]] = {
    media.CSV: _named_csv,
    media.JSON: _named_json,
    media.JSONLINES: _named_jsonlines,
    media.NPY: _named_npy,
    media.RECORDIO: write_recordio,
}
