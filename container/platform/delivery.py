"""Events as moto's EventBridge hands them on: to the rules that customers made, and so to their queues and log groups.

Rule: they are handed on in the order they were sent, on one thread; nobody who sends waits for it.

Source: SageMaker guide, automating-sagemaker-with-eventbridge: the time of an event is ISO 8601, which boto3 cannot write
into PutEvents, so the request is written here.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from datetime import UTC

from container.platform.bus import SOURCE, Event
from container.platform.service.call import Request
from container.platform.service.moto import Moto

log = logging.getLogger(__name__)


class Delivery:
    """To one platform's moto."""

    def __init__(self, moto: Moto, region: str) -> None:
        self._moto = moto
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
            try:
                self._hand_on(event)
            except Exception:
                log.exception("an event is lost: %s", event.detail_type)

    def _hand_on(self, event: Event) -> None:
        if not self._moto.is_awake:  # then there is no rule yet
            return
        entry = {
            "Source": SOURCE,
            "DetailType": event.detail_type,
            "Detail": json.dumps(event.detail),
            "Resources": list(event.resources),
            "Time": event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        scope = f"events/20260101/{self._region}/events/aws4_request"
        headers = {
            "host": f"events.{self._region}.amazonaws.com",
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": "AWSEvents.PutEvents",
            "authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        }
        answer = self._moto.pass_on(Request("POST", "/", headers, json.dumps({"Entries": [entry]}).encode()))
        if answer.status != 200 or json.loads(answer.body).get("FailedEntryCount"):
            log.error("an event is lost: %s: %s", event.detail_type, answer.body.decode(errors="replace"))
