"""An endpoint with every exporter for its metrics open, and what each of them says of the same counts.

EMF on stdout, PutMetricData to a local CloudWatch, Prometheus and the status page on the admin port
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rig.cloudwatch_server import ENVIRONMENT, LocalCloudWatch
from benchmarks.rig.endpoints import Ours
from benchmarks.rig.verdicts import Verdict
from tests.rig.emf import problems, samples
from tests.rig.endpoint import free_port

ENDPOINT = "benchmark"
DIMENSIONS = {"EndpointName": ENDPOINT, "VariantName": "AllTraffic"}
SWITCHES = {**ENVIRONMENT, "MME_EMF": "1", "MME_CLOUDWATCH": "1"}

# What a client counts, and where each exporter says the same: metric, statistic, and Prometheus' name.
COUNTED = {
    "calls": ("Invocations", "Sum", "mme_invocations_total"),
    "found": ("ModelCacheHit", "SampleCount", "mme_model_cache_hit_count"),
    "hits": ("ModelCacheHit", "Sum", "mme_model_cache_hit_sum"),
    "refused": ("Invocation4XXErrors", "Sum", "mme_invocation_4xx_errors_sum"),
    "loads": ("ModelLoadingTime", "SampleCount", "mme_model_loading_time_seconds_count"),
}
Counts = Mapping[str, float]


def flags(cloudwatch: LocalCloudWatch, interval_s: float) -> tuple[str, ...]:
    """Of `mme serve`; SWITCHES are the rest, which take no value."""
    return (
        *("--admin-port", str(free_port()), "--endpoint-name", ENDPOINT),
        *("--cloudwatch-endpoint-url", cloudwatch.url, "--metrics-interval", str(interval_s)),
    )


def of_prometheus(server: Ours) -> Counts:
    return {name: server.figure(row[2]) for name, row in COUNTED.items()}


def of_cloudwatch(cloudwatch: LocalCloudWatch) -> Counts:
    return {name: cloudwatch.total(row[0], row[1], DIMENSIONS) for name, row in COUNTED.items()}


class EmfLog:
    """What an endpoint wrote to stdout.

    sound     the lines that CloudWatch would take, and their documents
    problems  what is wrong with the others, each with the beginning of its line
    """

    def __init__(self, path: Path) -> None:
        self.sound: list[tuple[bytes, dict[str, Any]]] = []
        self.problems: list[str] = []
        for line in path.read_bytes().splitlines(keepends=True):
            found = problems(line)
            self.problems += [f"{problem}: {line[:200]!r}" for problem in found]
            if not found:
                self.sound.append((line, json.loads(line)))

    def counts(self) -> Counts:
        return {name: self._total(row[0], row[1]) for name, row in COUNTED.items()}

    def _total(self, metric: str, statistic: str) -> float:
        pairs = [pair for _, document in self.sound for pair in samples(document, metric)]
        return sum(value * count if statistic == "Sum" else count for value, count in pairs)


def verdicts(counts: Mapping[str, Counts]) -> list[Verdict]:
    """`counts` by exporter, and the client's own under `client`."""
    return [
        Verdict(
            f"counts of {exporter} that differ from the client's",
            sum(told[name] != counts["client"][name] for name in COUNTED),
            "at most",
            0,
            "{:.0f}",
        )
        for exporter, told in counts.items()
        if exporter != "client"
    ]


def print_counts(counts: Mapping[str, Counts]) -> None:
    print(f"{'':12}" + "".join(f"{name:>12}" for name in COUNTED))
    for exporter, told in counts.items():
        print(f"{exporter:12}" + "".join(f"{told[name]:>12,.0f}" for name in COUNTED))
