"""Media types: what a Content-Type header says, and which answer an Accept header asks for.

Rule: a header is parsed once; the same few strings arrive with every request and are looked up after that.
"""

from __future__ import annotations

from functools import lru_cache

from handler.errors import AcceptUnsupported

CSV = "text/csv"
JSON = "application/json"
JSONLINES = "application/jsonlines"
NPY = "application/x-npy"
RECORDIO = "application/x-recordio-protobuf"
LIBSVM = "text/libsvm"
PARQUET = "application/x-parquet"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"

# The first is the answer to "anything": AWS's image answers a missing Accept and `*/*` with CSV.
ACCEPTED = (CSV, JSON, JSONLINES, NPY, RECORDIO)

# What people write for them. The bare words are AWS's own.
ALIASES = {
    "csv": CSV,
    "json": JSON,
    "jsonlines": JSONLINES,
    "application/x-jsonlines": JSONLINES,
    "application/x-ndjson": JSONLINES,
    "npy": NPY,
    "recordio-protobuf": RECORDIO,
    "libsvm": LIBSVM,
    "text/x-libsvm": LIBSVM,
    "parquet": PARQUET,
    "application/parquet": PARQUET,
    "application/vnd.apache.parquet": PARQUET,
}

# Distinct headers remembered; a caller who sends a new one every time costs a parse, not memory.
REMEMBERED = 256

# An Accept of more parts than this is not a person's; the rest is not read.
MAX_ACCEPT_PARTS = 32


def parse_media_type(text: str) -> tuple[str, dict[str, str]]:
    """The media type, lower case with aliases resolved, and its parameters.

    source   RFC 9110, 8.3.1
    """
    name, *pairs = text.split(";")
    parameters = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        parameters[key.strip().lower()] = value.strip().strip('"')
    name = name.strip().lower()
    return ALIASES.get(name, name), parameters


def choose_media_type(accept: str | None) -> str:
    """The media type to answer with: the caller's favourite among those we write.

    accept   the Accept header: None or empty for "anything"; ranges, q-values and several values are understood
    returns  one of ACCEPTED
    raises   AcceptUnsupported
    source   RFC 9110, 12.5.1
    """
    return CSV if accept is None else _choose(accept)


@lru_cache(maxsize=REMEMBERED)
def _choose(accept: str) -> str:
    wanted: dict[str, float] = {}
    for part in accept.split(",")[:MAX_ACCEPT_PARTS]:
        name, parameters = parse_media_type(part)
        if name:
            wanted.setdefault(name, _quality(parameters.get("q", "1")))
    if not wanted:
        return CSV

    def quality(media_type: str) -> float:
        kind = media_type.partition("/")[0] + "/*"
        return wanted.get(media_type, wanted.get(kind, wanted.get("*/*", wanted.get("*", 0.0))))

    named = list(wanted)

    def place(media_type: str) -> int:
        # Of equals, what is named outright and first wins over what a range lets in.
        return named.index(media_type) if media_type in wanted else len(named) + ACCEPTED.index(media_type)

    best = max(ACCEPTED, key=lambda media_type: (quality(media_type), -place(media_type)))
    if quality(best) <= 0.0:
        raise AcceptUnsupported(accept, ACCEPTED)
    return best


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0
