"""A manifest's text, written a segment at a time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace

import pytest

from container.operate.release.manifest import (
    FORMAT,
    Features,
    Golden,
    Judged,
    Manifest,
    Measured,
    Segment,
    Trained,
    content_of,
    fields_of,
)

PLAIN = Segment("ab" * 32, 9, "reg:squarederror", Features(2, ("x", "ÿ\u2028"), ("float", "c")))
TRAINED = replace(
    PLAIN,
    golden=Golden(("1,2", ",3"), ((0.1,), (-0.0,))),
    judged=Judged("rmse", 5, 1e-9, None, None),
    trained=Trained(7, 5, 3, (("eta", 1), ("objective", 'a"b')), (Measured("rmse", 1e-9, None, 2.0),)),
    corrections=("one",),
)
SEGMENTS = {
    "us/z.tar.gz": TRAINED,
    'us/"ü\n.tar.gz': replace(PLAIN, features=Features(3)),
    "us/a.tar.gz": PLAIN,
    "us/b.tar.gz": replace(TRAINED, judged=Judged("auc", 5, 0.5, 0.25, "cd" * 32)),
}
REFUSED = {"us/y.tar.gz": "it is small", "us/é.tar.gz": 'all "its" labels'}


@pytest.mark.parametrize("n_segments", [0, 1, 4])
@pytest.mark.parametrize("refused", [{}, REFUSED])
def test_written_a_segment_at_a_time_it_is_what_it_is_written_whole(n_segments: int, refused: dict[str, str]) -> None:
    segments = dict(list(SEGMENTS.items())[:n_segments])
    made = Manifest("20261129-213503-e638de33", "then", "me", ("a", "b"), "nöte", "it", segments, refused)
    lists: dict[Features, int] = {}
    by_key = {
        key: one.to_dict() | {"features": lists.setdefault(one.features, len(lists))}
        for key, one in sorted(segments.items())
    }
    whole = {
        "format": FORMAT,
        **{name: getattr(made, name) for name in ("id", "made_at", "made_by", "made_from", "note", "examiner")},
        "features": [asdict(one) for one in lists],
        "segments": by_key,
        "refused": dict(sorted(refused.items())),
    }
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=fields_of)
    assert made.to_json() == text.encode()
    assert Manifest.from_json(made.to_json(), "x") == made
    judged = {key: [one.digest, one.judged] for key, one in sorted(segments.items())}
    hashed = json.dumps([judged, sorted(refused)], default=fields_of).encode()
    assert content_of(segments, refused) == hashlib.sha256(hashed).hexdigest()[:8]
