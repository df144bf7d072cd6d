"""The real thing for tests: `mme serve` as a process tree, with the stock MMS on a real JVM."""

from __future__ import annotations

import contextlib
import http
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest

from container.launch.mms import plugin_path
from tests.rig.faulty_s3 import ENVIRONMENT

needs_classes = pytest.mark.skipif(plugin_path() is None, reason="our Java classes are not compiled: there is no javac")

MME = (sys.executable, "-m", "container.operate.main")
START_S = 60.0  # on a busy machine; on an idle one it is about 1 s
STOP_S = 35.0


def free_port() -> int:
    """A port nobody listens on. MMS refuses those from 32767 on, where the system's own free ones are."""
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Endpoint:
    """One `mme serve`. As a context manager it stops at the end and says so if anything was left behind.

    models    where the artifacts are; None is hosted; empty is what the environment says
    scratch   directory for MME_SCRATCH; must be short, and is empty again after the stop
    root      where the code is; else here
    mme       how to start it
    output    a descriptor for its standard output; it stays the caller's
    errors    the same for its log, which is then not read here; None reads it into `log`
    """

    def __init__(
        self,
        models: str | Path | None,
        scratch: Path,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        root: Path | None = None,
        mme: Sequence[str | Path] = MME,
        output: int = subprocess.DEVNULL,
        errors: int | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.scratch = scratch
        self.log: list[str] = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [
                *mme,
                "serve",
                *([] if models == "" else ["--hosted"] if models is None else ["--models", str(models)]),
                *("--port", str(self.port), "--scratch", str(scratch)),
                *flags,
            ],
            env={**os.environ, **ENVIRONMENT, **(environment or {})},
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE if errors is None else errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()

    def _read_log(self) -> None:
        if self._process.stderr is None:
            self._await_ping()
            return
        with self._process.stderr as lines:
            for line in lines:
                self.log.append(line)
                if "ready after" in line:
                    self._ready.set()
        self._ready.set()

    def _await_ping(self) -> None:
        while self._process.poll() is None and not self._ready.is_set():
            time.sleep(0.1)
            if self.ping() == http.HTTPStatus.OK:
                self._ready.set()
        self._ready.set()

    def ping(self) -> int:
        """The status of /ping; 0 when there is none within two seconds, as SageMaker asks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def __enter__(self) -> Endpoint:
        self.wait_ready()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_ready(self) -> None:
        ready = self._ready.wait(START_S) and self._process.poll() is None
        if not ready:
            self.kill()
        assert ready, "".join(self.log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop and wait; the exit status. Asserts that nothing is left of it."""
        family = self.family()
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            status = self._process.wait(STOP_S)
        finally:
            self.kill()
        assert not [pid for pid in family if is_running(pid)], "".join(self.log)
        assert list(self.scratch.iterdir()) == []
        return status

    def wait(self, patience_s: float = STOP_S) -> int:
        status = self._process.wait(patience_s)
        self._reader.join(10)
        return status

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)

    def family(self) -> list[int]:
        """Every process below, and the supervisor itself."""
        found, pending = [], [self._process.pid]
        while pending:
            pid = pending.pop()
            found.append(pid)
            try:
                text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            except OSError:
                continue
            pending += map(int, text.split())
            if pid != self._process.pid:
                # Java starts its children from other threads than its first
                for task in Path(f"/proc/{pid}/task").glob("*/children"):
                    with contextlib.suppress(OSError):  # the thread has ended since
                        pending += [int(child) for child in task.read_text().split() if int(child) not in pending]
        return sorted(set(found))

    def process(self, part: str) -> int:
        """The pid of the member whose command line holds `part`."""
        return next(pid for pid in self.family() if part in command_line(pid))

    @property
    def stub(self) -> int:
        return next(pid for pid in self.family() if command_line(pid).split() == ["cat"])

    @property
    def runtime(self) -> int:
        return next(pid for pid in self.family() if command_line(pid).split()[2:3] == ["container.worker"])

    @property
    def jvm(self) -> int:
        return self.process("model-server.jar")

    def client(self, **options: Any) -> Any:
        """Plain boto3, one attempt, through MMS's prediction path."""
        config = botocore.config.Config(
            retries={"total_max_attempts": 1}, max_pool_connections=64, read_timeout=60, **options
        )
        return boto3.client(
            "sagemaker-runtime",
            endpoint_url=f"http://127.0.0.1:{self.port}/predictions/segments",
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            config=config,
        )

    def post(self, target: str | None, body: bytes | str, **headers: str) -> Reply:
        """One call of /invocations on a connection of its own; header names with _ for -."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if target is not None:
            named["X-Amzn-SageMaker-Target-Model"] = target
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": "text/csv", **named})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"Reply({self.status}, {self.body!r})"


def is_running(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def until(condition: Any, patience_s: float = 15.0, pause_s: float = 0.01) -> None:
    """Wait for something another process does. Fails after `patience_s`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(pause_s)
