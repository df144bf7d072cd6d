"""The built image, run as a platform runs it: a process namespace of its own, a read-only root, no privileges.

There need be no container engine: buildah gives the root file system and the image's configuration, and `unshare` makes
the rest. Hence tests need root, and share this machine's network: the image listens on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig.endpoint import STOP_S, Endpoint, free_port, is_running, until

MODELS = "/mnt"  # in the image: an empty directory of the base, used as the mount point for models
CGROUPS = Path("/sys/fs/cgroup/memory")

# argv: root, user, scratch mount options, read-only or not, directory for MODELS, then the command. Devices are this
# machine's; the control groups are shown as Docker shows them, so that the image finds its memory limit.
_ENTER = """
set -e
root=$1 user=$2 scratch=$3 mode=$4 models=$5; shift 5
mount --bind "$root" "$root"
mount -t tmpfs -o nosuid,mode=755 none "$root/dev"
for device in null zero full random urandom; do : >"$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -t tmpfs -o "nosuid,nodev,mode=1777,$scratch" none "$root/tmp"
mount --bind "$models" "$root/mnt"
mount -o remount,bind,ro "$root/mnt"
mount --rbind /sys "$root/sys"
mount -t proc -o nosuid,nodev,noexec none "$root/proc"
mount -o "remount,bind,$mode" "$root"
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image in buildah's store, and its files mounted."""

    name: str
    root: Path
    config: dict[str, Any]
    diff_ids: tuple[str, ...]

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    def command(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        models: Path,
        user: str | None = None,
        scratch: str = "noexec,size=64m",
        is_read_only: bool = True,
    ) -> list[str]:
        """What starts these words as process 1 of a container."""
        variables = [f"{name}={value}" for name, value in {**self.environment, **environment}.items()]
        return [
            *("setpriv", "--no-new-privs", "unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"),
            *("sh", "-c", _ENTER, "enter", str(self.root), user or self.config["User"], scratch),
            *("ro" if is_read_only else "rw", str(models), "/usr/bin/env", "-i", *variables, *words),
        ]

    def run(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in a container of its own."""
        command = self.command(words, environment=environment or {}, models=self.root / "mnt")
        return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def inspected(name: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """An image's configuration, and the digests of its layers."""
    document = json.loads(buildah("inspect", "--type", "image", name))["Docker"]
    return document["config"], tuple(document["rootfs"]["diff_ids"])


class Box(Endpoint):
    """One container of the image, serving. As a context manager it is stopped at the end, and must leave nothing.

    memory_bytes   limit of its control group (version 1)
    """

    def __init__(
        self,
        image: Image,
        models: Path,
        *flags: str,
        environment: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
        **options: Any,
    ) -> None:
        self.port = free_port()
        self.log: list[str] = []
        self._ready = threading.Event()
        self._group = _memory_group(memory_bytes) if memory_bytes else None
        words = [*image.config["Entrypoint"], *image.config["Cmd"], *flags]
        command = image.command(
            words,
            environment={"MME_HOST": "127.0.0.1", "MME_PORT": str(self.port), **(environment or {})},
            models=models,
            **options,
        )
        if self._group:
            join = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
            command = ["sh", "-c", join, "join", str(self._group), *command]
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()

    @property
    def init(self) -> int:
        """The container's process 1, by its number out here."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def tell(self, number: int) -> None:
        os.kill(self.init, number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        family = self.family()
        if self._process.poll() is None:
            self.tell(number)
        try:
            status = self._process.wait(STOP_S)
        finally:
            self.kill()
            if self._group:
                with contextlib.suppress(OSError):
                    self._group.rmdir()
        assert not [pid for pid in family if is_running(pid)], "".join(self.log)
        return status

    def group_figure(self, name: str) -> str:
        """A file of its control group, such as memory.max_usage_in_bytes."""
        assert self._group is not None
        return (self._group / name).read_text()

    @property
    def ready_s(self) -> float:
        """What it says of its start."""
        line = next(line for line in self.log if "ready after" in line)
        return float(line.rpartition("ready after ")[2].split()[0])


def _memory_group(n_bytes: int) -> Path:
    group = CGROUPS / f"mme-test-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(n_bytes))
    return group


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def missing() -> str | None:
    """Why containers cannot be run here; None when they can."""
    if os.geteuid() != 0:
        return "needs root, for mounts and namespaces"
    for tool in ("buildah", "unshare", "setpriv"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    return None


__all__ = ["CGROUPS", "MODELS", "Box", "Image", "buildah", "inspected", "missing", "status_of", "until"]
