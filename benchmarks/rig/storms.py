"""What the benchmarks of storms share: boosters told apart by their answers, and callers on kept connections."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost

from tests.rig import boosters

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"


@dataclass(frozen=True)
class Made:
    """Boosters whose answers to ROW all differ: `archives[n]` answers `answers[n]`."""

    archives: list[bytes]
    answers: list[float]

    def number(self, body: bytes) -> int | None:
        """Which booster answered so; None if none does."""
        distance = np.abs(np.asarray(self.answers) - float(body))
        nearest = int(distance.argmin())
        return nearest if distance[nearest] <= 1e-5 * max(1.0, abs(self.answers[nearest])) else None


def make(n_boosters: int, n_rounds: int) -> Made:
    return make_many([n_rounds] * n_boosters)


def make_many(rounds: Iterable[int]) -> Made:
    """A booster of each of these numbers of rounds."""
    x = np.asarray([[float(cell) for cell in ROW.split(",")]], dtype=np.float32)
    trained = [boosters.train(n_rounds=n_rounds, seed=seed, max_depth=5) for seed, n_rounds in enumerate(rounds)]
    return Made(
        [boosters.archive({"xgboost-model": boosters.document(one)}) for one in trained],
        [float(one.predict(xgboost.DMatrix(x))[0]) for one in trained],
    )


@dataclass(frozen=True)
class Said:
    """One call: status 0 when the connection broke off."""

    target: str
    status: int
    body: bytes
    is_hit: bool
    began: float
    ended: float


class Caller:
    """One kept connection to the endpoint."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def call(self, target: str) -> Said:
        began = time.monotonic()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            headers = {"Content-Type": "text/csv", "X-Amzn-SageMaker-Target-Model": target}
            self._connection.request("POST", "/invocations", ROW, headers)
            reply = self._connection.getresponse()
            told = reply.getheader("x-amzn-sagemaker-custom-attributes") or ""
            return Said(target, reply.status, reply.read(), "cache=hit" in told, began, time.monotonic())
        except (OSError, http.client.HTTPException):
            self.close()
            return Said(target, 0, b"", False, began, time.monotonic())

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Crowd:
    """Callers on threads, as a context manager; `said` is everything they heard, in the order of the answers."""

    def __init__(
        self, port: int, n_callers: int, choose: Callable[[int], Callable[[], str]], *, pause_s: float = 0.0
    ) -> None:
        """choose: given a caller's number, what it calls next. pause_s: after "not ready", before that."""
        self._pause_s = pause_s
        self.said: list[Said] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[port, choose(number)]) for number in range(n_callers)]

    def _run(self, port: int, choose: Callable[[], str]) -> None:
        caller = Caller(port)
        while not self._stop.is_set():
            said = caller.call(choose())
            self.said.append(said)
            if said.status == 429:
                self._stop.wait(self._pause_s)
        caller.close()

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
