"""Coverage-guided fuzzing of everything that reads bytes of strangers. Not part of the tests, which do it with Hypothesis.

    pip install -e '.[fuzz]'
    python -m benchmarks.fuzz importer [--seconds 300] [--keep DIR]

    archive    read_artifact: gzip, tar, which member
    importer   import_booster, and what it lets through loaded and asked by libxgboost, which must survive it
    pickles    the reader of pickles alone
    wire       MMS's frames, whole and in pieces, which must give the same messages

A finding is an exception that is none of ours, a crash, a hang or memory out of bounds; its input is kept in DIR.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["handler", "container.link.wire"]):
    from container.link import wire
    from handler.archives.limits import Limits
    from handler.archives.members import read_artifact
    from handler.errors import ArtifactBroken, ArtifactRefused
    from handler.importer import import_booster, pickles
    from handler.importer.broken import Damaged, Unsupported
    from handler.libxgboost import Booster, Kind, XGBoostError

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


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "archive": (archive, archives),
    "importer": (importer, lambda: stock(".ubj", ".json", ".bin", ".deprecated", ".pkl")),
    "pickles": (pickled, lambda: stock(".pkl")),
    "wire": (frames, recorded),
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
    atheris.Setup([sys.argv[0], *options, str(corpus)], work)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
