"""A host's /opt/ml as a program finds it when it starts.

    input/config/*.json, input/data/CHANNEL, model, output/data, checkpoints    of a training job
    config/*.json, processing/..., output                                       of a processing job

Rule: everything that a program may write to is there, and empty.

Sources: SageMaker guide, your-algorithms-training-algo-running-container, build-your-own-processing-container.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from container.platform.jobs.objects import DataFault

MOUNT = "/opt/ml"
MAX_MESSAGE_BYTES = 1024  # 1 KB of `message`; of `failure` 1,024 characters
MAX_FAILURE_CHARS = 1024


def below(path: str) -> str:
    """`processing/in` of /opt/ml/processing/in. Raises ValueError: it is elsewhere."""
    parts = Path(path).parts
    if ".." in parts or not Path(path).is_relative_to(MOUNT):
        raise ValueError(path)
    return Path(path).relative_to(MOUNT).as_posix()


def make(root: Path, folders: Iterable[str], texts: Mapping[str, str]) -> None:
    """texts: files by path below /opt/ml."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def message(root: Path) -> str:
    """What a processing program left to be told. Raises DataFault: it is no UTF-8."""
    data = _head(root / "output/message", MAX_MESSAGE_BYTES)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if error.end == len(data) == MAX_MESSAGE_BYTES or error.reason == "unexpected end of data":
            return data[: error.start].decode()  # a character cut by the limit
        raise DataFault("the file /opt/ml/output/message is not UTF-8") from error


def failure(root: Path) -> str:
    """Why a training program says that it failed."""
    return _head(root / "output/failure", 4 * MAX_FAILURE_CHARS).decode(errors="replace")[:MAX_FAILURE_CHARS]


def _head(path: Path, n_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(n_bytes)
    except OSError:
        return b""
