"""InvokeEndpointWithResponseStream's answer: the container's, part by part as it comes, and its figures.

Rule: what goes wrong before the first byte is an error of the call; after it, an event that ends the stream.

Sources: ResponseStream in botocore's model (both codes); SageMaker guide, monitoring-cloudwatch (its metrics);
the words of a timeout: repost.aws, "Invoke streaming timeout error".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from container.platform.hosting.contract import ContainerGone, ContainerSlow, Parts
from container.platform.service.eventstream import failure, payload_part

# A figure's name, its value and its unit.
Put = Callable[[str, float, str], None]
MICROSECONDS = "Microseconds"


class Passing:
    """Events, to be iterated once. began_s: of monotonic time, when the call came, which the container had at once."""

    def __init__(self, parts: Parts, put: Put, began_s: float) -> None:
        self._parts = parts
        self._put = put
        self._began_s = began_s
        self._is_first = True

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._parts:
                self._first()
                yield payload_part(part)
        except ContainerSlow:
            said = "Your model primary did not complete sending the inference response in the allotted time."
            yield self._broken("ModelInvocationTimeExceeded", said)
        except ContainerGone as error:
            yield self._broken("StreamBroken", f"The connection was closed by the container: {error}")

    def close(self) -> None:
        self._parts.close()

    def _first(self) -> None:
        if not self._is_first:
            return
        self._is_first = False
        first_us = (time.monotonic() - self._began_s) * 1e6
        for name, value in (("Latency", first_us), ("ModelLatency", first_us), ("OverheadLatency", 0.0)):
            self._put(f"FirstChunk{name}", value, MICROSECONDS)

    def _broken(self, code: str, message: str) -> bytes:
        self._put("MidStreamErrors", 1, "None")
        return failure("ModelStreamError", {"Message": message, "ErrorCode": code})
