"""The two things the runtime asks MMS for: a model's url, and to forget a model."""

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
        status, body = self._call("GET", model_name)
        return str(json.loads(body)["modelUrl"]) if status == http.client.OK else None

    def unregister(self, model_name: str) -> bool:
        """Have MMS forget the model. False when it did not know it."""
        return self._call("DELETE", model_name)[0] == http.client.OK

    def _call(self, method: str, model_name: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE_S)
        try:
            connection.request(method, f"/models/{quote(model_name, safe='')}")
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
