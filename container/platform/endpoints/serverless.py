"""A serverless variant: compute that comes when it is called and goes when nobody calls.

Rule: one unit of compute answers one call at a time, so there are at most MaxConcurrency of them; a caller waits for one
that has to start, and a call more is throttled.

Source: SageMaker guide, "Serverless Inference". After how long an idle one goes is not said there: ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from container.platform.endpoints.containers import StartFailed
from container.platform.hosting.contract import Reply
from container.platform.hosting.errors import ServiceUnavailable
from container.platform.hosting.instance import SingleModel
from container.platform.service.faults import ThrottlingException

if TYPE_CHECKING:
    from container.platform.endpoints.variants import Played, Variant

IDLE_S = 300.0  # of platform time


class Serverless:
    """The calls of one variant."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._lock = threading.Lock()
        self._n_starting = 0
        self._idle_since: dict[str, float] = {}

    @property
    def max_concurrency(self) -> int:
        most: int = self._variant.config["ServerlessConfig"]["MaxConcurrency"]
        return most

    def invoke(self, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False) -> Reply:
        """The container's answer, whatever its status. Raises ServiceError, ThrottlingException."""
        unit = self._taken() or self._started()
        serving = unit.serving
        assert isinstance(serving, SingleModel)  # a serverless endpoint has no multi-model containers

        def give_back() -> None:
            with self._lock:
                serving.n_outstanding -= 1
                self._idle_since[unit.id] = self._now

        try:
            reply = serving.invoke(body, headers, is_stream=is_stream)
        except BaseException:
            give_back()
            raise
        return reply.then(give_back)

    def release_idle(self) -> None:
        """Called once a minute: those that nobody has called for long go."""
        with self._lock:
            gone = []
            for unit in list(self._variant.instances):
                since = self._idle_since.setdefault(unit.id, self._now)
                if unit.serving is not None and not unit.serving.n_outstanding and self._now - since >= IDLE_S:
                    unit.serving.n_outstanding += 1  # nobody takes it any more
                    gone.append(unit)
                    del self._idle_since[unit.id]
        for unit in gone:
            self._variant.around.executor.submit(self._variant.stop_one, unit, 0.0)

    @property
    def _now(self) -> float:
        return self._variant.around.ground.clock.monotonic()

    def _taken(self) -> Played | None:
        """One that is free; None when one more may start. Raises ThrottlingException."""
        with self._lock:
            for unit in self._variant.instances:
                if unit.serving is not None and unit.is_ready and not unit.serving.n_outstanding:
                    unit.serving.n_outstanding += 1
                    return unit
            if len(self._variant.instances) + self._n_starting >= self.max_concurrency:
                raise ThrottlingException
            self._n_starting += 1
            return None

    def _started(self) -> Played:
        """A cold start, which the caller waits for. Raises ServiceUnavailable, ThrottlingException."""
        began_s = time.monotonic()
        try:
            unit = self._variant.start_one()
        except StartFailed as error:
            raise ServiceUnavailable(str(error)) from error
        finally:
            with self._lock:
                self._n_starting -= 1
        self._variant.around.metrics.put(
            "AWS/SageMaker",
            "ModelSetupTime",
            self._variant.dimensions,
            (time.monotonic() - began_s) * 1e6,
            "Microseconds",
        )
        assert unit.serving is not None
        with self._lock:
            if not unit.serving.n_outstanding:
                unit.serving.n_outstanding += 1
                return unit
        return self._taken() or self._started()  # another call came upon it first
