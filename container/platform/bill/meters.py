"""Endpoints' instances as the ledger has them.

Rule: an instance is paid for from its start, healthy or not.
"""

from __future__ import annotations

from container.platform.bill.ledger import Ledger, Meter
from container.platform.endpoints.variants import InstanceNews


class InstanceMeters:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._running: dict[str, Meter] = {}

    def hear(self, news: InstanceNews) -> None:
        instance = news.instance
        if news.is_start:
            what = f"{news.endpoint}/{news.variant}"
            self._running[instance.id] = self._ledger.start("endpoint", what, instance.type, instance.id)
        elif instance.id in self._running:
            self._ledger.stop(self._running.pop(instance.id))
