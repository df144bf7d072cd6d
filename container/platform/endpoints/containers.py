"""Containers, of this machine's processes or of an engine: started, waited for until healthy, started again when they die.

Rule: a container sees its model's Environment and what SageMaker gives it, nothing of ours. A start takes real time, and is
given up when the platform's time for it and a real patience have both passed.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from container.environments import engine_environment, played_environment
from container.platform.clock import Clock
from container.platform.endpoints.engine import MODEL, MODELS, REFUSALS, Engine
from container.platform.hosting.contract import Container, ContainerGone, ContainerSlow
from container.platform.logs import Stream
from container.platform.ports import Ports
from container.platform.processes import Processes

log = logging.getLogger(__name__)

STARTUP_S = 480.0  # SageMaker's window for a first healthy ping, where the variant names no other
REAL_PATIENCE_S = 60.0  # a start is real: at --speed 600 the window alone would be over in less than a second
PING_EVERY_S = 0.1
LAST_WORDS_BYTES = 2000
AGAIN_AFTER_S, AGAIN_AFTER_MOST_S = 0.2, 10.0  # a container that died is started again, each time a little later

# What container/limits/memory.py takes off, with the JVM's usual heap; a test holds the two together.
OVERHEAD_BYTES = (192 + 96 + 110 + 130) << 20
HEADROOM = 0.10

# What stands for an image of which nothing else is known: our own container.
OURS = (sys.executable, "-m", "container.operate.main", "serve")


class StartFailed(Exception):
    """There is no container, and why, as an endpoint's FailureReason has it."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is to run.

    environment   the model's
    is_multi      Mode MultiModel
    startup_s     of platform time
    model         where a single model's data were unpacked
    models        where those of many are put
    memory_bytes  of the instance; None where its type is not known
    """

    image: str
    environment: Mapping[str, str] = field(default_factory=dict)
    is_multi: bool = True
    startup_s: float = STARTUP_S
    model: Path | None = None
    models: Path | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Images:
    """Which command stands for an image on this machine; {port} in it is the container's port. The engine, where there is
    one, runs the images that have none."""

    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    engine: Engine | None = None

    def engine_for(self, image: str) -> Engine | None:
        return None if image in self.commands else self.engine

    def command(self, spec: Spec, port: int) -> list[str]:
        if spec.image in self.commands:
            return [part.replace("{port}", str(port)) for part in self.commands[spec.image]]
        hosted = ["--hosted"] if spec.is_multi else []
        return [*OURS, *hosted, "--port", str(port), "--host", "127.0.0.1"]


@dataclass(frozen=True, slots=True)
class Ground:
    """What containers stand on, the same for all.

    address   the platform's own, for the containers' calls of S3 and its like
    """

    clock: Clock
    processes: Processes
    ports: Ports
    images: Images
    address: str
    region: str


class Running:
    """One container, from its start to its end. `start` and `stop` block; any thread may call them.

    log_path   where its output goes
    stream     where it goes besides
    """

    def __init__(self, ground: Ground, spec: Spec, log_path: Path, stream: Stream) -> None:
        self._ground = ground
        self._spec = spec
        self._log_path = log_path
        self._stream = stream
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None
        self._follower: threading.Thread | None = None
        self._engine = ground.images.engine_for(spec.image)
        self._name = ""  # the engine's, another at each start
        self._pid: int | None = None  # within the engine
        self._refusal = ""
        self._was_ready = False
        self.is_ready = False
        self.n_deaths = 0
        self.url = ""

    def start(self) -> None:
        """Returns when it is healthy and, if it is to have several models, lists them. Raises StartFailed."""
        port = self._ground.ports.take()
        self.url = f"http://127.0.0.1:{port}"
        self._watcher = threading.Thread(target=self._keep_running, args=(port,), name=f"container {port}", daemon=True)
        self._watcher.start()
        try:
            self._await_ready()
        except StartFailed as error:
            log.warning("the container of %s %s; its last words:\n%s", self._spec.image, error, self.last_words())
            self.stop()
            raise

    @property
    def pid(self) -> int | None:
        """Of its process; None where none runs, or where an engine does not tell."""
        process = self._process
        if process is None or process.poll() is not None:
            return None
        return process.pid if self._engine is None else self._pid

    def seen(self, models: Path) -> Path:
        """Where the container finds what is put there for it."""
        return models if self._engine is None else MODELS

    def ask_to_stop(self) -> None:
        """SIGTERM, and no other container in its place. Does not wait."""
        self.is_ready = False
        self._stopping.set()
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after SageMaker's patience. Its watcher is over then."""
        self.ask_to_stop()
        with self._lock:
            process = self._process
        if process is not None:
            self._ground.processes.stop(process)
        for thread in (self._watcher, self._follower):
            if thread is not None:
                thread.join()

    def last_words(self) -> str:
        """The end of its output, for people."""
        try:
            return self._log_path.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
        except OSError:
            return ""

    # -- the watcher's thread ------------------------------------------------------------------------------------------

    def _keep_running(self, port: int) -> None:
        while not self._stopping.is_set():
            try:
                process = self._begin(port)
            except RuntimeError:  # nothing is started any more: the platform is closing
                self._stopping.set()
                return
            except OSError as error:
                log.error("%s cannot be started: %s", self._spec.image, error)
                self.n_deaths += 1
            else:
                if process is None:
                    return
                status = process.wait()
                self._clear_up(status)
                self.n_deaths += 1
                if not self._stopping.is_set():
                    log.warning("the container at %s ended with status %d; its log is %s", port, status, self._log_path)
            if self.is_ready:
                self.is_ready = False
                threading.Thread(target=self._come_back, name=f"return {port}", daemon=True).start()
            self._stopping.wait(again_after_s(self.n_deaths))

    def _clear_up(self, status: int) -> None:
        """Behind an engine's client, which can end without its container."""
        if self._engine is None:
            return
        self._pid = None
        self._engine.remove(self._name)
        if status in REFUSALS and not self._was_ready:
            if self._follower is not None:
                self._follower.join()
            self._refusal = self._engine.refusal(self.last_words())

    def _begin(self, port: int) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = self._ground.processes.start(
                *self._told(port), output=subprocess.PIPE, errors=subprocess.STDOUT
            )
        self._follower = threading.Thread(
            target=self._follow, args=(self._process,), name="container's log", daemon=True
        )
        self._follower.start()
        return self._process

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # it is a pipe
        with process.stdout as pipe, self._log_path.open("ab", buffering=0) as kept:
            self._stream.follow(pipe.fileno(), kept.write)

    def _come_back(self) -> None:
        try:
            self._await_ready()
        except StartFailed as error:
            if self._stopping.is_set():
                return
            log.error("a container that died does not come back: %s", error)

    def _await_ready(self) -> None:
        container = Container(self.url)
        clock, began_s = self._ground.clock, time.monotonic()
        until_s = clock.monotonic() + self._spec.startup_s
        try:
            while not self._is_ready(container):
                if self._refusal and self._engine is not None:
                    raise StartFailed(f"cannot be run by {self._engine.name}: {self._refusal}")
                is_patient = time.monotonic() - began_s < REAL_PATIENCE_S
                # One that has not begun yet is not dead: where many start at once it waits for its turn.
                has_died = self.n_deaths > 0 and (self._process is None or self._process.poll() is not None)
                if clock.monotonic() >= until_s and (has_died or not is_patient):
                    raise StartFailed("did not pass the ping health check")
                if self._stopping.wait(PING_EVERY_S):
                    raise StartFailed("was stopped before it was healthy")
        finally:
            container.close()
        if self._engine is not None:
            self._pid = self._engine.pid_of(self._name)
        self.is_ready = self._was_ready = True

    def _is_ready(self, container: Container) -> bool:
        if self._process is None or not container.is_healthy():
            return False
        if not self._spec.is_multi:
            return True
        try:
            list(container.loaded())
        except (ContainerGone, ContainerSlow, ValueError, KeyError) as error:
            raise StartFailed("did not pass the ping health check") from error
        return True

    def _told(self, port: int) -> tuple[list[str], dict[str, str]]:
        """A command and its environment."""
        ground, spec, given = self._ground, self._spec, dict(self._spec.environment)
        if spec.is_multi:
            given["SAGEMAKER_MULTI_MODEL"] = "true"
        if self._engine is None:
            if spec.model is not None:
                given.setdefault("SM_MODEL_DIR", os.fspath(spec.model))
            if spec.image not in ground.images.commands and spec.memory_bytes and spec.memory_bytes < machine_bytes():
                given.setdefault("MME_MEMORY", str(for_models(spec.memory_bytes)))
            played = played_environment(given, address=ground.address, region=ground.region)
            return ground.images.command(spec, port), played
        given["SAGEMAKER_BIND_TO_PORT"] = str(port)
        # Our image would listen on all addresses, which here are this machine's.
        given.setdefault("MME_HOST", "127.0.0.1")
        self._name = self._engine.new_name()
        command = self._engine.command(
            spec.image,
            self._name,
            played_environment(given, address=ground.address, region=ground.region, environ={}),
            memory_bytes=spec.memory_bytes,
            mounts={here: there for here, there in ((spec.model, MODEL), (spec.models, MODELS)) if here is not None},
        )
        return command, engine_environment()


def again_after_s(n_deaths: int) -> float:
    """Twice as long each time, up to a limit; the sixth death has reached it."""
    return min(AGAIN_AFTER_S * 2.0 ** min(n_deaths, 10), AGAIN_AFTER_MOST_S)


def for_models(instance_bytes: int) -> int:
    """What our container leaves for models on an instance of this size, as it would find out itself were it alone there."""
    return int((instance_bytes - OVERHEAD_BYTES) * (1 - HEADROOM))


def machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
