"""Damaged archives through a running endpoint, while healthy segments are called.

    python -m benchmarks.damaged [--archives 10000] [--seed 0] [--oracles DIR]

Boosters of nine real releases are damaged in every format and at every layer: bytes changed, cut, swapped, dropped,
repeated, digits replaced; inside the booster, inside the tar, inside the gzip stream. It proves, or disproves:

    the runtime's pid never changes; no healthy call fails, is wrong, or slows past twice its time beside sound
    archives; nothing hangs; each damaged archive answers a clear error or the right numbers

The right numbers are those of the undamaged booster or, when the damage has changed a number inside a sound booster, what
XGBoost itself says: the release that wrote it (DIR/v<release>/bin/python, when there is one), else the current one for the
formats it reads, in a process that may die of it. What nobody could be asked about is counted apart, not as right.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import http.client
import io
import itertools
import json
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np

from handler.archives.limits import Limits
from handler.archives.members import read_artifact
from tests.rig import boosters
from tests.rig.endpoint import Endpoint

ROOT = Path(__file__).resolve().parents[1]
BOOSTERS_ARCHIVE = ROOT / "tests" / "fixtures" / "boosters.tar.gz"
ANSWER = "answer: "  # as oracle.py writes it
ORACLE = Path(__file__).parent / "rig" / "oracle.py"
N_HEALTHY = 50
HEALTHY_PER_S = 100.0  # calls, all healthy segments together
N_STEADY = 2  # threads that make them
ROUND = 100  # archives between two changes from sound to damaged ones: what else the machine does hits both alike
ALONE_S = 8.0
HANG_S = 75.0  # the examiner gives an artifact 60
ORACLE_S = 10.0
N_ROWS = 8
CLEAR = {
    400,
    406,
    415,
    422,
}  # statuses inside a ModelError that are about the archive or about rows that no longer fit it
CONTAINED = ("ended the process", "was not read within", "takes more than")  # what only the examiner's walls stopped


@dataclass(frozen=True)
class Source:
    """A booster of a real release and what it answers."""

    file: str
    release: str
    data: bytes = field(repr=False)
    is_coded: bool
    expected: np.ndarray = field(repr=False)


@dataclass
class Damaged:
    """One damaged archive, and what came of it."""

    target: str
    blob: bytes = field(repr=False)
    source: Source
    how: str
    status: int = 0
    original: int | None = None
    message: str = ""
    numbers: np.ndarray | None = field(default=None, repr=False)
    took_s: float = 0.0


# -- damage ------------------------------------------------------------------------------------------------------------


def change(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)


def flip(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def swap(data: bytearray, chance: random.Random) -> None:
    size = min(chance.randint(1, 64), len(data) // 2)
    one, other = chance.randrange(len(data) - size), chance.randrange(len(data) - size)
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]


def drop(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    del data[at : at + chance.randint(1, 64)]


def repeat(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = data[at : at + chance.randint(1, 64)]


def digit(data: bytearray, chance: random.Random) -> None:
    """A number changed into another, which leaves a JSON document sound."""
    places = [at for at, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    for at in chance.sample(places, min(len(places), chance.randint(1, 3))):
        data[at] = chance.randint(0x30, 0x39)


KINDS: tuple[Callable[[bytearray, random.Random], None], ...] = (change, flip, cut, swap, drop, repeat, digit)
LAYERS = ("member", "member", "member", "raw", "tar", "gzip")  # where most can go wrong, most often


def damage(source: Source, number: int, chance: random.Random) -> Damaged:
    kind, layer = chance.choice(KINDS), chance.choice(LAYERS)

    def damaged(data: bytes) -> bytes:
        mutable = bytearray(data)
        kind(mutable, chance)
        return bytes(mutable)

    if layer == "raw":
        blob = damaged(source.data)
    elif layer == "member":
        blob = gzip.compress(tar_of(damaged(source.data)), 1)
    elif layer == "tar":
        blob = gzip.compress(damaged(tar_of(source.data)), 1)
    else:
        blob = damaged(gzip.compress(tar_of(source.data), 1))
    return Damaged(f"bad/{number:06}.tar.gz", blob, source, f"{layer}/{kind.__name__}")


def sound_archive(source: Source, number: int) -> Damaged:
    """One that is not damaged at all, for comparison."""
    return Damaged(f"bad/s{number:06}.tar.gz", gzip.compress(tar_of(source.data), 1), source, "sound")


def tar_of(member: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("xgboost-model")
        info.size = len(member)
        tar.addfile(info, io.BytesIO(member))
    return buffer.getvalue()


def read_archive() -> tuple[list[Source], dict[bool, np.ndarray]]:
    """The boosters that are served, and the rows to score: plain, and with a column of categories."""
    with tarfile.open(BOOSTERS_ARCHIVE) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]

    def array(name: str) -> np.ndarray:
        loaded: np.ndarray = np.load(io.BytesIO(files[name]))
        return loaded[:N_ROWS]

    sources = [
        Source(entry["file"], entry["release"], files[entry["file"]], entry["coded"],
               array(f"xgboost-{entry['release']}/{entry['case']}.npy").ravel())
        for entry in json.loads(files["manifest.json"])
        if not entry["refused"]
    ]  # fmt: skip
    return sources, {False: array("probe.npy"), True: array("probe-coded.npy")}


# -- callers -----------------------------------------------------------------------------------------------------------


class Caller:
    """One connection to the endpoint."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_S)

    def call(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Status and body; 0 and why when there was no answer."""
        headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Model": target}
        try:
            self._connection.request("POST", "/invocations", body, headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 0, f"{type(error).__name__}: {error}".encode()

    def close(self) -> None:
        self._connection.close()


def csv(rows: np.ndarray) -> bytes:
    return "\n".join(",".join("" if np.isnan(x) else repr(float(x)) for x in row) for row in rows).encode()


class Healthy:
    """Calls of the healthy segments at a steady rate, on two threads, for as long as a `with` block lasts; any number of
    blocks one after another."""

    def __init__(self, port: int, body: bytes, answers: list[bytes]) -> None:
        self._port, self._body, self._answers = port, body, answers
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.took_ms: list[float] = []
        self.failures: list[str] = []

    def __enter__(self) -> Healthy:
        self._is_over.clear()
        self._threads = [threading.Thread(target=self._run, args=[offset]) for offset in range(N_STEADY)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, offset: int) -> None:
        caller = Caller(self._port)
        pause_s = N_STEADY / HEALTHY_PER_S
        due = time.monotonic()
        number = offset * N_HEALTHY // 2
        while not self._is_over.is_set():
            number = (number + 1) % N_HEALTHY
            start = time.perf_counter()
            status, body = caller.call(f"good/{number}.tar.gz", self._body)
            self.took_ms.append((time.perf_counter() - start) * 1000)
            if status != 200 or body != self._answers[number]:
                self.failures.append(f"good/{number}: {status} {body[:200]!r}")
            due = max(due + pause_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
        caller.close()

    def figures(self) -> tuple[float, float, float]:
        """p50, p99 and the longest, in milliseconds."""
        p50, p99 = np.percentile(self.took_ms, [50, 99])
        return float(p50), float(p99), max(self.took_ms)


def call_all(
    port: int, models: Path, archives: Iterator[Damaged], bodies: dict[bool, bytes], n_callers: int
) -> list[Damaged]:
    """Drop each archive into the directory, call it, and take it away again."""
    lock = threading.Lock()
    done: list[Damaged] = []

    def run() -> None:
        caller = Caller(port)
        while True:
            with lock:
                one = next(archives, None)
            if one is None:
                break
            path = models / one.target
            path.write_bytes(one.blob)
            start = time.perf_counter()
            one.status, body = caller.call(one.target, bodies[one.source.is_coded])
            one.took_s = time.perf_counter() - start
            path.unlink()
            read_answer(one, body)
            done.append(one)
        caller.close()

    with ThreadPoolExecutor(n_callers) as threads:
        for future in [threads.submit(run) for _ in range(n_callers)]:
            future.result()
    return done


def read_answer(one: Damaged, body: bytes) -> None:
    if one.status == 200:
        with contextlib.suppress(ValueError):
            one.numbers = np.array(body.replace(b"\n", b",").split(b","), np.float64)
        return
    one.message = body.decode(errors="replace")
    with contextlib.suppress(ValueError):
        said = json.loads(body)
        one.message, one.original = said.get("Message", ""), said.get("OriginalStatusCode")


# -- judging -----------------------------------------------------------------------------------------------------------


class Oracle:
    """One release of XGBoost in a process, started again when it has died."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._process: subprocess.Popen[str] | None = None
        self._lines: Queue[str] = Queue()

    def ask(self, path: Path, rows: Path) -> dict[str, Any]:
        """{"scores": [...]}, {"error": "..."}, or {"died": "..."}"""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"path": str(path), "rows": str(rows)}) + "\n")
            self._process.stdin.flush()
            while line := self._lines.get(timeout=ORACLE_S):
                if line.startswith(ANSWER):  # some releases print what they think of a file
                    answer: dict[str, Any] = json.loads(line.removeprefix(ANSWER))
                    return answer
            why = f"it ended with {self._process.wait()}"
        except Empty:
            why = "it never answered"
        except OSError as error:
            why = str(error)
        self.close()
        return {"died": why}

    def _start(self) -> None:
        lines: Queue[str] = Queue()
        self._lines = lines
        self._process = process = subprocess.Popen(
            [self._python, str(ORACLE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

        def read() -> None:
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    lines.put(line)
            lines.put("")

        threading.Thread(target=read, daemon=True).start()

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            self._process = None


def is_close(numbers: np.ndarray | None, wanted: np.ndarray) -> bool:
    if numbers is None or numbers.shape != wanted.shape:
        return False
    with np.errstate(all="ignore"):
        finite = np.abs(wanted[np.isfinite(wanted)])
        scale = float(finite.max()) if len(finite) else 1.0
        return bool(np.allclose(numbers, wanted, rtol=1e-5, atol=1e-5 * scale, equal_nan=True))


class Judge:
    """Says of each damaged archive what its answer was worth."""

    def __init__(self, oracles: Path | None, folder: Path, rows: dict[bool, np.ndarray]) -> None:
        self._folder, self._oracles = folder, oracles
        self._asked: dict[str, Oracle] = {}
        self._sane: dict[str, bool] = {}
        self._rows = {}
        for is_coded, values in rows.items():
            self._rows[is_coded] = folder / f"rows-{is_coded}.npy"
            np.save(self._rows[is_coded], values)

    def verdict(self, one: Damaged) -> str:
        if one.status == 0:
            return "NO ANSWER"
        if one.status != 200:
            if any(words in one.message for words in CONTAINED):
                return "clear error, which only the examiner's walls stopped"
            is_clear = one.status == 424 and one.original in CLEAR and len(one.message) > 10
            return "clear error" if is_clear else "UNCLEAR ERROR"
        if is_close(one.numbers, one.source.expected):
            return "numbers of the undamaged booster"
        oracle = self._oracle(one.source)
        if oracle is None:
            return "other numbers, nobody to ask"
        said = self._ask(oracle, one.source, read_artifact(one.blob, one.target, Limits())[0].data)
        if "scores" in said:
            wanted = np.array(said["scores"], np.float64)
            return "numbers as XGBoost says" if is_close(one.numbers, wanted) else "NUMBERS UNLIKE XGBOOST'S"
        return "numbers where XGBoost refuses the file" if "error" in said else "numbers where XGBoost dies of the file"

    def _oracle(self, source: Source) -> Oracle | None:
        """Who can be asked: the release that wrote it, or this one if it answers the undamaged file as expected."""
        python = self._oracles / f"v{source.release}" / "bin" / "python" if self._oracles else None
        chosen = str(python) if python is not None and python.exists() else sys.executable
        oracle = self._asked.setdefault(chosen, Oracle(chosen))
        if source.file not in self._sane:
            said = self._ask(oracle, source, source.data)
            self._sane[source.file] = "scores" in said and is_close(np.array(said["scores"]), source.expected)
        return oracle if self._sane[source.file] else None

    def _ask(self, oracle: Oracle, source: Source, data: bytes) -> dict[str, Any]:
        path = self._folder / f"booster{Path(source.file).suffix}"
        path.write_bytes(data)
        return oracle.ask(path, self._rows[source.is_coded])

    def close(self) -> None:
        for oracle in self._asked.values():
            oracle.close()


# -- the whole ---------------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Damaged archives through a running endpoint.")
    parser.add_argument("--archives", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--callers", type=int, default=3, help="threads that call damaged archives")
    parser.add_argument(
        "--oracles", type=Path, metavar="DIR", help="DIR/v1.7.6/bin/python and so on, each with that XGBoost"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep archives with a bad verdict here")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="md-", dir="/tmp"))
    try:
        return prove(arguments, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def prove(arguments: argparse.Namespace, work: Path) -> int:
    sources, rows = read_archive()
    models, scratch, oracle_folder = work / "models", work / "s", work / "oracle"
    for folder in (models / "good", models / "bad", scratch, oracle_folder):
        folder.mkdir(parents=True)
    row = boosters.rows(1, 6)
    for number in range(N_HEALTHY):
        (models / "good" / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    bodies = {is_coded: csv(values) for is_coded, values in rows.items()}
    chance = random.Random(arguments.seed)
    bad = (damage(chance.choice(sources), number, chance) for number in range(arguments.archives))
    flags = ("--workers", "16", "--loaders", "2", "--memory", "512MiB", "--wait", "55")
    with Endpoint(models, scratch, *flags) as endpoint:
        runtime = endpoint.runtime
        caller = Caller(endpoint.port)
        first = [caller.call(f"good/{number}.tar.gz", csv(row)) for number in range(N_HEALTHY)]
        caller.close()
        for number, (status, body) in enumerate(first):
            wanted = boosters.expected(boosters.segment(number), row)[0, 0]
            assert status == 200, (number, status, body)
            assert np.float32(body.decode()) == wanted, (number, body)
        answers = [body for _, body in first]
        alone, beside_sound, beside_bad = (Healthy(endpoint.port, csv(row), answers) for _ in range(3))
        with alone:
            time.sleep(ALONE_S)
        done: list[Damaged] = []
        checked: list[Damaged] = []
        took_s = 0.0
        while some := list(itertools.islice(bad, ROUND)):
            with beside_sound:
                sound = [sound_archive(chance.choice(sources), len(checked) + number) for number in range(len(some))]
                checked += call_all(endpoint.port, models, iter(sound), bodies, arguments.callers)
            start = time.perf_counter()
            with beside_bad:
                done += call_all(endpoint.port, models, iter(some), bodies, arguments.callers)
            took_s += time.perf_counter() - start
        is_same = endpoint.runtime == runtime
    judge = Judge(arguments.oracles, oracle_folder, rows)
    wrong = [one for one in checked if not is_close(one.numbers, one.source.expected)]
    assert not wrong, wrong[:3]
    verdicts = [(one, judge.verdict(one)) for one in done]
    judge.close()
    return tell(verdicts, alone, beside_sound, beside_bad, took_s=took_s, is_same=is_same, keep=arguments.keep)


def tell(
    verdicts: list[tuple[Damaged, str]], alone: Healthy, beside_sound: Healthy, beside_bad: Healthy,
    *, took_s: float, is_same: bool, keep: Path | None,
) -> int:  # fmt: skip
    slowest = max((one for one, _ in verdicts), key=lambda one: one.took_s)
    print(f"{len(verdicts)} damaged archives in {took_s:.0f} s, slowest {slowest.took_s:.2f} s ({slowest.how})")
    for verdict, count in Counter(verdict for _, verdict in verdicts).most_common():
        print(f"  {count:6}  {verdict}")
    by_format = Counter((Path(one.source.file).suffix, one.status == 200) for one, _ in verdicts)
    for suffix in sorted({suffix for suffix, _ in by_format}):
        print(f"  {suffix:12} {by_format[suffix, False]:6} refused  {by_format[suffix, True]:6} answered")
    print(f"\n{'healthy segments called':32} {'calls':>7} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for name, phase in (("alone", alone), ("beside sound archives", beside_sound), ("beside damaged", beside_bad)):
        p50, p99, longest = phase.figures()
        print(f"  {name:30} {len(phase.took_ms):7} {len(phase.failures):7} {p50:8.2f} {p99:8.2f} {longest:8.1f}")
    print(f"the runtime's pid {'stayed' if is_same else 'CHANGED'}")
    bad = [(one, verdict) for one, verdict in verdicts if verdict.split()[0].isupper() or "walls" in verdict]
    odd = [(one, verdict) for one, verdict in verdicts if "where XGBoost" in verdict]
    for one, verdict in (bad + odd)[:40]:
        print(f"  {verdict}: {one.target} {one.source.file} {one.how} {one.status} {one.message[:160]}")
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{Path(one.target).name}-{Path(one.source.file).name}").write_bytes(one.blob)
    for failure in beside_bad.failures[:10]:
        print(f"  {failure}")
    (sound_p50, sound_p99, _), (bad_p50, bad_p99, _) = beside_sound.figures(), beside_bad.figures()
    is_steady = bad_p50 <= 2 * sound_p50 and bad_p99 <= 2 * sound_p99
    if not is_steady:
        print("healthy calls SLOWED past twice their time beside sound archives")
    is_proved = (
        is_same and is_steady and not beside_bad.failures and not [one for one, v in bad if v.split()[0].isupper()]
    )
    print("proved" if is_proved else "NOT PROVED")
    return 0 if is_proved else 1


if __name__ == "__main__":
    sys.exit(main())
