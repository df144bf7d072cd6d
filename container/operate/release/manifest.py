"""A release: for each segment its artifact's digest and what was found out about it. One JSON document, which never changes.

Rule: what a manifest says was seen, in the artifact or on rows held out; what nobody looked at is not in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import IO, Any

import msgspec

from container.operate.troubles import Refused

FORMAT = 1
ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")
# Metrics of which more is better; of all others less is. Source: XGBoost guide, "Learning Task Parameters", eval_metric.
MORE_IS_BETTER = re.compile(r"(auc|aucpr|ndcg|map|pre|accuracy|r2|f1)([@-].*)?")

# The model over all segments, as an endpoint finds it that has --fallback _default.tar.gz, and how the reason begins of a
# segment without one of its own for which it answers.
DEFAULT_KEY = "_default.tar.gz"
COVERED = f"{DEFAULT_KEY} answers for it: "


@dataclass(frozen=True, slots=True)
class Golden:
    """Rows to ask a running endpoint, as CSV, and each row's scores by libxgboost, float32 written as they are."""

    rows: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Golden:
        return cls(tuple(values["rows"]), tuple(tuple(row) for row in values["scores"]))


@dataclass(frozen=True, slots=True)
class Judged:
    """Candidate and live model on the same rows held out.

    live      None: there was none to compare with
    against   digest of the artifact that was live then
    """

    metric: str
    n_rows: int
    candidate: float
    live: float | None = None
    against: str | None = None

    @property
    def worse_by(self) -> float | None:
        """Share by which the candidate is worse, below 0 when it is better; None when there is nothing to compare."""
        if self.live is None:
            return None
        lost = self.candidate - self.live
        if MORE_IS_BETTER.fullmatch(self.metric):
            lost = -lost
        if lost == 0:
            return 0.0
        return lost / abs(self.live) if self.live else float("inf") * (1 if lost > 0 else -1)


@dataclass(frozen=True, slots=True)
class Features:
    """What a model wants of a row. Names and types may be unknown."""

    n: int
    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def differ(self, other: Features) -> str | None:
        """How the other's differ, in words; None when they do not."""
        if self.n != other.n:
            return f"{self.n} features, live has {other.n}"
        if self.names and other.names and self.names != other.names:
            new = [name for name in self.names if name not in other.names]
            gone = [name for name in other.names if name not in self.names]
            if not new and not gone:
                return "the same features in another order"
            return f"features differ: {', '.join([*(f'+{one}' for one in new[:3]), *(f'-{one}' for one in gone[:3])])}"
        if self.types and other.types and self.types != other.types:
            return "feature types differ"
        return None


