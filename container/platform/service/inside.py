"""Calls that the platform makes of itself, as a client would: read, checked, answered, and refused like anybody's.

Rule: the throttling trap is for clients alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from container.platform.service.call import Request, Response
from container.platform.service.descriptions import service_model
from container.platform.service.faults import ServiceFault


class Inside:
    """answer   the address, as a client meets it"""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer

    def send(self, service: str, action: str, body: bytes) -> Response:
        """An answer as it goes over the wire."""
        headers = {
            "x-amz-target": f"{service_model(service).metadata['targetPrefix']}.{action}",
            "content-type": "application/x-amz-json-1.1",
            "amz-sdk-request": "attempt=2",
        }
        return self._answer(Request("POST", "/", headers, body))

    def ask(self, service: str, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The answer, in which times are seconds since 1970. Raises ServiceFault."""
        response = self.send(service, action, json.dumps(parameters, default=_written).encode())
        answer: dict[str, Any] = json.loads(response.body)
        if response.status != 200:
            raise ServiceFault(answer.get("message", ""), answer.get("__type"), response.status)
        return answer


def _written(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.timestamp()
    raise TypeError(f"{type(value).__name__} is not sent")
