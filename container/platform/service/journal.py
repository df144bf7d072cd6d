"""What moto was told, written down so that it can be told again: moto itself keeps nothing.

Rule: only what changes something and went well is written, a line at a time; figures, logs and events, which come by the
thousand, are not. What cannot be told again, an upload in parts, is said when it fails.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs

from container.platform.service.call import Request, Response

log = logging.getLogger("mme.platform")

NAME = "moto.jsonl"
READS = ("Describe", "List", "Get", "Head", "Query", "Scan", "Lookup", "Test", "BatchGet", "BatchDescribe", "Receive")
COUNTLESS = ("PutMetricData", "PutLogEvents", "PutEvents", "SendMessage", "DeleteMessage", "ChangeMessageVisibility")


class Journal:
    """One file. Any thread may write."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._lock = threading.Lock()

    def write(self, request: Request, response: Response) -> None:
        if response.status >= 400 or not changes(request):
            return
        kept = {
            "method": request.method,
            "path": request.path,
            "headers": dict(request.headers),
            "body": base64.b64encode(request.body).decode(),
        }
        with self._lock, self._path.open("a") as file:
            file.write(json.dumps(kept) + "\n")

    def tell_again(self, tell: Callable[[Request], Response]) -> None:
        """Everything, in its order. A last line that was cut off is taken out, so that the next one begins anew."""
        if not self._path.exists():
            return
        n_bytes = 0
        with self._path.open("r+b") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    lines.truncate(n_bytes)
                    break
                n_bytes += len(line)
                kept = json.loads(line)
                request = Request(kept["method"], kept["path"], kept["headers"], base64.b64decode(kept["body"]))
                response = tell(request)
                if response.status >= 400:
                    log.warning(
                        "%s %s of the last run is now answered %d", request.method, request.path, response.status
                    )


def changes(request: Request) -> bool:
    """Whether a request changes what moto knows."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return False
    operation = _operation(request)
    return not operation.startswith((*READS, *COUNTLESS))


def _operation(request: Request) -> str:
    """Its name, by whichever protocol it came; empty for S3, whose method says it."""
    target = request.headers.get("x-amz-target")
    if target:
        return target.rpartition(".")[2]
    if "/operation/" in request.path:  # smithy's protocols
        return request.path.rpartition("/")[2]
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return parse_qs(request.body.decode(errors="replace")).get("Action", [""])[0]
    return ""
