"""Every model called once, so that what follows finds it in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.rig.endpoints import Server

CALLERS = 8


def warm_up(server: Server, targets: Sequence[str], body: bytes) -> None:
    """Returns when each target has answered with 200."""

    def call_all(part: Sequence[str]) -> None:
        caller = server.caller()
        for target in part:
            caller.call_until_ready(target, body)
        caller.close()

    with ThreadPoolExecutor(CALLERS) as callers:
        for done in [callers.submit(call_all, targets[start::CALLERS]) for start in range(CALLERS)]:
            done.result()
