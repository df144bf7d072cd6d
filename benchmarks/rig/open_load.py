"""Open load: a call begins when it is due, whether or not earlier ones have been answered.

Rule: a call's time runs from when it was due. A server that stalls is thus charged with every call that it kept waiting;
callers that wait for an answer before they ask again would leave just those out ("coordinated omission").

Rule: a server is not charged with what the caller does. The caller's threads get a core at once, as on a machine of their
own (strangers.py). Python's collector stops everything for 45 ms when it has 50,000 calls to look through, so it does not
run until the last is answered.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from benchmarks.rig.strangers import come_first

T = TypeVar("T")

CONNECTIONS = 64
NO_ANSWER = 0  # the status of a call whose connection broke off


@dataclass(frozen=True, slots=True)
class Call:
    """One call: seconds are of time.monotonic(). `told` is what x-amzn-sagemaker-custom-attributes says."""

    target: str
    status: int
    body: bytes
    told: str
    due: float
    ended: float

    @property
    def ms(self) -> float:
        return (self.ended - self.due) * 1000

    @property
    def is_hit(self) -> bool:
        return "cache=hit" in self.told


def percentile_ms(calls: Sequence[Call], share: float) -> float:
    return float(np.percentile([call.ms for call in calls], share)) if calls else float("nan")


@contextmanager
def _nothing_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Client:
    """Callers of one endpoint: an event loop on a thread of its own, as a context manager."""

    def __init__(self, port: int, body: bytes, n_connections: int = CONNECTIONS) -> None:
        self.port = port
        self._body = body
        self._n_connections = n_connections
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="open-load", daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def _run_loop(self) -> None:
        come_first()
        self._loop.run_forever()

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def capacity_per_s(self, choose: Callable[[], str], *, n_callers: int = 8, seconds: float = 3.0) -> float:
        """Calls a second when each of a few callers asks again as soon as it is answered."""
        return self._run(self._closed(choose, n_callers, seconds))

    def open(self, choose: Callable[[], str], per_second: float, over: Callable[[float], bool]) -> list[Call]:
        """Calls at random moments (a Poisson process) until `over`, given the seconds since the start; their outcomes."""
        with _nothing_collected():
            return self._run(self._open(choose, per_second, over))

    def call_until_served(
        self, targets: Sequence[str], within_s: float, pause_s: float, patience_s: float
    ) -> list[list[Call]]:
        """First calls of many models, by a caller for each; tried again while it is told that the model is not ready.

        within_s  all callers have begun after so long; their connections are there before
        pause_s   before the first of these; then twice as long each time, up to 16 times, give or take, as SDKs do
        returns   for each target all its calls, the last one the first that was not answered with 429
        """
        return self._run(self._until_served(targets, within_s, pause_s, patience_s))

    def start(self, work: Callable[[], Any]) -> threading.Thread:
        """Any of the above on a thread of its own, beside another."""
        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _closed(self, choose: Callable[[], str], n_callers: int, seconds: float) -> float:
        until = time.monotonic() + seconds
        n_done = 0

        async def ask() -> None:
            nonlocal n_done
            connection = await self._connect()
            while time.monotonic() < until:
                call = await self._call(connection, choose(), time.monotonic())
                n_done += call.status == 200
            connection.close()

        await asyncio.gather(*(ask() for _ in range(n_callers)))
        return n_done / seconds

    async def _open(self, choose: Callable[[], str], per_second: float, over: Callable[[float], bool]) -> list[Call]:
        free = deque([await self._connect() for _ in range(self._n_connections)])
        waiting: deque[tuple[str, float]] = deque()
        calls: list[Call] = []
        tasks: set[asyncio.Task[None]] = set()

        async def serve(connection: _Connection, target: str, due: float) -> None:
            while True:
                calls.append(await self._call(connection, target, due))
                if connection.is_over:
                    connection = await self._connect()
                if not waiting:
                    free.append(connection)
                    return
                target, due = waiting.popleft()

        def begin(due: float) -> None:
            target = choose()
            if not free:
                waiting.append((target, due))
                return
            task = self._loop.create_task(serve(free.popleft(), target, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        # An event loop's timers have a resolution of a millisecond, a sleeping thread's is a twentieth of that.
        metronome = threading.Thread(target=self._beat, args=[per_second, over, begin])
        metronome.start()
        await asyncio.to_thread(metronome.join)
        await asyncio.sleep(0)  # for what the metronome has only just called
        while tasks:
            await asyncio.wait(tasks)
        for connection in free:
            connection.close()
        return calls

    def _beat(self, per_second: float, over: Callable[[float], bool], begin: Callable[[float], None]) -> None:
        choice = random.Random(0)
        began = due = time.monotonic()
        while not over(due - began):
            due += choice.expovariate(per_second)
            time.sleep(max(0.0, due - time.monotonic()))
            self._loop.call_soon_threadsafe(begin, due)

    async def _until_served(
        self, targets: Sequence[str], within_s: float, pause_s: float, patience_s: float
    ) -> list[list[Call]]:
        choice = random.Random(0)
        connections = [await self._connect() for _ in targets]
        deadline = time.monotonic() + patience_s

        async def ask(target: str, connection: _Connection) -> list[Call]:
            calls: list[Call] = []
            await asyncio.sleep(choice.uniform(0, within_s))
            backoff_s = pause_s
            while True:
                calls.append(await self._call(connection, target, time.monotonic()))
                if calls[-1].status != 429 or time.monotonic() > deadline:
                    connection.close()
                    return calls
                await asyncio.sleep(backoff_s * choice.uniform(0.5, 1.5))
                backoff_s = min(2 * backoff_s, 16 * pause_s)
                if connection.is_over:
                    connection = await self._connect()

        return list(await asyncio.gather(*map(ask, targets, connections)))

    async def _connect(self) -> _Connection:
        while True:
            try:
                _, connection = await self._loop.create_connection(_Connection, "127.0.0.1", self.port)
            except OSError:  # the endpoint is being started again
                await asyncio.sleep(0.05)
            else:
                return connection

    async def _call(self, connection: _Connection, target: str, due: float) -> Call:
        status, told, body = await connection.ask(target, self._body)
        return Call(target, status, body, told, due, time.monotonic())


class _Connection(asyncio.Protocol):
    """One kept connection: one request at a time, answers with a Content-Length, as MMS gives them."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, str, bytes]] | None = None
        self._data = b""
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, target: str, body: bytes) -> tuple[int, str, bytes]:
        """Status, custom attributes and body; NO_ANSWER when the connection breaks off."""
        if self.is_over:
            return NO_ANSWER, "", b""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
            b"X-Amzn-SageMaker-Target-Model: %b\r\nContent-Length: %d\r\n\r\n%b" % (target.encode(), len(body), body)
        )
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        if len(rest) < size:
            return
        self._data = rest[size:]
        told = headers.get("x-amzn-sagemaker-custom-attributes", "")
        if headers.get("connection", "").lower() == "close":
            self.close()
        self._say(int(first.split()[1]), told, rest[:size])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  which way it broke makes no difference
        self.is_over = True
        self._say(NO_ANSWER, "", b"")

    def _say(self, status: int, told: str, body: bytes) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result((status, told, body))

    def close(self) -> None:
        self.is_over = True
        if self._transport is not None:
            self._transport.close()
