"""`mme demo --loop`: ten cities' prices from rows to answers, and one model made worse on purpose and taken back.

    September's prices -> trained, judged, live, asked
    October's, Houston dearer by a third -> the same command: better, live, asked
    November's, Phoenix's feed broken -> worse, and kept from going live; let through all the same, and taken back

Rule: nothing is played. Each line that begins with $ is a command as a person writes it, run in a directory of its own beside
a running endpoint; what stands below is what it printed.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container import environments
from container.operate.exits import CommandFailed, Exit
from container.operate.printing import lines_of
from container.operate.serving import LOOK_S, ServeChild
from container.operate.stopping import Steps

if TYPE_CHECKING:
    from container.operate.demo.page import Printer

N_ROWS = 2400  # of each city and month
N_CHECKED = 400
READY_PATIENCE_S = 60.0
DEARER, BROKEN = "Houston_TX", "Phoenix_AZ"
SHARE = 1 / 3
# For which a model of broken prices answers the mean, and it shows.
HOUSE = "2020,4000,5,4,1,3"


class LoopFailed(CommandFailed):
    """A command of the loop ended otherwise than it should."""


class Loop:
    """One run, told by `run` from top to bottom."""

    def __init__(self, port: int, printer: Printer, steps: Steps) -> None:
        self._port = port
        self._steps = steps
        self._url = f"http://127.0.0.1:{port}"
        self._printer = printer
        self._environment = environments.demo_environment()

    def run(self) -> None:
        """Raises CommandFailed; KeyboardInterrupt when it is to end."""
        say, wait_for = self._printer.say, self._printer.progress.wait_for
        with tempfile.TemporaryDirectory(prefix="mme-demo-") as folder:
            root = Path(folder)
            (root / "prod").mkdir()
            serve = ["--models", str(root / "prod"), "--max-age", "1", "--host", "127.0.0.1", "--port", str(self._port)]
            with ServeChild([*serve, "--workers", "4", "--log-level", "warning"], self._environment) as child:
                wait_for("making up prices")
                self._write(root)
                wait_for("waiting for the endpoint")
                child.wait_ready(READY_PATIENCE_S, self._steps.begin)
                say(lines_of("ready", self._url, f"reads {root}/prod, where nothing is yet; commands run in {root}"))
                self._tell(root)

    def _tell(self, root: Path) -> None:
        say = self._printer.say
        say("\nSeptember: a model for each of ten cities")
        self._loop(root, "september")
        self._ask(root, DEARER)
        say(f"\nOctober: houses in {DEARER} are dearer by a third")
        self._loop(root, "october")
        self._ask(root, DEARER)
        say(f"\nNovember: the feed of {BROKEN} is broken, and its prices stand beside the wrong houses")
        self._loop(root, "november", may_fail=True)
        say("\nIt is let through all the same")
        self._command(root, "release", "approve", "--of", "prod", "--note", "on purpose")
        self._command(root, "release", "verify", "--of", "prod", "--url", self._url, "--wait", "60")
        self._ask(root, BROKEN)
        say("\nand taken back")
        self._command(
            root, "release", "rollback", "--of", "prod", "--only", f"us/{BROKEN}*", "--note", "the feed was broken"
        )
        self._command(root, "release", "verify", "--of", "prod", "--url", self._url, "--wait", "60")
        self._ask(root, BROKEN)
        self._command(root, "release", "list", "--of", "prod")

    def _loop(self, root: Path, month: str, *, may_fail: bool = False) -> None:
        self._command(
            root,
            *("pipeline", "run", "--local", "--data", f"rows/{month}", "--validation", f"checked/{month}"),
            *("--segment-column", "city", "--target", "us/{city}.tar.gz", "--label", "price", "--date", "day"),
            *("--to", "prod", "--set", "max_depth=5", "eta=0.1", "--condition", "worse<=0.01,worst<=0.25"),
            *("--url", self._url),
            may_fail=may_fail,
        )

    def _ask(self, root: Path, city: str) -> None:
        self._command(root, "invoke", "--url", self._url, "--target", f"us/{city}.tar.gz", HOUSE)

    def _command(self, root: Path, *words: str, may_fail: bool = False) -> None:
        self._steps.begin()
        self._printer.say(f"\n$ mme {shlex.join(words)}")
        self._printer.progress.wait_for(" ".join(words[:2]))
        status, said, trouble = self._done(root, words)
        if status == Exit.INTERRUPTED:  # Ctrl-C in a terminal is the command's as well as ours
            raise KeyboardInterrupt
        self._printer.say(said.rstrip("\n").removeprefix("\n"))
        if status and not may_fail:
            raise LoopFailed(f"mme {shlex.join(words)} ended with status {status}\n{trouble}")

    def _done(self, root: Path, words: Sequence[str]) -> tuple[int, str, str]:
        """Its status, what it said, and on stderr."""
        command = [sys.executable, "-m", "container.operate.main", *words]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=root, env=self._environment, stdout=pipe, stderr=pipe, text=True) as process:
            while True:
                try:
                    said, trouble = process.communicate(timeout=LOOK_S)
                except subprocess.TimeoutExpired:
                    if self._steps.stop.is_set():
                        process.send_signal(signal.SIGINT)
                        process.communicate()
                        raise KeyboardInterrupt from None
                else:
                    return process.returncode, said, trouble

    def _write(self, root: Path) -> None:
        """Rows of three months, and rows whose prices somebody has checked."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.csv as csv

        from container.operate.demo import houses

        for at, month in enumerate(("september", "october", "november"), 9):
            for name, n_rows in (("rows", N_ROWS), ("checked", N_CHECKED)):
                parts: list[Any] = []
                for city, usd in houses.CITIES.items():
                    draw = np.random.default_rng(zlib.crc32(f"{city} {month} {name}".encode()))
                    rows = houses.draw_rows(draw, n_rows)
                    dear = 1 + SHARE if city == DEARER and at > 9 else 1.0
                    prices = houses.formula(rows, usd * dear) * draw.lognormal(0, houses.NOISE, n_rows)
                    if city == BROKEN and at == 11 and name == "rows":
                        prices = draw.permutation(prices)
                    columns = {feature: rows[:, number] for number, feature in enumerate(houses.FEATURES)}
                    days = [f"2026-{at:02}-{1 + number % 28:02}" for number in range(n_rows)]
                    parts.append(pa.table({"city": [city] * n_rows, "day": days, "price": prices.round(), **columns}))
                path = root / name / month / "prices.csv"
                path.parent.mkdir(parents=True)
                csv.write_csv(pa.concat_tables(parts), path)
