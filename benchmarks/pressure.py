"""Far more models than memory: `python -m benchmarks.pressure [--segments 20000] [--calls 40000] [--limit 1GiB]`.

Segments are asked for by Zipf's law. Printed: the hit ratio beside that of an ideal LRU of the same bytes on the same
calls, how full the budget is, and the most memory that all processes together took (PSS), which must stay below the
limit the budget was made for. Run it in a container with that limit, and the kernel checks it as well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import urllib.request
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import storms
from container.settings import Settings, size_bytes
from container.worker.memory import model_budget
from tests.endpoint import Endpoint, free_port

N_DIFFERENT = 16
LOOK_S = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--segments", type=int, default=20_000)
    parser.add_argument("--calls", type=int, default=40_000)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--limit", type=size_bytes, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=60, help="trees of a booster")
    chosen = parser.parse_args()
    made = storms.make(N_DIFFERENT, chosen.rounds)
    defaults = Settings(models="-")
    budget = model_budget(chosen.limit, defaults.jvm_heap_bytes + defaults.jvm_direct_bytes)
    admin = free_port()
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory(prefix="p-") as scratch:
        _write(Path(root), made, chosen.segments)
        flags = ["--memory", str(budget), "--admin-port", str(admin), "--workers", "16"]
        with Endpoint(root, Path(scratch), *flags) as endpoint:
            watch = _Watch(endpoint, admin)
            weights = 1 / np.arange(1, chosen.segments + 1)
            ranks = list(np.cumsum(weights / weights.sum()))

            def choose(number: int) -> Callable[[], str]:
                choice = random.Random(number)
                return lambda: f"{choice.choices(range(chosen.segments), cum_weights=ranks)[0]}.tar.gz"

            began = time.monotonic()
            with storms.Crowd(endpoint.port, chosen.callers, choose) as crowd:
                while len(crowd.said) < chosen.calls:
                    watch.look()
                    time.sleep(LOOK_S)
            took_s = time.monotonic() - began
            sizes = watch.sizes()
    said = crowd.said
    wrong = [one for one in said if one.status == 200 and made.number(one.body) != _number(one.target)]
    second = said[len(said) // 2 :]
    ideal = _ideal_hits([one.target for one in said], sizes, budget)
    ideal_second = sum(ideal[len(said) // 2 :])
    hits = sum(one.is_hit for one in second)
    print(f"calls          {len(said):,} of {chosen.segments:,} segments, {len(said) / took_s:,.0f}/s")
    print(f"statuses       {dict(Counter(one.status for one in said))}, wrong answers {len(wrong)}")
    print(f"hit ratio      {hits / len(second):.1%} in the second half; ideal LRU {ideal_second / len(second):.1%}")
    print(f"budget         {budget / 2**20:.0f} MiB, used {watch.most_used:.1%}, never over: {watch.most_used <= 1}")
    print(f"memory         {watch.peak_pss / 2**20:.0f} MiB of {chosen.limit / 2**20:.0f} MiB at most, all processes")
    return int(bool(wrong) or watch.peak_pss > chosen.limit or watch.most_used > 1)


def _number(target: str) -> int:
    return int(target.removesuffix(".tar.gz")) % N_DIFFERENT


def _write(root: Path, made: storms.Made, n_segments: int) -> None:
    for number in range(n_segments):
        path = root / f"{number}.tar.gz"
        if number < N_DIFFERENT:
            path.write_bytes(made.archives[number])
        else:
            os.link(root / f"{number % N_DIFFERENT}.tar.gz", path)


class _Watch:
    """Looks at the endpoint from outside."""

    def __init__(self, endpoint: Endpoint, admin: int) -> None:
        self._endpoint = endpoint
        self._url = f"http://127.0.0.1:{admin}"
        self.peak_pss = 0
        self.most_used = 0.0

    def look(self) -> None:
        self.peak_pss = max(self.peak_pss, sum(map(_pss, self._endpoint.family())))
        with urllib.request.urlopen(f"{self._url}/status.json") as answer:
            now = json.load(answer)["now"]
        self.most_used = max(self.most_used, now["loaded_bytes"] / now["budget_bytes"])

    def sizes(self) -> list[int]:
        """What a model of each booster takes in the book."""
        with urllib.request.urlopen(f"{self._url}/models?limit=1000") as answer:
            found = {_number(model["name"]): model["n_bytes"] for model in json.load(answer)["models"]}
        return [found[number] for number in range(N_DIFFERENT)]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _ideal_hits(targets: list[str], sizes: list[int], budget: int) -> list[bool]:
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


if __name__ == "__main__":
    sys.exit(main())
