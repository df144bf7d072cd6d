"""From a body and its Content-Type to rows.

Rule: the exact header string is looked up before anything is parsed; 99 % of requests say "text/csv" and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from handler.errors import ContentTypeUnsupported, PayloadInvalid
from handler.payload import media
from handler.payload.arrow import read_arrow_file, read_arrow_stream, read_parquet
from handler.payload.delimited import read_csv
from handler.payload.jsonbody import read_json, read_jsonlines
from handler.payload.libsvm import read_libsvm
from handler.payload.npy import read_npy
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

CONTENT_TYPES = tuple(_READERS)

# What UTF-8 text may be called; numbers are ASCII, so these all read the same.
_ASCII_SUPERSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "latin1"})


def decode(body: bytes, content_type: str, n_features: int) -> Rows:
    """The rows a body holds.

    body           as it arrived
    content_type   the Content-Type header, parameters and all; empty means text/libsvm, as in AWS's image
    n_features     the model's: the width of a sparse row; the width of a dense one is checked by `fit_rows`
    raises         ContentTypeUnsupported, PayloadInvalid, and FeatureMismatch where a body cannot be read without
                   its width (libsvm indices, rows absurdly wide)
    """
    reader = _READERS.get(content_type) or _reader(content_type)
    if not body:
        raise PayloadInvalid("", "the body is empty")
    return reader(body, n_features)


@lru_cache(maxsize=media.REMEMBERED)
def _reader(content_type: str) -> Reader:
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
    return reader


def _csv_reader(content_type: str, parameters: dict[str, str]) -> Reader:
    """AWS's image takes `label_size=1`, the spelling of training, and no other; 0 is what a request means."""
    label_size = parameters.get("label_size", "0")
    if label_size not in {"0", "1"}:
        raise ContentTypeUnsupported(content_type, CONTENT_TYPES)
    return partial(read_csv, may_have_label=label_size == "1")
