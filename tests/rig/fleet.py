"""A fleet as `mme fleet local` runs it, for tests and benchmarks."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from container.operate.fleet.balancer import find
from container.operate.troubles import Misused
from tests.rig.command import Command
from tests.rig.endpoint import free_port

PATIENCE_S = 60.0  # on a busy machine


def has(kind: str) -> bool:
    """Whether such a balancer is installed."""
    try:
        return bool(find(kind))
    except Misused:
        return False


class Fleet:
    """Started when it is made; `command` is what runs it."""

    def __init__(
        self, models: Path, n_replicas: int, *serve: str, kind: str = "haproxy", flags: Sequence[str] = ()
    ) -> None:
        self.port, self.page_port = free_port(), free_port()
        self.command = Command(
            *("fleet", "local", "--models", str(models), "--replicas", str(n_replicas), "--balancer", kind),
            *("--port", str(self.port), "--page-port", str(self.page_port), *flags, "--", *serve),
        )
        try:
            self.command.wait_for("next")
        except BaseException:
            self.command.close()
            raise

    def facts(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page_port}/fleet.json", timeout=PATIENCE_S) as answer:
            return dict(json.load(answer))

    def holders(self) -> dict[str, list[str]]:
        """The busiest models in memory, and who has them."""
        return {one["name"]: one["replicas"] for one in self.facts()["models"]}

    def all_models(self) -> dict[str, list[str]]:
        url = f"http://127.0.0.1:{self.page_port}/models?limit=100000"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return {one["name"]: one["replicas"] for one in json.load(answer)["models"]}

    def all_there(self) -> bool:
        return bool(self.facts()["verdict"]["headline"] == "All there")

    def ports(self) -> list[int]:
        """Of the replicas themselves, in order."""
        lines = [line.split() for line in self.command.lines if line.startswith("replica ")]
        return [int(words[2].rpartition(":")[2]) for words in lines]

    def supervisor(self, number: int) -> int:
        """The process that is replica NUMBER, from 1."""
        port = str(self.ports()[number - 1]).encode()
        for pid in self.command.family():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"serve" in words and port in words:
                return pid
        raise LookupError(f"replica {number} is not running")

    def stop(self) -> None:
        self.command.close()
