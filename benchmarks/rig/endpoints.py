"""Servers under measurement: each started, called and stopped in the same way.

    with Ours(segments.models) as ours, Echo(workers=2) as echo: ...

Rule: all listen on loopback only, and what one starts it also stops, with everything below it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

import mms as stock_mms
import sagemaker_inference

from benchmarks.rig import processes
from benchmarks.rig.segments import Segments
from container import environments, settings
from container.launch import mms
from container.link.names import POOL
from tests.rig.endpoint import free_port

START_S = 120.0
STOP_S = 30.0
TARGET_HEADER = "X-Amzn-SageMaker-Target-Model"
RIVALS = Path(__file__).parents[1] / "rivals"
ROOT = Path(__file__).parents[2]


class Server:
    """A process tree that answers on `port`. Subclasses say how it is started, and what its members are called.

    name       as it stands in tables
    root       the checkout it runs from
    n_caches   processes that each keep models of their own
    """

    name = "server"
    n_caches = 1
    root = ROOT

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def title(self) -> str:
        """The name, with the number of processes where that makes a difference."""
        return self.name if self.n_caches == 1 else f"{self.name}, {self.n_caches} processes"

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        return os.environ

    def role(self, command_line: str) -> str:
        """Which member of the tree has this command line."""
        return "all" if command_line else "ended"

    def standard_output(self) -> IO[bytes]:
        """A file to be closed once the process has it."""
        return (self.scratch / "log").open("ab")

    def path(self, target: str) -> str:  # noqa: ARG002  of the rivals, one has a path for each target
        return "/invocations"

    def __enter__(self) -> Self:
        self.scratch = Path(tempfile.mkdtemp(prefix="mb-"))  # short: sockets will be in it
        self.log = (self.scratch / "log").open("ab")
        with self.standard_output() as output:
            self._process = subprocess.Popen(
                self.command(),
                env=dict(self.environment()),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=self.log,
                start_new_session=True,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.is_ready():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("\n".join([f"{self.name} does not start:", *self.last_lines()]))
            time.sleep(0.05)

    def is_ready(self) -> bool:
        """Whether a request would be answered now."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is None:
            return
        members = processes.family(self._process.pid)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        deadline = time.monotonic() + 5
        while (left := [pid for pid in members if processes.is_running(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:  # stock MMS leaves workers behind
            _kill(pid)
        self._process = None
        self.log.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def last_lines(self, n_lines: int = 30) -> list[str]:
        """The end of what the server has said."""
        return (self.scratch / "log").read_text().splitlines()[-n_lines:]

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def members(self) -> dict[str, list[int]]:
        return processes.members(self.pid, self.role)

    def memory_by_member(self) -> dict[str, int]:
        return processes.memory_by_member(self.pid, self.role)

    def memory_bytes(self) -> int:
        return sum(self.memory_by_member().values())

    def cpu_s(self) -> float:
        return processes.cpu_s(self.pid)

    def prepare(self, targets: Sequence[str]) -> None:
        """Do what must be done before these can be called; nothing, where loading is lazy."""

    def caller(self) -> Caller:
        return Caller(self)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Caller:
    """One kept connection to a server, for calls whose answers are looked at."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)

    def call(self, target: str, body: bytes) -> tuple[bytes, str]:
        """The answer's body and its custom attributes. Raises CallFailed when the status is not 200."""
        headers = {"Content-Type": "text/csv", TARGET_HEADER: target}
        self._connection.request("POST", self._server.path(target), body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise CallFailed(self._server.name, target, response.status, answer)
        return answer, response.getheader("X-Amzn-SageMaker-Custom-Attributes") or ""

    def call_until_ready(self, target: str, body: bytes) -> tuple[bytes, str]:
        """The same, and "not ready" is tried again, as an SDK does."""
        while True:
            try:
                return self.call(target, body)
            except CallFailed as error:
                if error.status != http.HTTPStatus.TOO_MANY_REQUESTS:
                    raise

    def close(self) -> None:
        self._connection.close()


class CallFailed(Exception):
    def __init__(self, server: str, target: str, status: int, answer: bytes) -> None:
        super().__init__(f"{server} answered {status} for {target}: {answer[:300]!r}")
        self.status = status


class Ours(Server):
    """`mme serve`.

    models       directory or s3:// prefix
    flags        more of its flags, each with its value
    environment  settings that are flags without a value, and credentials
    output       where its standard output goes; else to the log, with everything else
    before       another checkout, set up, that is served in the place of this one: what ours is to be compared with
    """

    name = "ours"

    def __init__(
        self,
        models: Path | str,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
        before: Path | None = None,
    ) -> None:
        super().__init__()
        self._python = sys.executable
        if before is not None:
            self.name, self.root = "before", before
            self._python = str(before / ".venv/bin/python")
        self._models = models
        self._flags = flags
        self._environment = environment or {}
        self._output = output

    def command(self) -> Sequence[str]:
        return [
            *(self._python, "-m", "container.operate.main", "serve", *self._source()),
            *("--port", str(self.port), "--scratch", str(self.scratch), *self._flags),
        ]

    def _source(self) -> Sequence[str]:
        return ["--models", str(self._models)]

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, **self._environment}

    def standard_output(self) -> IO[bytes]:
        return super().standard_output() if self._output is None else self._output.open("wb")

    def is_ready(self) -> bool:
        return b"ready after" in (self.scratch / "log").read_bytes()

    def figure(self, name: str) -> float:
        """One of the endpoint's own metrics, by its Prometheus name; needs `--admin-port`."""
        for line in self.admin("/metrics").decode().splitlines():
            if line.startswith((name + "{", name + " ")):
                return float(line.rpartition(" ")[2])
        raise KeyError(name)

    def resident_models(self) -> dict[str, int]:
        """Bytes on the cache's book of each model in memory; needs `--admin-port`."""
        found: dict[str, int] = {}
        offset: int | None = 0
        while offset is not None:
            page = json.loads(self.admin(f"/models?limit=1000&offset={offset}"))
            found |= {model["name"]: model["n_bytes"] for model in page["models"]}
            offset = page["next_offset"]
        return found

    @property
    def admin_port(self) -> int:
        return int(dict(zip(self._flags[::2], self._flags[1::2], strict=True))["--admin-port"])

    def admin(self, path: str) -> bytes:
        """What the admin port answers; needs `--admin-port`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def role(self, command_line: str) -> str:
        for part, name in _OUR_MEMBERS.items():
            if part in command_line:
                return name
        return "stubs" if command_line else "ended"

    @property
    def runtime(self) -> int:
        return self.members()["runtime"][0]


class Hosted(Ours):
    """`mme serve --hosted`, with models that have been loaded as SageMaker loads them. Targets are model names.

    models   directory with a bundle NAME/model for each, as SageMaker unpacks them
    """

    def _source(self) -> Sequence[str]:
        return ["--hosted"]

    def path(self, target: str) -> str:
        return f"/models/{target}/invoke"

    def prepare(self, targets: Sequence[str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        for target in targets:
            fields = json.dumps({"model_name": target, "url": str(Path(self._models) / target / "model")})
            connection.request("POST", "/models", fields, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            if response.status != http.HTTPStatus.OK:
                raise CallFailed(self.name, target, response.status, answer)
        connection.close()


_OUR_MEMBERS = {
    "container.operate": "supervisor",
    "container.examine.examiner": "examiner",
    "container.worker": "runtime",
    "-Dmodel_server_home": "JVM",
}


class StockMms(Server):
    """Stock MMS on the same JVM with its own Python workers.

    service   file in rivals/ with MMS's `handle`
    workers   Python workers for each model
    """

    name = "stock MMS"

    def __init__(self, service: str, workers: int) -> None:
        super().__init__()
        self._service = service
        self._workers = workers

    def command(self) -> Sequence[str]:
        """Our own command line and properties; the server and what runs behind its sockets are theirs."""
        own = settings.read({"models": str(RIVALS), "port": str(self.port)}, {})
        scratch = mms.Scratch(self.scratch)
        mms.write_files(scratch, own)
        self.lay_out(scratch)
        command = mms.command(scratch, own, environments.java_home())
        command[command.index("--python") + 1] = sys.executable
        return [mms.STOCK_MAIN if word == mms.OUR_MAIN else word for word in command]

    def lay_out(self, scratch: mms.Scratch) -> None:
        """Put the service where MMS looks for it."""
        shutil.copy(RIVALS / f"{self._service}.py", scratch.store / POOL)
        self.set_properties(
            scratch, default_workers_per_model=self._workers, default_service_handler=f"{self._service}.py:handle"
        )

    def set_properties(self, scratch: mms.Scratch, **values: object) -> None:
        with scratch.properties.open("a") as file:  # of a property said twice, Java takes the last
            file.writelines(f"{name}={value}\n" for name, value in values.items())

    def environment(self) -> Mapping[str, str]:
        return {
            **environments.mms_environment(),
            "MODEL_SERVER_HOME": str(Path(stock_mms.__file__).parents[1]),
            # Else its own log configuration writes into the current directory.
            "LOG_LOCATION": str(self.scratch),
            "METRICS_LOCATION": str(self.scratch),
        }

    def role(self, command_line: str) -> str:
        if not command_line:
            return "ended"
        return "JVM" if "-Dmodel_server_home" in command_line else "workers"

    def is_ready(self) -> bool:
        """Port bound, and every worker there: MMS starts one process for the model and one more for each worker."""
        return super().is_ready() and len(self.members().get("workers", [])) > self._workers


class Echo(StockMms):
    """Stock MMS around a handler that gives the body back: what MMS itself costs."""

    name = "echo"

    def __init__(self, workers: int) -> None:
        super().__init__("echo_service", workers)


class StockSageMaker(StockMms):
    """Stock MMS as SageMaker's images use it: every model registered by itself, one worker each, loaded beforehand.

    segments   where the documents are
    """

    name = "stock MMS"

    def __init__(self, segments: Segments) -> None:
        super().__init__("sagemaker_service", 1)
        self._segments = segments

    def lay_out(self, scratch: mms.Scratch) -> None:
        resources = Path(sagemaker_inference.__file__).parent / "etc"
        shutil.copy(resources / "log4j2.xml", scratch.log4j)  # what its users get
        (scratch.store / POOL).rmdir()
        self.set_properties(
            scratch,
            # Of its own: etc/mme-mms.properties. One port for both APIs, as SageMaker needs it.
            load_models="",
            model_store="/",
            management_address=f"http://127.0.0.1:{self.port}",
            async_logging="true",
            default_workers_per_model=1,
            default_service_handler=f"{RIVALS / self._service}.py:handle",
        )

    def is_ready(self) -> bool:
        return Server.is_ready(self)

    def path(self, target: str) -> str:
        return f"/models/{target.removesuffix('.tar.gz')}/invoke"

    def prepare(self, targets: Sequence[str]) -> None:
        """Register each, as SageMaker does when it has unpacked an archive."""
        for target in targets:
            name = target.removesuffix(".tar.gz")
            unpacked = self.scratch / "models" / name
            unpacked.mkdir(parents=True)
            (unpacked / "xgboost-model").write_bytes(self._segments.document(target))
            shutil.copy(RIVALS / f"{self._service}.py", unpacked)
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
            ask = json.dumps({"model_name": name, "url": str(unpacked)})
            connection.request("POST", "/models", ask, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise CallFailed(self.name, target, response.status, response.read())
            connection.close()


class Asgi(Server):
    """The application of rivals/asgi.py in an ASGI server.

    capacity    boosters kept in memory, in each worker process
    n_processes workers, each with boosters of its own
    """

    def __init__(self, models: Path, capacity: int, n_processes: int = 1) -> None:
        super().__init__()
        self._models = models
        self._capacity = capacity
        self.n_caches = n_processes

    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "MODELS": str(self._models),
            "CAPACITY": str(self._capacity),
            "OMP_NUM_THREADS": "1",
        }

    def is_ready(self) -> bool:
        return super().is_ready() and self._log_says("startup complete", "Started worker") >= self.n_caches

    def _log_says(self, *signs: str) -> int:
        text = (self.scratch / "log").read_text()
        return sum(text.count(sign) for sign in signs)


class Uvicorn(Asgi):
    name = "uvicorn"

    def command(self) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "uvicorn", "benchmarks.rivals.asgi:app", "--port", str(self.port)),
            *("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--workers", str(self.n_caches)),
        ]


class Granian(Asgi):
    name = "Granian"

    def command(self) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "granian", "--interface", "asgi", "benchmarks.rivals.asgi:app"),
            *("--port", str(self.port), "--loop", "uvloop", "--workers", str(self.n_caches)),
        ]
