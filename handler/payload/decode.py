"""From a body and its Content-Type to rows.

Rule: the exact header string is looked up before anything is parsed; 99 % of requests say "text/csv" and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from handler.errors import BodyEmpty, ContentTypeUnsupported, FeatureMismatch, PayloadInvalid
from handler.payload import media
from handler.payload.arrow import read_arrow_file, read_arrow_stream, read_parquet
from handler.payload.delimited import read_csv
from handler.payload.jsonbody import read_json, read_jsonlines
from handler.payload.libsvm import read_libsvm
from handler.payload.npy import npy_shape, read_npy
from handler.payload.recordio import read_recordio
from handler.payload.rows import Rows

Reader = Callable[[bytes, int], Rows]

_READERS: dict[str, Reader] = {
    media.CSV: read_csv,
    media.JSON: read_json,
    media.JSONLINES: read_jsonlines,
    media.LIBSVM: read_libsvm,
    media.RECORDIO: read_recordio,
    media.NPY: read_npy,
    media.PARQUET: read_parquet,
    media.ARROW_STREAM: read_arrow_stream,
    media.ARROW_FILE: read_arrow_file,
}

# Rows that may say how wide they are.
_SHORT_READERS: dict[str, Callable[..., Rows]] = {
    media.JSON: read_json,
    media.JSONLINES: read_jsonlines,
    media.RECORDIO: read_recordio,
}

CONTENT_TYPES = tuple(_READERS)

# What forest/brief.c reads itself, by its numbers for it.
FORMS = {media.CSV: 0, media.JSON: 1, media.JSONLINES: 2}

# What UTF-8 text may be called; numbers are ASCII, so these all read the same.
_ASCII_SUPERSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1"})


def decode(body: bytes, content_type: str, n_features: int, *, may_be_short: bool = False) -> Rows:
    """The rows a body holds.

    body           as it arrived
    content_type   the Content-Type header, parameters and all; empty means text/libsvm, as in AWS's image
    n_features     the model's: the width of a sparse row; the width of a dense one is checked by `fit_rows`
    may_be_short   a sparse row may say that it has fewer features
    raises         ContentTypeUnsupported, PayloadInvalid, and FeatureMismatch where a body cannot be read without
                   its width (libsvm indices, rows absurdly wide)
    """
    reader = _READERS.get(content_type)
    if reader is None or may_be_short:
        reader = _reader(content_type, may_be_short)
    if not body:
        raise BodyEmpty
    return reader(body, n_features) if content_type else _read_unnamed(body, n_features, reader)


def stated_shape(body: bytes, content_type: str) -> tuple[int, int]:
    """How many rows and columns a body holds, where its format says so before they are read; else (0, 0). Raises
    PayloadInvalid."""
    return npy_shape(body) if body and content_type.partition(";")[0].strip().lower() == media.NPY else (0, 0)


def _read_unnamed(body: bytes, n_features: int, reader: Reader) -> Rows:
    assumed = "there was no Content-Type, so the body was read as text/libsvm, as AWS's image reads it"
    try:
        return reader(body, n_features)
    except PayloadInvalid as error:
        raise PayloadInvalid(error.where, f"{error.why}; {assumed}") from error
    except FeatureMismatch as error:
        raise FeatureMismatch(f"{error}; {assumed}") from error


@lru_cache(maxsize=media.REMEMBERED)
def _reader(content_type: str, may_be_short: bool = False) -> Reader:
    name, parameters = media.parse_media_type(content_type or media.LIBSVM)
    reader = _READERS.get(name)
    if reader is None or parameters.get("charset", "utf-8").lower() not in _ASCII_SUPERSETS:
        raise ContentTypeUnsupported(content_type, CONTENT_TYPES)
    if name == media.CSV:
        return _csv_reader(content_type, parameters)
    if "index_base" in parameters and name == media.LIBSVM:
        if parameters["index_base"] not in {"0", "1"}:
            raise ContentTypeUnsupported(content_type, CONTENT_TYPES)
        return partial(read_libsvm, index_base=int(parameters["index_base"]))
    if may_be_short and name in _SHORT_READERS:
        return partial(_SHORT_READERS[name], may_be_short=True)
    return reader


def _csv_reader(content_type: str, parameters: dict[str, str]) -> Reader:
    """AWS's image takes `label_size=1`, the spelling of training, and no other; 0 is what a request means."""
    label_size = parameters.get("label_size", "0")
    if label_size not in {"0", "1"}:
        raise ContentTypeUnsupported(content_type, CONTENT_TYPES)
    return partial(read_csv, may_have_label=label_size == "1")
