"""`mme` commands as a shell runs them, watched for what they leave behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rig.endpoint import MME, until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0  # on a busy machine; on an idle one the demo takes 3 s


class Command:
    """One `mme ...` in a session of its own, with its own temp directory. Every process it starts carries a mark in its
    environment, by which those that outlive it are found.

    program   what stands for `mme`
    """

    def __init__(
        self, *arguments: str, environment: Mapping[str, str] | None = None, program: Sequence[str] = MME
    ) -> None:
        self.temp = Path(tempfile.mkdtemp(prefix="mt-", dir="/tmp"))  # short, as sockets need
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115  closed in `close`
        self._process = subprocess.Popen(
            [*program, *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.temp), "TEST_MARK": self.mark, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def trouble(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def wait_for(self, start: str) -> str:
        """The first line of its output that begins with `start`."""

        def found() -> list[str]:
            has_ended = not self._reader.is_alive()
            lines = [line for line in self.lines if line.startswith(start)]
            assert lines or not has_ended, f"{self.output}\n{self.trouble}"
            return lines

        until(found, PATIENCE_S)
        return found()[0]

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status; all of its output is there then."""
        status = self._process.wait(PATIENCE_S)
        self._reader.join(10)
        return status

    def family(self) -> list[int]:
        """Processes that carry the mark, whoever their parent is by now."""
        mark = f"TEST_MARK={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    environment = (entry / "environ").read_bytes().split(b"\0")
                except OSError:  # it has just ended, or is somebody else's
                    continue
                if mark in environment:
                    found.append(int(entry.name))
        return found

    def assert_nothing_is_left(self) -> None:
        until(lambda: not self.family())
        assert list(self.temp.iterdir()) == []

    def close(self) -> None:
        for pid in self.family():
            with contextlib.suppress(ProcessLookupError):  # killing its parent has ended it
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(10)
        self._errors.close()
        shutil.rmtree(self.temp, ignore_errors=True)