@dataclass(frozen=True, slots=True)
class Measured:
    """One metric of the same rows: the candidate's, the live model's, and that of a constant; None where there is none."""

    metric: str
    candidate: float
    live: float | None = None
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """What a model was made of, where `mme train` made it.

    n_rows         of the segment's data that could be used; n_dropped could not
    n_held_out     of them, kept from training, which judged it
    first, last    of the data's dates; empty where there are none
    parameters     XGBoost's, but for what is the same in all runs
    drift          of the feature whose values have moved most since the release that was live: population stability index
    """

    n_rows: int
    n_held_out: int
    n_rounds: int
    parameters: tuple[tuple[str, str | int | float], ...] = ()
    measured: tuple[Measured, ...] = ()
    n_dropped: int = 0
    first: str = ""
    last: str = ""
    drift_feature: str = ""
    drift: float | None = None

    @property
    def is_above_floor(self) -> bool | None:
        """Whether it is better than a constant; None where that cannot be said."""
        one = next(iter(self.measured), None)
        if one is None or one.floor is None:
            return None
        if MORE_IS_BETTER.fullmatch(one.metric):
            return one.candidate > one.floor
        return one.candidate < one.floor

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Trained:
        """What travelled as JSON."""
        measured = tuple(Measured(**one) for one in values["measured"])
        parameters = tuple((name, value) for name, value in values["parameters"])
        return cls(**values | {"measured": measured, "parameters": parameters})


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment's model in a release."""

    digest: str
    n_bytes: int
    objective: str
    features: Features
    source: str = ""
    source_digest: str = ""
    corrections: tuple[str, ...] = ()
    golden: Golden | None = None
    judged: Judged | None = None
    trained: Trained | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON by way of `fields_of`, without its features."""
        return fields_of(replace(self, features=Features(0)))

    @classmethod
    def from_dict(cls, values: dict[str, Any], features: Features) -> Segment:
        """What travelled as JSON, with its features."""
        golden, judged, trained = values["golden"], values["judged"], values.get("trained")
        return cls(
            **values
            | {
                "features": features,
                "corrections": tuple(values["corrections"]),
                "golden": Golden.from_dict(golden) if golden else None,
                "judged": Judged(**judged) if judged else None,
                "trained": Trained.from_dict(trained) if trained else None,
            }
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """examiner   what said that the artifacts are sound; with another, sources are looked into again
    segments   by key; read back, or of a training run, each is made of its text when it is asked for: as objects thousands
               take several times the room
    refused    by key, or by name where there is no key: why it is not in the release"""

    id: str
    made_at: str
    made_by: str
    made_from: tuple[str, ...]
    note: str
    examiner: str
    segments: Mapping[str, Segment] = field(repr=False)
    refused: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def content(self) -> str:
        """The same for the same models, judged alike, whoever published them when."""
        return content_of(self.segments, self.refused)

    def to_json(self) -> bytes:
        out = io.BytesIO()  # hands over what it holds without a copy
        self.write_to(out)
        return out.getvalue()

    def write_to(self, out: IO[bytes]) -> None:
        """As JSON, a segment at a time. Feature lists are written once: thousands of segments share a few."""
        keys = sorted(self.segments)
        lists: dict[Features, int] = {}
        for key in keys:
            lists.setdefault(self.segments[key].features, len(lists))
        facts = {
            "format": FORMAT,
            "id": self.id,
            "made_at": self.made_at,
            "made_by": self.made_by,
            "made_from": self.made_from,
            "note": self.note,
            "examiner": self.examiner,
            "features": [asdict(one) for one in lists],
        }
        out.write((_text(facts).removesuffix("}") + ',"segments":{').encode())
        before = ""
        for key in keys:
            segment = self.segments[key]
            said = segment.to_dict() | {"features": lists[segment.features]}
            out.write(f"{before}{_text(key)}:{_text(said)}".encode())
            before = ","
        out.write(f'}},"refused":{_text(dict(sorted(self.refused.items())))}}}'.encode())

    @classmethod
    def from_json(cls, data: bytes, uri: str) -> Manifest:
        """Raises Refused: it is no manifest, or one of a later format."""
        try:
            found = msgspec.json.decode(data, type=_Format).format
            if found != FORMAT:
                raise Refused(f"{uri} is of format {found}, which this release of mme does not read")
            read = msgspec.json.decode(data, type=_Document)
            segments = _Written(read.segments, read.features)
            for key in segments:
                msgspec.convert(msgspec.to_builtins(segments[key]), Segment)  # every value is of its type
        except (
            msgspec.MsgspecError,
            ValueError,
            KeyError,
            TypeError,
            IndexError,
            AttributeError,
            RecursionError,
        ) as error:
            raise Refused(f"{uri} is no manifest of a release: {error}") from error
        facts = read.id, read.made_at, read.made_by, read.made_from, read.note, read.examiner
        return cls(*facts, segments, read.refused)


class _Format(msgspec.Struct):
    format: Any


class _Document(msgspec.Struct):
    """A manifest as it was written, its segments still texts."""

    id: str
    made_at: str
    made_by: str
    made_from: tuple[str, ...]
    note: str
    examiner: str
    features: tuple[Features, ...]
    segments: dict[str, msgspec.Raw]
    refused: dict[str, str]


class _Written(Mapping[str, Segment]):
    """Segments as they are written in a manifest's text."""

    def __init__(self, texts: Mapping[str, msgspec.Raw], lists: Sequence[Features]) -> None:
        self._texts = texts
        self._lists = lists
        self._last: tuple[str, Segment] | None = None  # whoever asks for one often asks again

    def __getitem__(self, key: str) -> Segment:
        last = self._last
        if last is None or last[0] != key:
            values = msgspec.json.decode(self._texts[key])
            last = self._last = key, Segment.from_dict(values, self._lists[values["features"]])
        return last[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __contains__(self, key: object) -> bool:
        return key in self._texts


def fields_of(value: Any) -> dict[str, Any]:
    """What `json.dumps(default=...)` is to write of a dataclass. `asdict` copies all that is in it first, to the last text,
    which takes ten times as long."""
    return {one.name: getattr(value, one.name) for one in fields(value)}


# One, for one that is made anew with each text takes longer than the text.
_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=fields_of).encode
_hashed_text = json.JSONEncoder(default=fields_of).encode


def content_of(segments: Mapping[str, Segment], refused: Iterable[str]) -> str:
    """Of the text [{KEY: [DIGEST, JUDGED], ...}, REFUSED], a segment at a time."""
    digest = hashlib.sha256(b"[{")
    before = ""
    for key in sorted(segments):
        one = segments[key]
        digest.update(f"{before}{_hashed_text(key)}: {_hashed_text([one.digest, one.judged])}".encode())
        before = ", "
    digest.update(f"}}, {_hashed_text(sorted(refused))}]".encode())
    return digest.hexdigest()[:8]
