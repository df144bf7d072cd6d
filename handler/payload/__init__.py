"""Bodies in, bodies out: what a caller's bytes say, and how an answer is written.

Rule: values in, values out. No sockets, no XGBoost, no environment; every refusal names a place in the body.
"""

from handler.payload.conventions import AWS, OURS, Conventions
from handler.payload.decode import CONTENT_TYPES, decode
from handler.payload.encode import Predictions, around_scores, encode
from handler.payload.media import ACCEPTED, choose_media_type
from handler.payload.rows import Rows, fit_rows

__all__ = [
    "ACCEPTED",
    "AWS",
    "CONTENT_TYPES",
    "OURS",
    "Conventions",
    "Predictions",
    "Rows",
    "around_scores",
    "choose_media_type",
    "decode",
    "encode",
    "fit_rows",
]
