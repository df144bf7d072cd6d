"""Far more models than memory: `python -m benchmarks.pressure [--segments 20000] [--seconds 300] [--limit 1GiB]`.

The endpoint runs in a control group with that limit, which the kernel enforces, and works out its budget from it. Segments
of 70 to 500 KB are asked for, the rarest first until the memory is full, then for so long by Zipf's law. Archives and
callers are outside the group: the archives' pages were written, and are charged, out here, and there are few of them, since
segments are links to a few files.

Targets: nobody is killed, no caller hears anything but an answer or "not ready", every answer is the named segment's, the
budget is used to at least 85 %, the runtime's memory over its start is within 10 % of the cache's book, and the hit ratio is
within one point of an ideal LRU of the same bytes on the same calls. Beside it stands what an oracle could do that knows
all later calls (Belady's rule: the model asked for again last leaves first).
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig import processes, record, storms
from benchmarks.rig.endpoints import Ours
from benchmarks.rig.verdicts import Verdicts
from container.settings import size_bytes
from tests.rig import control_group
from tests.rig.control_group import ControlGroup
from tests.rig.endpoint import free_port

ROUNDS = range(30, 430, 16)  # trees of the boosters: 70 to 500 KB of UBJ
LOOK_S = 1.0
FULL = 0.95
FILL_S = 900.0  # at most
PAUSE_S = 0.1  # of a caller who was told to call again
HIT_POINTS = 0.01
LEAST_USED = 0.85
OFF_BOOK = 0.10


class OursIn(Ours):
    """`mme serve` in a control group."""

    def __init__(self, group: ControlGroup, models: Path, *flags: str) -> None:
        super().__init__(models, *flags)
        self._group = group

    def command(self) -> Sequence[str]:
        return self._group.command(super().command())

    def status(self) -> Mapping[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._flags[1]}/status.json") as answer:
            now: Mapping[str, Any] = json.load(answer)["now"]
        return now


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--segments", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--limit", type=size_bytes, default=1 << 30)
    chosen = parser.parse_args()
    reason = control_group.missing()
    if reason is not None:
        print(f"cannot be measured here: {reason}", file=sys.stderr)
        return 2
    made = storms.make_many(ROUNDS)
    weights = 1 / np.arange(1, chosen.segments + 1)
    ranks = list(np.cumsum(weights / weights.sum()))

    is_full = threading.Event()
    rarest_first = iter(range(chosen.segments - 1, -1, -1))  # until the memory is full; next() is one step

    def choose(number: int) -> Callable[[], str]:
        choice = random.Random(number)

        def one() -> str:
            if not is_full.is_set() and (rare := next(rarest_first, None)) is not None:
                return _name(rare)
            return _name(choice.choices(range(chosen.segments), cum_weights=ranks)[0])

        return one

    with tempfile.TemporaryDirectory() as root, ControlGroup(chosen.limit) as group:
        _write(Path(root), made, chosen.segments)
        with OursIn(group, Path(root), "--admin-port", str(free_port())) as ours:
            caller = storms.Caller(ours.port)
            caller.call(_name(0))
            caller.close()
            runtime, at_start = ours.runtime, ours.status()
            start_bytes = processes.resident_bytes(runtime) - at_start["loaded_bytes"]
            looks: list[dict[str, float]] = []
            with storms.Crowd(ours.port, chosen.callers, choose, pause_s=PAUSE_S) as crowd:
                _wait_until_full(ours, is_full)
                n_filling = len(crowd.said)
                until = time.monotonic() + chosen.seconds
                while time.monotonic() < until:
                    time.sleep(LOOK_S)
                    now = ours.status()
                    looks.append(
                        {
                            "book": now["loaded_bytes"],
                            "budget": now["budget_bytes"],
                            "over_start": processes.resident_bytes(runtime) - start_bytes,
                            "group": group.used_bytes - group.file_bytes,
                        }
                    )
            sizes = _sizes(ours, len(made.archives))
            is_same = ours.runtime == runtime
            log = ours.last_lines(5)
        kills, most_bytes = group.oom_kills, group.most_bytes
    calls = sorted(crowd.said, key=lambda call: call.began)
    figures = _figures(calls, n_filling, made, looks, sizes, int(at_start["budget_bytes"]))
    figures |= {"limit": chosen.limit, "most_bytes": most_bytes, "kills": kills, "segments": chosen.segments}
    verdicts = _print(figures, is_killed=kills > 0 or not is_same)
    if verdicts.exit_status:
        print("the endpoint's last words:", *log, sep="\n", file=sys.stderr)
    record.save("pressure", {**figures, "looks": looks, "verdicts": verdicts.lines})
    return verdicts.exit_status


def _wait_until_full(ours: OursIn, is_full: threading.Event) -> None:
    deadline = time.monotonic() + FILL_S
    while time.monotonic() < deadline:
        now = ours.status()
        if now["loaded_bytes"] >= FULL * now["budget_bytes"]:
            break
        time.sleep(LOOK_S)
    is_full.set()


def _name(number: int) -> str:
    return f"{number}.tar.gz"


def _number(target: str) -> int:
    return int(target.removesuffix(".tar.gz")) % len(ROUNDS)


def _write(root: Path, made: storms.Made, n_segments: int) -> None:
    for number in range(n_segments):
        path = root / _name(number)
        if number < len(made.archives):
            path.write_bytes(made.archives[number])
        else:
            os.link(root / _name(number % len(made.archives)), path)


def _sizes(ours: Ours, n_different: int) -> list[int]:
    """What a model of each booster takes in the book."""
    found = {_number(name): n_bytes for name, n_bytes in ours.resident_models().items()}
    return [found[number] for number in range(n_different)]


def _figures(
    calls: Sequence[storms.Said],
    n_filling: int,
    made: storms.Made,
    looks: Sequence[Mapping[str, float]],
    sizes: list[int],
    budget: int,
) -> dict[str, Any]:
    """Of ideal caches the hits are counted in the second half of the calls after the filling, but they see all."""
    targets = [call.target for call in calls]
    half = n_filling + (len(calls) - n_filling) // 2
    late = looks[len(looks) // 2 :]
    return {
        "calls": len(calls),
        "per_second": len(calls) / (calls[-1].ended - calls[0].began),
        "statuses": dict(Counter(call.status for call in calls)),
        "wrong": sum(call.status == 200 and made.number(call.body) != _number(call.target) for call in calls),
        "hits": statistics.mean(call.is_hit for call in calls[half:]),
        "lru_hits": statistics.mean(lru_hits(targets, sizes, budget)[half:]),
        "oracle_hits": statistics.mean(oracle_hits(targets, sizes, budget)[half:]),
        "budget": budget,
        "used": statistics.median(look["book"] / budget for look in late),
        "most_used": max(look["book"] / budget for look in looks),
        "off_book": statistics.median(look["over_start"] / look["book"] - 1 for look in late),
        "least_budget": min(look["budget"] for look in looks),
    }


def _print(figures: Mapping[str, Any], *, is_killed: bool) -> Verdicts:
    print(f"calls          {figures['calls']:,} of {figures['segments']:,} segments, {figures['per_second']:,.0f}/s")
    print(
        f"budget         {figures['budget'] / 2**20:.0f} MiB of {figures['limit'] / 2**20:.0f}, worked out from the group"
    )
    print(f"lowered to     {figures['least_budget'] / 2**20:.0f} MiB at times, for what others took")
    print(f"most           {figures['most_bytes'] / 2**20:.0f} MiB in the group, pages of files included")
    verdicts = Verdicts()
    verdicts.say("killed", f"{figures['kills']} processes by the kernel", "none", not is_killed)
    statuses = figures["statuses"]
    verdicts.say("statuses", str(statuses), "200 and 429 alone", set(statuses) <= {200, 429})
    verdicts.say("wrong answers", str(figures["wrong"]), "none", figures["wrong"] == 0)
    verdicts.say("budget used", f"{figures['used']:.1%}", f"at least {LEAST_USED:.0%}", figures["used"] >= LEAST_USED)
    verdicts.say("most used", f"{figures['most_used']:.1%}", "at most 100 %", figures["most_used"] <= 1)
    verdicts.say(
        "resident", f"{figures['off_book']:+.1%} off the book", f"{OFF_BOOK:.0%}", abs(figures["off_book"]) <= OFF_BOOK
    )
    print(f"oracle         {figures['oracle_hits']:.2%} hits by Belady's rule, in the second half")
    verdicts.say(
        "hits",
        f"{figures['hits']:.2%}, ideal LRU {figures['lru_hits']:.2%}",
        "within one point",
        abs(figures["hits"] - figures["lru_hits"]) <= HIT_POINTS,
    )
    return verdicts


def lru_hits(targets: Sequence[str], sizes: Sequence[int], budget: int) -> list[bool]:
    """Call by call, whether a cache that does nothing but LRU by bytes would have had the model."""
    held: OrderedDict[str, int] = OrderedDict()
    used = 0
    hits = []
    for target in targets:
        hits.append(target in held)
        if target in held:
            held.move_to_end(target)
            continue
        size = sizes[_number(target)]
        while used + size > budget:
            used -= held.popitem(last=False)[1]
        held[target] = size
        used += size
    return hits


def oracle_hits(targets: Sequence[str], sizes: Sequence[int], budget: int) -> list[bool]:
    """The same for a cache that knows all calls to come, and lets go what is asked for again last, or never."""
    nexts: list[float] = [float("inf")] * len(targets)
    last: dict[str, int] = {}
    for at in range(len(targets) - 1, -1, -1):
        nexts[at] = last.get(targets[at], float("inf"))
        last[targets[at]] = at
    held: dict[str, float] = {}  # when each is asked for again
    order: list[tuple[float, str]] = []  # the same, negated; entries that are no longer so are passed over
    used = 0
    hits = []
    for at, target in enumerate(targets):
        is_hit = target in held
        hits.append(is_hit)
        held[target] = nexts[at]
        heapq.heappush(order, (-nexts[at], target))
        used += 0 if is_hit else sizes[_number(target)]
        while used > budget:
            when, victim = heapq.heappop(order)
            if held.get(victim) == -when:
                del held[victim]
                used -= sizes[_number(victim)]
    return hits


if __name__ == "__main__":
    sys.exit(main())
