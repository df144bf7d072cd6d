"""What a setting is worth: variants of the endpoint against the shipped one, all in one run.

    python -m benchmarks.variants workers-4 c1-only ...       (no name: all of them)

A variant changes what nobody is meant to set: an option of the JVM, a property of MMS, a constant of the runtime. The
change is made from outside, in the started processes, so the shipped code stays as it is while it is measured.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig import record, segments
from benchmarks.rig.endpoints import ROOT, Ours, Server
from benchmarks.rig.warm import warm_up
from benchmarks.throughput import BODY, N_DRAWS, interleaved, median_ratio

SHIPPED = "shipped"

# Run in the supervisor before its main; `properties` and `java` are given.
_LAUNCHER = """
import sys
from container import environments
from container.launch import mms
own_properties, own_command, own_environment = mms._properties, mms.command, environments.runtime_environment
mms._properties = lambda *a: {**own_properties(*a), **%(properties)r}
def command(*a):
    words = [word for word in own_command(*a) if word not in %(without)r]
    return [words[0], *%(java)r, *words[1:]]
mms.command = command
environments.runtime_environment = lambda *a: {**own_environment(*a), **%(environment)r}
from container.operate.main import main
sys.exit(main(sys.argv[1:]))
"""
# Run by the interpreter of the runtime, and of it alone, before anything else.
_SITE = """
import os, sys
if "container.worker" in sys.orig_argv:
    exec(os.environ["VARIANT"])
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A difference from what is shipped.

    flags        of `mme serve`
    java         options added to the JVM's; `without` are left out
    properties   of MMS
    environment  of the runtime
    code         run in the runtime before its main
    """

    why: str
    flags: tuple[str, ...] = ()
    java: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    properties: Mapping[str, object] | None = None
    environment: Mapping[str, str] | None = None
    code: str = ""


_LIBXGBOOST = """
from container.examine.quarantine import Quarantine
make = Quarantine.__init__
Quarantine.__init__ = lambda self, n_preforked, **options: make(self, n_preforked, **{**options, "as_boosters": True})
"""


def _switch_interval(seconds: float) -> str:
    return f"import container.worker.main as m\nm.SWITCH_INTERVAL_S = {seconds}\n"


VARIANTS = {
    SHIPPED: Variant("what everything is compared with"),
    "again": Variant("the same once more: what differs here is noise"),
    "workers-1": Variant("no thread of the runtime ever waits for another", flags=("--workers", "1")),
    "workers-2": Variant("fewer threads that hand the interpreter over", flags=("--workers", "2")),
    "workers-4": Variant("fewer threads that hand the interpreter over", flags=("--workers", "4")),
    "workers-16": Variant("more that may wait for loads", flags=("--workers", "16")),
    "workers-32": Variant("more still", flags=("--workers", "32")),
    "workers-64": Variant("more still", flags=("--workers", "64")),
    "netty-1": Variant(
        "one Netty thread on each side", properties={"number_of_netty_threads": 1, "netty_client_threads": 1}
    ),
    "netty-4": Variant("more of them", properties={"number_of_netty_threads": 4, "netty_client_threads": 4}),
    "direct-buffers": Variant("Netty's buffers outside the heap", properties={"prefer_direct_buffer": "true"}),
    "c1-only": Variant("no second compiler", java=("-XX:TieredStopAtLevel=1",)),
    "g1-gc": Variant("a collector that works beside calls", java=("-XX:+UseG1GC",), without=("-XX:+UseSerialGC",)),
    "parallel-gc": Variant(
        "a collector of several threads", java=("-XX:+UseParallelGC",), without=("-XX:+UseSerialGC",)
    ),
    "fixed-heap": Variant("a heap that does not grow", java=("-Xms192m", "-Xmn96m")),
    "switch-5ms": Variant("CPython's own interval", code=_switch_interval(0.005)),
    "switch-1ms": Variant("a longer one than ours", code=_switch_interval(0.001)),
    "arenas-2": Variant("two heaps in the runtime", environment={"MALLOC_ARENA_MAX": "2"}),
    "large-tcache": Variant(
        "malloc keeps what a prediction takes and gives back, up to 64 KB, for the thread",
        environment={"GLIBC_TUNABLES": "glibc.malloc.tcache_max=65536"},
    ),
    "libxgboost": Variant("libxgboost scores every model, as where there is no C compiler", code=_LIBXGBOOST),
}


class VariantServer(Ours):
    def __init__(self, name: str, models: Path) -> None:
        self._variant = VARIANTS[name]
        super().__init__(models, "--memory", "1GiB", *self._variant.flags)
        self.name = name

    def command(self) -> Sequence[str]:
        start = super().command()
        variant = self._variant
        code = _LAUNCHER % {
            "properties": dict(variant.properties or {}),
            "java": list(variant.java),
            "without": list(variant.without),
            "environment": dict(variant.environment or {}),
        }
        return [start[0], "-c", code, *start[3:]]

    def environment(self) -> Mapping[str, str]:
        (self.scratch / "sitecustomize.py").write_text(_SITE)
        path = os.pathsep.join([str(self.scratch), str(ROOT)])
        return {**os.environ, "PYTHONPATH": path, "VARIANT": self._variant.code}

    def role(self, command_line: str) -> str:
        return "supervisor" if "own_properties" in command_line else super().role(command_line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="VARIANT")
    parser.add_argument("--segments", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=6, help="variants that run side by side with the shipped one")
    chosen = parser.parse_args()
    names = [name for name in chosen.names or VARIANTS if name != SHIPPED]
    made = segments.make(chosen.segments)
    draws = [made.targets[number] for number in segments.zipf(chosen.segments, N_DRAWS)]
    lines = []
    for start in range(0, len(names), chosen.at_once):
        lines += _compare(names[start : start + chosen.at_once], made, draws, chosen.rounds, chosen.seconds)
    print(f"{'variant':22}{'throughput':>12}{'p50, one':>10}{'CPU':>8}   of the shipped one")
    for line in lines:
        print(f"{line['name']:22}{line['throughput']:>12.2f}{line['p50']:>10.2f}{line['cpu']:>8.2f}   {line['why']}")
    record.save("variants", {"variants": lines})
    return 0


def _compare(
    names: Sequence[str], made: segments.Segments, draws: Sequence[str], rounds: int, seconds: int
) -> list[dict[str, object]]:
    servers: dict[str, Server] = {}
    with ExitStack() as running:
        for name in (SHIPPED, *names):
            servers[name] = running.enter_context(VariantServer(name, made.models))
            warm_up(servers[name], made.targets, BODY)
        figures = interleaved(
            servers, draws, rounds=rounds, seconds=seconds, say=lambda text: print(text, file=sys.stderr)
        )
    ours = figures[SHIPPED]
    return [
        {
            "name": name,
            "why": VARIANTS[name].why,
            "throughput": median_ratio(figures[name], ours, "many", "requests_per_s"),
            "p50": median_ratio(figures[name], ours, "one", "p50_us"),
            "cpu": median_ratio(figures[name], ours, "many", "cpu_us"),
        }
        for name in names
    ]


if __name__ == "__main__":
    sys.exit(main())
