"""What serverless variants would have cost: the memory they have times the time that calls took, cold starts left out.

Rule: it is read off the figures that the variants write; what an endpoint had cost is kept when it goes.
Source: SageMaker's price page, Serverless Inference: billed by the millisecond of processing. That starts are not: inferred.
"""

from __future__ import annotations

from container.platform.bill.ledger import Line
from container.platform.bill.prices import PriceUnknown, serverless_usd_per_gb_s
from container.platform.clock import Clock
from container.platform.endpoints.endpoints import Endpoints
from container.platform.endpoints.sides import Endpoint
from container.platform.endpoints.variants import Variant
from container.platform.metrics import MetricName, Metrics


class ServerlessMeters:
    def __init__(self, clock: Clock, endpoints: Endpoints, metrics: Metrics, region: str) -> None:
        self._clock = clock
        self._endpoints = endpoints
        self._metrics = metrics
        self._region = region
        self._gone: list[Line] = []

    def lines(self) -> list[Line]:
        return [*self._gone, *(line for endpoint in self._endpoints.all() for line in self._of(endpoint))]

    def forget(self, endpoint: Endpoint) -> None:
        """It has been deleted; what it had cost has not."""
        self._gone += self._of(endpoint)

    def _of(self, endpoint: Endpoint) -> list[Line]:
        return [
            self._line(endpoint, variant)
            for variant in endpoint.blue.variants.values()
            if variant.serverless is not None
        ]

    def _line(self, endpoint: Endpoint, variant: Variant) -> Line:
        gib = variant.config["ServerlessConfig"]["MemorySizeInMB"] / 1024
        seconds = (self._sum(endpoint, variant, "ModelLatency") - self._sum(endpoint, variant, "ModelSetupTime")) / 1e6
        try:
            usd = max(0.0, seconds) * gib * serverless_usd_per_gb_s(self._region)
        except PriceUnknown:
            usd = None
        return Line(
            "endpoint",
            f"{endpoint.name}/{variant.name}",
            f"serverless, {gib:g} GB",
            seconds,
            usd,
            len(variant.instances),
        )

    def _sum(self, endpoint: Endpoint, variant: Variant, name: str) -> float:
        """Microseconds, since the endpoint was made: one of its name may have been there before."""
        metric = MetricName.of("AWS/SageMaker", name, variant.dimensions)
        began_s, now_s = int(endpoint.created_at.timestamp()), int(self._clock.now().timestamp())
        return self._metrics.value(metric, began_s, now_s + 1, "Sum") or 0.0
