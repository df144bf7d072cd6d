"""Coverage-guided fuzzing of everything that reads bytes of strangers. Not part of the tests, which do it with Hypothesis.

    pip install -e '.[fuzz]'
    python -m benchmarks.fuzz importer [--seconds 300] [--keep DIR]

    archive    read_artifact: gzip, tar, which member
    importer   import_booster, and what it lets through loaded and asked by libxgboost, which must survive it
    pickles    the reader of pickles alone
    wire       MMS's frames, whole and in pieces, which must give the same messages
    lane       the lane's frames
    forest     packed forests: what is sound is walked, gone through and written as XGBoost's document
    disk       files of the disk tier, their checksum put right: found of their types, or not found
    bodies     every content type: rows, or a refusal; in small pieces as in one
    manifest, live, train, batch, warm, captured, pipeline, event
               documents that are read back, each as its command reads it

A finding is an exception that is none of ours, a crash, a hang or memory out of bounds; its input is kept in DIR.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import math
import random
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import atheris
import msgspec

with atheris.instrument_imports(include=["handler", "container"]):
    from container.capture import lines
    from container.link import lane, wire
    from container.operate.batch.asked import Asked
    from container.operate.batch.ledger import Entry as PartDone
    from container.operate.batch.ledger import Ledger as BatchLedger
    from container.operate.documents import read_as
    from container.operate.release import follow, live
    from container.operate.release.manifest import Manifest
    from container.operate.train import ledger as train_ledger
    from container.operate.troubles import Misused, Refused
    from container.platform.pipelines import conditions, definition
    from container.platform.pipelines.expressions import NotFound, PathInvalid, Scope, resolved
    from container.platform.service.faults import ValidationException
    from container.worker import warm
    from handler.archives.limits import Limits
    from handler.archives.members import read_artifact
    from handler.errors import ArtifactBroken, ArtifactMissing, ArtifactRefused, RequestError
    from handler.forest import packed, proof, walker
    from handler.importer import import_booster, pickles
    from handler.importer.broken import Damaged, Unsupported
    from handler.libxgboost import Booster, Kind, XGBoostError
    from handler.loading import kept_file
    from handler.payload import decode, delimited, jsonbody, libsvm
    from handler.payload.decode import CONTENT_TYPES
    from handler.payload.rows import Rows
    from handler.predictor import Facts
    from handler.stores.store import Fetched

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MAX_INPUT_BYTES = 64 * 1024
HANG_S = 10
MAX_RSS_MB = 3000
MAX_FEATURES = 256  # of boosters that are asked; wider ones are only loaded
MAX_FRAME_BYTES = 1 << 20
LIMITS = Limits(artifact_max_bytes=1 << 20, unpacked_max_bytes=8 << 20)


def archive(data: bytes) -> None:
    try:
        read_artifact(data, "fuzz", LIMITS)
    except (ArtifactBroken, ArtifactRefused):
        pass


def importer(data: bytes) -> None:
    try:
        imported = import_booster(data, "fuzz")
    except (ArtifactBroken, ArtifactRefused):
        return
    booster = Booster()
    try:
        booster.load(imported.document)
        if imported.facts.n_features <= MAX_FEATURES:
            rows = np.random.default_rng(0).normal(size=(3, imported.facts.n_features)).astype(np.float32)
            rows[1] = np.nan
            scores = booster.predict_matrix(rows, Kind.VALUE, imported.facts.feature_types)
            assert len(scores) == 3
            booster.predict_matrix(rows, Kind.CONTRIBS, imported.facts.feature_types)
    except XGBoostError:
        pass  # a clear error
    finally:
        booster.free()


def pickled(data: bytes) -> None:
    try:
        pickles.read(data)
    except (Damaged, Unsupported):
        pass


def frames(data: bytes) -> None:
    whole = _messages(data, len(data) or 1)
    for step in (1, 7):
        assert _messages(data, step) == whole


def _messages(data: bytes, step: int) -> list[object]:
    reader = wire.FrameReader(MAX_FRAME_BYTES)
    found: list[object] = []
    try:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
            while (message := reader.next_message()) is not None:
                found.append(message)
    except wire.WireError:
        found.append("a frame that cannot be read")
    return found


def lane_frames(data: bytes) -> None:
    at = 0
    try:
        while (found := lane.parse(data, at)) is not None:
            request, end = found
            assert at + 47 <= end <= len(data)
            assert isinstance(request, lane.Note) or len(request.body) <= end - at
            at = end
    except wire.WireError:
        pass


def forest(data: bytes) -> None:
    if not packed.is_sound(data):
        return
    shape = packed.shape_of(data)
    packed.cost_of(data)
    packed.document_of(data)  # which the quarantine opens
    packed.trees_of(data, 1)
    if shape.n_features <= MAX_FEATURES and shape.n_groups <= MAX_FEATURES:
        rows = np.frombuffer(random.randbytes(4 * 30 * shape.n_features), np.float32).reshape(30, -1)
        for n_rows in (1, 30):
            outputs = (shape.n_trees, shape.n_groups, shape.n_outputs)
            walker.predict(data, np.ascontiguousarray(rows[:n_rows]), *outputs, is_margin=False)


def disk(data: bytes) -> None:
    """What follows the checksum."""
    from tests.handler.loading.test_disk_cache import summed

    kept = kept_file.parsed(summed(data), IDENTITY, 0.0)
    if kept is not None:
        assert len(kept.documents) == len(kept.facts)
        assert all(msgspec.convert(asdict(one), Facts) == one for one in kept.facts)


def bodies(data: bytes) -> None:
    """The first byte says which content type."""
    if not data:
        return
    kind, body = CONTENT_TYPES[data[0] % len(CONTENT_TYPES)], data[1:]
    found: list[Rows | None] = []
    for piece_bytes in (1 << 20, 16):
        for module in (delimited, jsonbody, libsvm):
            module.PIECE_BYTES = piece_bytes  # type: ignore[attr-defined]
        try:
            rows = decode(body, kind, 3)
            assert rows.values.size
            assert not np.isinf(rows.values).any()
            found.append(rows)
        except RequestError:
            found.append(None)
    assert None in found or found[0] == found[1]  # longer lines are read of longer pieces


class Held:  # in the place of a WritingStore
    """A store in which there is one document, whatever it is called; nothing at a second look."""

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data

    def fetch(self, target: str) -> Fetched:
        data, self._data = self._data, None
        if data is None:
            raise ArtifactMissing(target)
        return Fetched(data, "1", target)

    def uri(self, target: str) -> str:
        return target


def manifest(data: bytes) -> None:
    try:
        Manifest.from_json(data, "x").to_json()
    except Refused:
        pass


def current(data: bytes) -> None:
    reads: list[Callable[[Any], object]] = [live.read_current, lambda store: live.read_state(store, "x")]
    for read in reads:
        try:
            read(Held(data))
        except Refused:
            pass


def train(data: bytes) -> None:
    for kind in (train_ledger.Begun, train_ledger._Over):
        try:
            read_as(kind, data, "x")
        except Refused:
            pass
    for line in data.splitlines():
        try:
            train_ledger.came_of(train_ledger.Line(line, "x"))
        except Refused:
            pass


def batch(data: bytes) -> None:
    store: Any = Held(data)
    ledger = BatchLedger(store, Asked(target_template="us/{city}.tar.gz"), [], BATCH_MODELS)
    try:
        ledger.read_layout()
    except (Refused, Misused):
        pass
    try:
        ledger.summary({"a": read_as(PartDone, data, "x")})
    except Refused:
        pass


def captured(data: bytes) -> None:
    for line in data.splitlines():
        try:
            lines.parse(line)
        except lines.NoCapture:
            pass


def warm_list(data: bytes) -> None:
    store: Any = Held(data)
    warm._fetch(store, "x")


def event(data: bytes) -> None:
    follow._approval_event(data.decode("utf-8", "replace"))


def pipeline(data: bytes) -> None:
    try:
        found = definition.parse(data.decode("utf-8", "replace"))
    except ValidationException:
        return
    try:
        values = found.given({})
    except ValidationException:
        values = {}
    told = {name: {"Outputs": [{"OutputName": "a", "S3Uri": "s3://b/c"}]} for name in found.steps}
    scope = Scope(values, {"PipelineName": "p"}, told, lambda _uri: data, lambda *_: "s3://b/c")
    for step in found.steps.values():
        try:
            resolved(step.arguments, scope)
        except (NotFound, PathInvalid):
            pass
        asked = step.arguments.get("Conditions")
        for condition in asked if isinstance(asked, list) else ():
            try:
                conditions.holds(condition, scope)
            except (conditions.ConditionInvalid, NotFound, PathInvalid):
                pass


def stock(*suffixes: str) -> Iterator[bytes]:
    with tarfile.open(ROOT / "tests" / "fixtures" / "boosters.tar.gz") as tar:
        for member in tar:
            if member.name.endswith(suffixes) and member.name != "manifest.json" and member.size <= MAX_INPUT_BYTES:
                yield tar.extractfile(member).read()  # type: ignore[union-attr]


def archives() -> Iterator[bytes]:
    from tests.rig import boosters

    yield boosters.segment_archive(0)
    for number, data in enumerate(stock(".ubj")):
        yield boosters.archive({"xgboost-model": data, "folder/notes.txt": b"x" * number})


def recorded() -> Iterator[bytes]:
    for path in sorted((ROOT / "tests" / "frames").glob("*.bin")):
        yield path.read_bytes()


def lane_seeds() -> Iterator[bytes]:
    from tests.container.link.test_lane import FULL, note

    yield FULL
    yield FULL + note(1, 7) + FULL


def forests() -> Iterator[bytes]:
    samples = [*map(proof.sample, packed.TRANSFORMS), proof.sample("reg:squarederror", "dart", 3)]
    yield from filter(None, map(packed.pack, samples))


def kept() -> Iterator[bytes]:
    from tests.handler.loading.test_disk_cache import DOCUMENTS, FACTS

    for n in (1, 2):
        pieces = kept_file.pieces_of(IDENTITY, "1", DOCUMENTS * n, FACTS * n)
        yield b"".join(pieces)[kept_file.CHECKED_FROM :]


def some_bodies() -> Iterator[bytes]:
    from tests.handler.sanitized import SEEDS

    for kind, body in SEEDS:
        yield bytes([CONTENT_TYPES.index(kind)]) + body
    for name in ("npy", "recordio"):
        file = io.BytesIO()
        np.save(file, np.zeros((2, 3), np.float32))
        yield bytes([next(at for at, kind in enumerate(CONTENT_TYPES) if name in kind)]) + file.getvalue()
    for path in sorted((ROOT / "tests" / "fixtures" / "recordio").glob("*.p*b*")):
        if path.stat().st_size < 4096:
            yield bytes([CONTENT_TYPES.index("application/x-recordio-protobuf")]) + path.read_bytes()


def documents(*names: str) -> Callable[[], Iterator[bytes]]:
    """What a shelf, a training run and a batch run write, as their own tests make them."""

    def made() -> Iterator[bytes]:
        with tempfile.TemporaryDirectory() as root:
            for path in sorted(_written(Path(root)).rglob("*.json*")):
                if any(name in str(path.relative_to(root)) for name in names):
                    yield path.read_bytes()

    return made


def _written(root: Path) -> Path:
    from container.operate.release.approve import approve
    from container.operate.release.choice import Choice
    from container.operate.release.diff import Gate
    from container.operate.release.place import place_at
    from tests.container.operate.batch import test_damaged as of_batch
    from tests.container.operate.train import test_damaged as of_train
    from tests.rig.shop import Shop

    shop = Shop(place_at(str(root / "live")))
    for text in ("one", "two"):
        approve(shop.place, shop.candidate({"a": text, "b": text}), Gate(), Choice(), who="ann")
    for name, module in (("train", of_train), ("batch", of_batch)):
        made = root / name
        made.mkdir()
        module.store.__wrapped__(SimpleNamespace(mktemp=lambda _, made=made: made))
    return root


def lines_captured() -> Iterator[bytes]:
    from tests.handler.telemetry.test_sheet import ORDINARY, in_python

    yield from map(in_python, ORDINARY.values())


def lists() -> Iterator[bytes]:
    yield b'{"format": 1, "models": [["us/a.tar.gz", 1.5], ["b", 0.1]], "n_bytes": [1000, 2000]}'


def events() -> Iterator[bytes]:
    yield json.dumps(
        {"detail-type": follow.DETAIL_TYPE, "source": follow.SOURCE,
         "detail": {"ModelPackageArn": "arn:aws:x", "UpdatedModelPackageFields": ["ModelApprovalStatus"]}}
    ).encode()  # fmt: skip


def definitions() -> Iterator[bytes]:
    from tests.container.platform.pipelines.test_definition import GET_A, step, text

    inner = step("D", Arguments={"Environment": {"a": {"Std:Join": {"On": "", "Values": [GET_A]}}}})
    asked = [
        {
            "Type": "LessThan",
            "LeftValue": {"Std:JsonGet": {"S3Uri": "s3://a/b", "Path": "a.b[0]['c']"}},
            "RightValue": 1,
        },
        {"Type": "Not", "Expression": {"Type": "In", "QueryValue": {"Get": "Parameters.N"}, "Values": [3]}},
    ]
    decide = step("C", "Condition", Arguments={"Conditions": asked, "IfSteps": [inner], "ElseSteps": [step("E")]})
    one = {"Name": "N", "Type": "Integer", "DefaultValue": 3, "EnumValues": [3, 4]}
    yield text(step("A"), step("B", DependsOn=["A"]), decide, Parameters=[one]).encode()


IDENTITY = ["m", "a"]
BATCH_MODELS = {f"us/{number}.tar.gz": f'"{number}"' for number in range(11)}
_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    1.5,
    10**30,
    "",
    "x",
    [],
    {},
    [[]],
    {"format": 1},
    {"Get": "Steps.A.b"},
    "a" * 100,
    math.inf,
)


def retyped(data: bytes, max_bytes: int, seed: int) -> bytes:
    """One value of a JSON document, anywhere in it, is another, is missing or is some hundred lists deep; now and then, or
    where it is no JSON, bytes as libFuzzer changes them."""
    draw = random.Random(seed)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if document is None or draw.random() < 0.3:
        return bytes(atheris.Mutate(data, max_bytes))
    at = document
    while isinstance(at, dict | list) and at:
        name = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        if draw.random() < 0.3 or not isinstance(at[name], dict | list) or not at[name]:
            match draw.randrange(8):
                case 0:
                    del at[name]
                case 1:
                    for _ in range(draw.choice((10, 200, 900))):
                        at[name] = [at[name]]
                case _:
                    at[name] = draw.choice(_VALUES)
            break
        at = at[name]
    try:
        return json.dumps(document).encode()[:max_bytes]
    except RecursionError:
        return data


# Of which one is a JSON document, changed a value at a time.
DOCUMENTS = ("manifest", "live", "train", "batch", "warm", "captured", "pipeline", "event")

TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "archive": (archive, archives),
    "importer": (importer, lambda: stock(".ubj", ".json", ".bin", ".deprecated", ".pkl")),
    "pickles": (pickled, lambda: stock(".pkl")),
    "wire": (frames, recorded),
    "lane": (lane_frames, lane_seeds),
    "forest": (forest, forests),
    "disk": (disk, kept),
    "bodies": (bodies, some_bodies),
    "manifest": (manifest, documents("releases/")),
    "live": (current, documents("current", "states/", "history/")),
    "train": (train, documents("train/")),
    "batch": (batch, documents("batch/")),
    "warm": (warm_list, lists),
    "captured": (captured, lines_captured),
    "pipeline": (pipeline, definitions),
    "event": (event, events),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz what reads bytes of strangers.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument(
        "--keep", type=Path, default=Path(tempfile.gettempdir()), help="where a finding's input is kept"
    )
    arguments = parser.parse_args()
    work, seeds = TARGETS[arguments.target]
    logging.disable()  # what is refused in a line of the log would be thousands a second
    arguments.keep.mkdir(parents=True, exist_ok=True)
    corpus = Path(tempfile.mkdtemp(prefix="fuzz-"))  # libFuzzer leaves by _exit, so the system clears it away
    for number, seed in enumerate(seeds()):
        (corpus / f"{number:05}").write_bytes(seed)
    options = [
        f"-max_total_time={arguments.seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MAX_RSS_MB}",
        f"-artifact_prefix={arguments.keep}/{arguments.target}-",
        "-print_final_stats=1",
    ]
    # The forest's and the disk tier's numbers are binary, their rest is JSON; bytes are what is changed there.
    how = {"custom_mutator": retyped} if arguments.target in DOCUMENTS else {}
    atheris.Setup([sys.argv[0], *options, str(corpus)], work, **how)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
