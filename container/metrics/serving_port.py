"""Whether the port that callers use answers: Java may have lost a thread while all that is ours goes on well.

Rule: who asks often is told what was seen a moment ago, and nobody waits longer than TIMEOUT_S.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable

from container.link.loopback import asked_at

TIMEOUT_S = 2.0  # SageMaker's own for /ping
FRESH_S = 1.0
# What MMS says when no worker answers. "Partial Healthy" is no reason to replace a container.
_MMS_IS_SICK = "Unhealthy"


class ServingPort:
    """Asks the port at most once in FRESH_S, whoever wants to know; safe to use from many threads.

    ask   what is wrong, in words; empty when the port answers
    """

    def __init__(self, ask: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()  # held while one asks; the others wait for what he hears
        self._trouble = ""
        self._asked_at: float | None = None
        self.has_answered = False  # once: until then it is still being opened

    def trouble(self) -> str:
        with self._lock:
            if self._asked_at is None or self._clock() - self._asked_at >= FRESH_S:
                self._trouble = self._ask()
                self._asked_at = self._clock()
                self.has_answered = self.has_answered or not self._trouble
            return self._trouble


def silence_at(host: str, port: int) -> str:
    """Why there is no answer, in words; empty when there is one, whatever it says."""
    _, _, silence = _asked(host, port, "/ping")
    return silence


def trouble_at(host: str, port: int, path: str) -> str:
    """What is wrong, in words; empty when there is an answer and it says that all is well."""
    status, body, silence = _asked(host, port, path)
    if silence:
        return silence
    text = body.decode(errors="replace").strip()
    if status != http.HTTPStatus.OK:
        return f"{path} says {status}: {text}"
    return f"{path} says {text}" if _mms_status(body) == _MMS_IS_SICK else ""


def _asked(host: str, port: int, path: str) -> tuple[int, bytes, str]:
    """Status, the beginning of the body, and why there are none."""
    host = asked_at(host)
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(64 * 1024), ""
    except (OSError, http.client.HTTPException) as error:
        return 0, b"", f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()


def _mms_status(body: bytes) -> str | None:
    """What MMS's own /ping says; None when it is not MMS that answered."""
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
