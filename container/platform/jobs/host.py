"""One host of a job: its tree, its process, and how that is ended.

Rule: when the program has ended, so has everything that it started.

The thread that starts a process waits for it to the end, because the kernel ends a process with the thread that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from container.platform.jobs.rooms import Room
from container.platform.jobs.tree import MOUNT
from container.platform.logs import Stream

START_S = 30.0  # for unshare to have its child
LOOK_S = 0.01
ROOT_VARIABLE = "MME_OPT_ML"  # where our programs look when there is no /opt/ml of theirs
NO_PROGRAM = 127  # as a shell says it


class Host:
    """tree: what is its /opt/ml. on_end: told once, from the host's thread. exit_code: a signal's as 128 and its number."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.tree = folder / "ml"
        self.scratch = folder / "tmp"
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._room = Room()

    def start(
        self,
        program: Sequence[str],
        environment: Mapping[str, str],
        names: Sequence[str],
        room: Room,
        stream: Stream,
        on_end: Callable[[], None],
        *,
        is_offline: bool = False,
    ) -> None:
        """names: of all hosts, each of which gets a loopback address."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        hosts = self.folder / "hosts"
        hosts.write_text(
            "127.0.0.1 localhost\n" + "".join(f"127.0.1.{at + 1} {name}\n" for at, name in enumerate(names))
        )
        self._room = room
        environment = {**environment, "TMPDIR": str(self.scratch)}
        if not room.is_namespace:
            program = [word.replace(MOUNT, str(self.tree)) for word in program]
            environment[ROOT_VARIABLE] = str(self.tree)
        command = room.command(self.tree, hosts, self.name, program, is_offline=is_offline)

        def live() -> None:
            try:
                self.exit_code = self._run(command, environment, stream)
            finally:
                self._started.set()
                on_end()

        self._thread = threading.Thread(target=live, name=f"host {self.name}", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def pid(self) -> int | None:
        """Of what the program is below; None before and after it."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def signal(self, number: int) -> None:
        """To the program alone, as a container's runtime sends it."""
        pid = self._pid_of_program()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            # Not the program by itself: unshare, which would outlive it for a moment, writes of that into its log.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _run(self, command: Sequence[str], environment: Mapping[str, str], stream: Stream) -> int:
        try:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            stream.put([f"{command[0]}: {error.strerror}".encode()])
            return NO_PROGRAM
        self._process = process
        self._started.set()
        assert process.stdout is not None  # it is a pipe
        reader = threading.Thread(target=stream.follow, args=(process.stdout.fileno(),), daemon=True)
        reader.start()
        # Not reaped yet, its number is still its own, and so is that of its group.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        reader.join()
        process.stdout.close()
        return code if code >= 0 else 128 - code

    def _pid_of_program(self) -> int | None:
        process = self._process
        if process is None or process.returncode is not None:
            return None
        if not self._room.is_alone:
            return process.pid
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.exit_code is None:
            try:
                found = children.read_text().split()
            except OSError:
                return None
            if found:
                return int(found[0])
            time.sleep(LOOK_S)
        return None
