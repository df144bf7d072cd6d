"""What the runtime asks MMS for: a model's url."""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote

from container.link.loopback import asked_at

PATIENCE_S = 10.0


class Management:
    """MMS's management API at host:port. Raises OSError or http.client.HTTPException when MMS does not answer."""

    def __init__(self, host: str, port: int) -> None:
        self._host = asked_at(host)
        self._port = port

    def url_of(self, model_name: str) -> str | None:
        """What the model was registered with; None when MMS does not know it."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE_S)
        try:
            connection.request("GET", f"/models/{quote(model_name, safe='')}")
            response = connection.getresponse()
            body = response.read()
            return str(json.loads(body)["modelUrl"]) if response.status == http.client.OK else None
        finally:
            connection.close()
