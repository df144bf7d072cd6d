"""--state DIR: what the rooms know, kept from one run of the platform to the next.

Rule: a file appears whole or not at all, and one of another version is refused, not guessed at. A room hands over JSON's
kinds and times; a time is written so that it is read as a time again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

VERSION = 1
NAME = "platform.json"
LOCK = "platform.lock"
TIME = "$time"  # a time among JSON's kinds


class StateRefused(Exception):
    """The directory cannot be used, and why."""


class Kept(Protocol):
    """A room whose knowledge outlives a run."""

    def dump(self) -> Any:
        """What `restore` takes: JSON's kinds and datetimes."""

    def restore(self, value: Any) -> None: ...


class State:
    """One directory, held by one platform. Raises StateRefused: another one holds it, or it can be no state."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateRefused(f"{directory} cannot hold a state: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            is_held = isinstance(error, BlockingIOError)
            why = "is held by another platform" if is_held else f"cannot be locked: {error.strerror}"
            raise StateRefused(f"{directory} {why}") from error

    def restore(self, rooms: Mapping[str, Kept]) -> None:
        """Tell each room what it knew. A room that the file does not name begins anew."""
        path = self.directory / NAME
        try:
            value = json.loads(path.read_bytes(), object_hook=_read)
        except FileNotFoundError:
            return
        except (OSError, ValueError, RecursionError) as error:
            raise StateRefused(f"{path} is no state of a platform: {error}") from error
        version = value.get("version") if isinstance(value, dict) else None
        if version != VERSION:
            raise StateRefused(
                f"{path} is of version {version}; this platform reads {VERSION}. Choose another directory"
            )
        for name, room in rooms.items():
            if name in value["rooms"]:
                room.restore(value["rooms"][name])

    def keep(self, rooms: Mapping[str, Kept]) -> None:
        path = self.directory / NAME
        part = path.with_suffix(".part")
        value = {"version": VERSION, "rooms": {name: room.dump() for name, room in rooms.items()}}
        try:
            part.write_text(json.dumps(value, default=_written))
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._lock)


def _written(value: Any) -> Any:
    if isinstance(value, datetime):
        return {TIME: value.isoformat()}
    raise TypeError(f"{type(value).__name__} cannot be kept")


def _read(value: dict[str, Any]) -> Any:
    return datetime.fromisoformat(value[TIME]) if value.keys() == {TIME} else value
