"""The output of a container or a job's host as CloudWatch Logs shows it: a stream for each, an event for each line.

Rule: nobody waits for his log, and nobody fails by it.

Source: SageMaker guide, logging-cloudwatch: /aws/sagemaker/Endpoints/NAME with VARIANT/INSTANCE, /aws/sagemaker/TrainingJobs
with NAME/HOST-EPOCH.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

log = logging.getLogger("mme.platform")

READ_BYTES = 1 << 16
MAX_EVENT_BYTES = 256_000  # of CloudWatch Logs: 262,144 with 26 of its own
MAX_EVENTS = 10_000


class Stream:
    """One container's or host's. client: boto3's for logs."""

    def __init__(self, client: Any, group: str, name: str) -> None:
        self._client = client
        self._group = group
        self._name = name
        self._is_made = False

    def follow(self, descriptor: int, copy: Callable[[bytes], object] = lambda _: None) -> None:
        """Everything that comes out of a pipe until it ends. What came together is put together.

        copy   gets it too, as it comes
        """
        rest = b""
        while chunk := os.read(descriptor, READ_BYTES):
            copy(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_EVENT_BYTES:
                lines, rest = [*lines, rest], b""
            self.put(lines)
        self.put([rest])

    def put(self, lines: list[bytes]) -> None:
        """Empty lines are no events."""
        texts = [line[:MAX_EVENT_BYTES].decode(errors="replace").rstrip("\r") for line in lines]
        # The real hour: CloudWatch Logs refuses events of tomorrow, where a platform that is made faster may be already.
        at_ms = int(time.time() * 1000)
        events = [{"timestamp": at_ms, "message": text} for text in texts if text]
        for start in range(0, len(events), MAX_EVENTS):
            self._put(events[start : start + MAX_EVENTS])

    def _put(self, events: list[dict[str, Any]]) -> None:
        try:
            self._make()
            self._client.put_log_events(logGroupName=self._group, logStreamName=self._name, logEvents=events)
        except (ClientError, BotoCoreError) as error:
            log.warning("%s %s: %d lines are lost: %s", self._group, self._name, len(events), error)

    def _make(self) -> None:
        if self._is_made:
            return
        for make, names in (
            (self._client.create_log_group, {"logGroupName": self._group}),
            (self._client.create_log_stream, {"logGroupName": self._group, "logStreamName": self._name}),
        ):
            try:
                make(**names)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                    raise
        self._is_made = True


class Nowhere(Stream):
    """For output that nobody may write down."""

    def __init__(self) -> None:
        super().__init__(None, "", "")

    def put(self, lines: list[bytes]) -> None:
        """They are gone."""
