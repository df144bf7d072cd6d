"""How a host's tree becomes its program's /opt/ml: in a mount namespace, or not at all where none is permitted.

Rule: what is permitted is tried once, with the whole script. A process namespace beside it makes the program number 1, which
the kernel gives no signal that it has no handler for, as in a container; and nothing outlives it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ENTER = Path(__file__).with_name("enter.sh")
TRY_S = 20.0
_MOUNTS = ("--mount", "--uts", "--propagation", "private")
_ALONE = ("--pid", "--fork", "--kill-child=KILL", "--mount-proc")
_AS_USER = ("--user", "--map-root-user")
# From the one that is most like a container.
_WAYS = ((*_MOUNTS, *_ALONE), (*_AS_USER, *_MOUNTS, *_ALONE), _MOUNTS, (*_AS_USER, *_MOUNTS))


@dataclass(frozen=True, slots=True)
class Room:
    """options: of unshare; empty where no namespace is permitted, and the tree is then told by an environment variable."""

    options: tuple[str, ...] = ()

    @property
    def is_namespace(self) -> bool:
        return bool(self.options)

    @property
    def is_alone(self) -> bool:
        """The program has a process namespace: its number here is that of unshare's child."""
        return "--pid" in self.options

    def command(self, tree: Path, hosts: Path, name: str, program: Sequence[str], *, is_offline: bool) -> list[str]:
        """What to start. The kernel kills it with the thread that starts it."""
        with_us = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        if not self.is_namespace:
            return [*with_us, *program]
        network = ["--net"] * is_offline
        return [*with_us, "unshare", *self.options, *network, "sh", str(ENTER), str(tree), str(hosts), name, *program]


def best_room() -> Room:
    """The first way that works here."""
    if not shutil.which("unshare"):
        return Room()
    with TemporaryDirectory(prefix="mme-room-") as folder:
        tree, hosts = Path(folder, "ml"), Path(folder, "hosts")
        tree.mkdir()
        (tree / "here").write_text("")
        hosts.write_text("127.0.0.1 localhost\n")
        for options in _WAYS:
            room = Room(options)
            command = room.command(tree, hosts, "algo-1", ["test", "-e", "/opt/ml/here"], is_offline=False)
            try:
                ended = subprocess.run(command, capture_output=True, check=False, timeout=TRY_S, cwd="/")
            except (OSError, subprocess.TimeoutExpired):
                continue
            if ended.returncode == 0:
                return room
    return Room()
