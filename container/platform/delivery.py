"""Events as EventBridge hands them on: to the rules that customers made at moto's, and so to their queues and log groups.

Rule: they are handed on in the order they were sent, on one thread; nobody who sends waits for it.

moto's own PutEvents hands events on without the account, so its rules are asked here.
Source: SageMaker guide, automating-sagemaker-with-eventbridge.
"""

from __future__ import annotations

import copy
import logging
import queue
import threading
import time
import uuid
from typing import Any

from container.platform.bus import SOURCE, Event
from container.platform.service.moto import Moto

log = logging.getLogger(__name__)

BUS = "default"


class Delivery:
    """To the rules of one account."""

    def __init__(self, moto: Moto, account: str, region: str) -> None:
        self._moto = moto
        self._account = account
        self._region = region
        self._waiting: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def deliver(self, event: Event) -> None:
        self._waiting.put(event)

    def close(self) -> None:
        """What was sent is handed on before."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            if not self._moto.is_awake:  # then there is no rule yet
                continue
            try:
                self._hand_on(event)
            except Exception:
                log.exception("an event is lost: %s", event.detail_type)

    def _hand_on(self, event: Event) -> None:
        from moto.events.models import events_backends

        id = str(uuid.uuid4())
        rules = events_backends[self._account][self._region].describe_event_bus(BUS).rules
        for rule in list(rules.values()):
            if rule.state != "ENABLED":
                continue
            for target in list(rule.targets):
                one = copy.copy(rule)
                one.targets = [target]
                is_transformed = "InputTransformer" in target
                one.send_to_targets(
                    self._written(event, id) | ({"ingestion-time": time.time()} if is_transformed else {}),
                    transform_input=is_transformed,
                )

    def _written(self, event: Event, id: str) -> dict[str, Any]:
        return {
            "version": "0",
            "id": id,
            "detail-type": event.detail_type,
            "source": SOURCE,
            "account": self._account,
            "time": event.at.timestamp(),  # moto writes it as ISO 8601 where it hands it on
            "region": self._region,
            "resources": list(event.resources),
            "detail": dict(event.detail),
        }
