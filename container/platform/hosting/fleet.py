"""Several instances behind one variant: a call goes where its model is, else where the least is going on.

Source: SageMaker guide, "Multi-model endpoints": requests go to the instance where the model is loaded; if it gets many and
there are other instances, some go to another, which loads it too. How many are many is not said: `busy_at` is ours.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from container.platform.hosting.contract import Reply
from container.platform.hosting.figures import Figures
from container.platform.hosting.instance import Instance

BUSY_AT = 8


class Fleet:
    """One endpoint. Owns the instances' executor.

    busy_at   calls under way on the instances that have a model, from which on another one gets it too
    """

    def __init__(
        self, instances: Sequence[Instance], figures: Figures, executor: Executor, *, busy_at: int = BUSY_AT
    ) -> None:
        self._instances = list(instances)
        self._executor = executor
        self._lock = threading.Lock()
        self._busy_at = busy_at
        self.figures = figures
        figures.loaded = lambda: [instance.n_loaded for instance in self._instances]

    def invoke(self, target: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The container's answer, whatever its status. Raises ServiceError."""
        with self._lock:
            instance = choose(self._instances, target, self._busy_at)
            instance.n_outstanding += 1
        try:
            return instance.invoke(target, body, headers)
        finally:
            with self._lock:
                instance.n_outstanding -= 1

    @property
    def is_healthy(self) -> bool:
        return all(instance.container.is_healthy() for instance in self._instances)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        for instance in self._instances:
            instance.container.close()


def choose(instances: Sequence[Instance], target: str, busy_at: int = BUSY_AT) -> Instance:
    """The instance for a call. There is at least one."""

    def load(one: Instance) -> tuple[int, int]:
        return one.n_outstanding, one.n_loaded

    there = [instance for instance in instances if instance.has(target)]
    if there and (min(there, key=load).n_outstanding < busy_at or len(there) == len(instances)):
        return min(there, key=load)
    elsewhere = min((one for one in instances if one not in there), key=load)
    # As busy as those that have it, it would only load it for nothing.
    return elsewhere if not there or elsewhere.n_outstanding < busy_at else min(there, key=load)
