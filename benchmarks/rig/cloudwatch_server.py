"""A local CloudWatch as a process of its own, to which minutes of heavy traffic can be reported.

    with LocalCloudWatch() as cloudwatch: ... cloudwatch.total("Invocations", "Sum", dimensions)

It is moto's. Rule: moto keeps one object for each sample, millions here, so values and counts are added up to the
statistics they amount to before moto keeps them, after moto has checked them.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import boto3

REGION = "us-east-1"
NAMESPACE = "MultiModelEndpoint"
# For the process that reports; nothing local looks at them.
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
}


class LocalCloudWatch:
    """That process. `url` is what boto3 takes as endpoint_url."""

    def __init__(self) -> None:
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.rig.cloudwatch_server"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self._client: Any = boto3.client(
            "cloudwatch",
            REGION,
            endpoint_url=self.url,
            aws_access_key_id="benchmark",
            aws_secret_access_key="benchmark",
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()

    def total(self, metric: str, statistic: str, dimensions: Mapping[str, str]) -> float:
        """`Sum` or `SampleCount` of a metric over everything reported in the last day, by GetMetricData."""
        now = datetime.now(UTC)
        asked = {
            "Metric": {
                "Namespace": NAMESPACE,
                "MetricName": metric,
                "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            },
            "Period": 3600,
            "Stat": statistic,
        }
        found = self._client.get_metric_data(
            MetricDataQueries=[{"Id": "total", "MetricStat": asked}],
            StartTime=now - timedelta(days=1),
            EndTime=now + timedelta(hours=1),
        )
        return float(sum(found["MetricDataResults"][0]["Values"]))


def main() -> int:
    from moto.cloudwatch.models import CloudWatchBackend
    from moto.server import ThreadedMotoServer

    put = CloudWatchBackend.put_metric_data

    def put_added_up(self: Any, namespace: str, metric_data: list[dict[str, Any]]) -> None:
        for number, metric in enumerate(metric_data, 1):
            self._validate_parameters_put_metric_data(metric, number)
        put(self, namespace, [_added_up(metric) for metric in metric_data])

    CloudWatchBackend.put_metric_data = put_added_up
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        server.stop()
    return 0


def _added_up(metric: dict[str, Any]) -> dict[str, Any]:
    values, counts = metric["Values"], metric["Counts"]
    statistics = {
        "Sum": sum(value * count for value, count in zip(values, counts, strict=True)),
        "Minimum": min(values),
        "Maximum": max(values),
        "SampleCount": sum(counts),
    }
    kept = {name: metric[name] for name in ("MetricName", "Dimensions", "Timestamp", "Unit")}
    return {**kept, "StatisticValues": statistics}


if __name__ == "__main__":
    sys.exit(main())
