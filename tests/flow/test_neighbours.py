"""Another user of the machine: he reaches the ports that are for everybody, and nothing else of an endpoint.

Rule: as nobody, in processes that end; only root can become another, and elsewhere these are skipped.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from container.launch.scratch import MARK, PREFIX
from tests.rig.endpoint import Endpoint

NOBODY = 65_534
ROW = "0.1,0.2,0.3,0.4,0.5,0.6"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# What he tries with each path: its name, and how it ended.
TRY = """
for path in sys.argv[1:]:
    try:
        kind = os.lstat(path).st_mode
    except OSError as error:
        print(path, type(error).__name__)
        continue
    try:
        if stat.S_ISSOCK(kind):
            socket.socket(socket.AF_UNIX).connect(path)
        elif stat.S_ISDIR(kind):
            os.listdir(path)
        else:
            os.close(os.open(path, (os.O_WRONLY if stat.S_ISFIFO(kind) else os.O_RDONLY) | os.O_NONBLOCK))
        print(path, "open")
    except OSError as error:
        print(path, type(error).__name__)
"""


# The interpreter may lie where only root can start it.
BECOME = f"import os, pathlib, socket, stat, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"


def as_nobody(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BECOME + code, *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def listening(pid: int) -> set[int]:
    """Ports on which a process of ours listens."""
    inodes = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            inodes.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


@pytest.mark.parametrize("is_hosted", [False, True])
def test_he_reaches_no_socket_no_file_and_no_port_but_the_serving_and_the_admin_one(
    segments: Path, scratch: Path, is_hosted: bool
) -> None:
    scratch.chmod(0o755)  # he may look where it lies
    flags = () if is_hosted else ("--workers", "4", "--loaders", "2")
    with Endpoint(None if is_hosted else segments, scratch, *flags) as endpoint:
        paths = sorted(str(path) for path in scratch.rglob("*"))
        assert {"lane.sock", "relay.sock"} <= {
            Path(path).name for path in paths if stat.S_ISSOCK(os.lstat(path).st_mode)
        }
        told = dict(line.rsplit(" ", 1) for line in as_nobody(TRY, *paths).splitlines())
        assert set(told) == set(paths)
        assert set(told.values()) == {"PermissionError"}
        members = [endpoint.pid, endpoint.runtime, endpoint.jvm]
        ports = {port for pid in members for port in listening(pid)}
        assert endpoint.port in ports
        assert len(ports) <= 2  # the admin port
        secrets = "[pathlib.Path(f'/proc/{pid}/environ').read_bytes() for pid in sys.argv[1:]]"
        for pid in members:
            with pytest.raises(subprocess.CalledProcessError):
                as_nobody(secrets, str(pid))


def test_what_he_leaves_where_scratch_directories_are_is_neither_used_nor_swept(segments: Path, scratch: Path) -> None:
    scratch.chmod(0o1777)
    root = str(scratch / f"{PREFIX}his")
    plant = f"os.mkdir(sys.argv[1]); open(os.path.join(sys.argv[1], {MARK!r}), 'w').close()"
    as_nobody(plant, root)
    as_nobody("os.symlink('/etc', sys.argv[1])", f"{root}-too")
    endpoint = Endpoint(segments, scratch, "--workers", "4", "--loaders", "2")
    try:
        endpoint.wait_ready()
        assert endpoint.post("us/0.tar.gz", ROW).status == 200
        assert sorted(os.listdir(root)) == [MARK]
        assert Path("/etc/passwd").exists()
        (ours,) = [path for path in scratch.iterdir() if not path.name.startswith(f"{PREFIX}his")]
        assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    finally:
        endpoint.kill()


def test_he_cannot_take_the_place_of_the_runtime_behind_the_front_end(segments: Path, scratch: Path) -> None:
    """MMS's own sockets are names in a directory; whoever could put another there would answer for the models."""
    scratch.chmod(0o755)
    with Endpoint(segments, scratch, "--workers", "4", "--loaders", "2"):
        for path in scratch.rglob("*.sock*"):
            code = "os.unlink(sys.argv[1]); socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
            with pytest.raises(subprocess.CalledProcessError):
                as_nobody(code, str(path))
            with socket.socket(socket.AF_UNIX) as ours:
                ours.connect(str(path))  # it is there still
