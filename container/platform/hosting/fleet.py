"""Several instances behind one endpoint: a call goes where its model is, else where the least is going on."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from container.platform.hosting.contract import Reply
from container.platform.hosting.figures import Figures
from container.platform.hosting.instance import Instance


class Fleet:
    """One endpoint. Owns the instances' executor."""

    def __init__(self, instances: Sequence[Instance], figures: Figures, executor: Executor) -> None:
        self._instances = list(instances)
        self._executor = executor
        self._lock = threading.Lock()
        self.figures = figures
        figures.loaded = lambda: [instance.n_loaded for instance in self._instances]

    def invoke(self, target: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The container's answer, whatever its status. Raises ServiceError."""
        with self._lock:
            instance = self._choose(target)
            instance.n_outstanding += 1
        try:
            return instance.invoke(target, body, headers)
        finally:
            with self._lock:
                instance.n_outstanding -= 1

    def _choose(self, target: str) -> Instance:
        there = [instance for instance in self._instances if instance.has(target)]
        return min(there or self._instances, key=lambda one: (one.n_outstanding, one.n_loaded))

    @property
    def is_healthy(self) -> bool:
        return all(instance.container.is_healthy() for instance in self._instances)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        for instance in self._instances:
            instance.container.close()
