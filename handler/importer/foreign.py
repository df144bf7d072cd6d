"""What a file is that is no booster, for the words that refuse it.

Rule: looked at only when a file has turned out to be no booster, so a guess here can misname and never refuse.
"""

from __future__ import annotations

import re
import struct

SAVE = "save the booster with Booster.save_model"
EXPORTED = "XGBoost cannot read it back, nor can we; publish the booster it was made of"
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")  # what joblib.dump(compress=...) begins with
# Text that stands in a document's first bytes, or anywhere in one.
_BEGINNINGS = (
    (b"CBM1", "a CatBoost model; this endpoint serves XGBoost's boosters only"),
    (b"tree\nversion=", "a LightGBM model; this endpoint serves XGBoost's boosters only"),
    (b"booster[0]:", f"a dump for people to read (dump_model), which lacks what predicting needs; {SAVE}"),
    (b"\x93NUMPY", "an array of NumPy's"),
    (b"\x89HDF", "an HDF5 file"),
    (b"%PDF", "a PDF"),
    (b"PAR1", "a Parquet file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip stream inside the archive"),
)
_DUMP = re.compile(rb'\s*\[\s*\{\s*"nodeid"')
_PMML = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<PMML\b")
_HEAD_BYTES = 4096
# An ONNX ModelProto: ir_version, then the producer's name.
_ONNX = re.compile(rb"\x08[\x01-\x20](?:\x12[\x01-\x40])?", re.DOTALL)
_TREELITE = struct.Struct("<3iB")


def named(data: bytes | memoryview) -> str | None:
    """What it is, and what to do where there is something: "a LightGBM model; ..."; None when nobody knows."""
    if not len(data):
        return "an empty file"
    head = bytes(data[:_HEAD_BYTES])
    for beginning, what in _BEGINNINGS:
        if head.startswith(beginning):
            return what
    if head[:2] in _ZLIB:
        return f"compressed the way joblib does it; {SAVE}"
    if _DUMP.match(head):
        return f"a dump for people to read (dump_model as JSON), which lacks what predicting needs; {SAVE}"
    if _PMML.match(head):
        return f"a PMML document; {EXPORTED}"
    if head.lstrip()[:1] == b"{":
        return _json(bytes(data))
    if _ONNX.match(head) and b"onnx" in head.lower():
        return f"an ONNX model; {EXPORTED}"
    return _binary(head)


def _json(text: bytes) -> str | None:
    if b'"num_tree_per_iteration"' in text:
        return "a LightGBM model (dump_model); this endpoint serves XGBoost's boosters only"
    if b'"features_info"' in text and (b'"oblivious_trees"' in text or b'"model_info"' in text):
        return "a CatBoost model; this endpoint serves XGBoost's boosters only"
    if b'"learner_train_param"' in text and b'"trees"' not in text and b'"weights"' not in text:
        return f"a configuration (save_config), which has no trees; {SAVE}"
    return None


def _binary(head: bytes) -> str | None:
    # xgboost4j-spark puts the number of classes before the booster of a classifier, dmlc/xgboost#7895.
    is_counted = len(head) > 6 and head[:3] == b"\0\0\0" and head[3] >= 2
    if is_counted and (b"binary:" in head or b"multi:" in head or head[4:6] == b"{L"):
        return (
            "what xgboost4j-spark saves for a classifier: four bytes with the number of classes, and then the booster; save "
            "it with nativeBooster.saveModel, or cut the four bytes off (tail -c +5)"
        )
    if len(head) >= _TREELITE.size:
        major, minor, patch, _ = _TREELITE.unpack_from(head)
        if 1 <= major <= 9 and 0 <= minor <= 99 and 0 <= patch <= 99:
            return f"a Treelite model; {EXPORTED}"
    return None
