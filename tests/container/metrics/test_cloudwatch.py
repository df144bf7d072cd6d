"""PutMetricData: exact, within CloudWatch's limits, and harmless when CloudWatch is away."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from container.metrics.cloudwatch import (
    MAX_BACKLOG_CALLS,
    MAX_VALUES,
    MAX_VALUES_PER_CALL,
    CloudWatchSink,
    _calls,
    put_metric_data,
)
from container.metrics.datapoints import Datapoint
from handler.aws import cloudwatch
from handler.telemetry.recorder import MODEL_CACHE_HIT, MODEL_LATENCY, REPORTS_DROPPED, LiveRecorder, Totals

DIMENSIONS = {"EndpointName": "churn", "VariantName": "AllTraffic"}


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def cloudwatch_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def sink_to(url: str, recorder: LiveRecorder, namespace: str, **options: Any) -> CloudWatchSink:
    client = cloudwatch("eu-west-1", url)
    return CloudWatchSink(client, recorder=recorder, namespace=namespace, dimensions=DIMENSIONS, **options)


def statistics(url: str, namespace: str, name: str, **more: str) -> dict[str, float]:
    client = cloudwatch("eu-west-1", url)
    now = datetime.now(UTC)
    (point,) = client.get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in {**DIMENSIONS, **more}.items()],
        StartTime=now - timedelta(days=2),
        EndTime=now + timedelta(days=2),
        Period=345_600,
        Statistics=["Sum", "SampleCount", "Maximum"],
    )["Datapoints"]
    return {key: value for key, value in point.items() if isinstance(value, float)}


def test_what_arrives_is_what_was_recorded(cloudwatch_url: str) -> None:
    recorder = LiveRecorder()
    sink = sink_to(cloudwatch_url, recorder, "Exact", per_model=True)
    before = Totals.nothing()
    for part in range(3):
        for i in range(100):
            recorder.invocation("eu/a.tar.gz", i > 20, 5_000, 1_000 + 37 * i * part, 200)
        now = recorder.collect()
        sink.report(now, before)
        before = now
    sink.close(10)
    latency = statistics(cloudwatch_url, "Exact", MODEL_LATENCY.name)
    assert latency["Sum"] == before.total(MODEL_LATENCY)
    assert latency["SampleCount"] == 300
    # By model only: moto adds up every series whose dimensions contain those asked for, CloudWatch does not.
    hits = statistics(cloudwatch_url, "Exact", MODEL_CACHE_HIT.name, ModelName="eu/a.tar.gz")
    assert (hits["Sum"], hits["SampleCount"]) == (237, 300)
    assert statistics(cloudwatch_url, "Exact", "Invocations", ModelName="eu/a.tar.gz")["Sum"] == 300
    assert recorder.collect().total(REPORTS_DROPPED) == 0


def test_calls_stay_within_cloudwatchs_limits() -> None:
    points = [
        Datapoint("ModelLatency", "Microseconds", tuple(float(i) for i in range(400)), (2,) * 400, model=f"m{n}")
        for n in range(300)
    ]
    data = put_metric_data(points, at_s=1_700_000_000.0, dimensions=DIMENSIONS)
    calls = list(_calls(data))
    assert [datum for call in calls for datum in call] == data
    for call in calls:
        assert 1 <= len(call) <= 1_000
        assert sum(len(datum["Values"]) for datum in call) <= MAX_VALUES_PER_CALL
        assert all(len(datum["Values"]) == len(datum["Counts"]) <= MAX_VALUES for datum in call)
    assert sum(count for datum in data for count in datum["Counts"]) == 300 * 800


def test_a_refused_report_is_dropped_and_counted_and_the_next_one_sent(cloudwatch_url: str) -> None:
    recorder = LiveRecorder()
    client = cloudwatch("eu-west-1", cloudwatch_url)
    refusals = [403]

    def refuse_once(request: Any, **_: Any) -> Any:
        if not refusals:
            return None
        from botocore.awsrequest import AWSResponse

        class Raw:
            def stream(self, **_: Any) -> Iterator[bytes]:
                yield b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"

        return AWSResponse(request.url, refusals.pop(), {"content-type": "text/xml"}, Raw())

    client.meta.events.register("before-send.cloudwatch.PutMetricData", refuse_once)
    sink = CloudWatchSink(client, recorder=recorder, namespace="Refused", dimensions=DIMENSIONS)
    first = recorder.collect()
    sink.report(first, Totals.nothing())
    recorder.time_us(MODEL_LATENCY, 70)
    sink.report(recorder.collect(), first)
    sink.close(10)
    assert recorder.collect().total(REPORTS_DROPPED) == 1
    assert statistics(cloudwatch_url, "Refused", MODEL_LATENCY.name)["Sum"] == 70


@pytest.fixture
def tarpit() -> Iterator[str]:
    """An endpoint that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_endpoint_that_hangs_holds_up_nobody_and_the_backlog_is_bounded(
    tarpit: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    recorder = LiveRecorder()
    sink = sink_to(tarpit, recorder, "Away")
    started = time.monotonic()
    for _ in range(MAX_BACKLOG_CALLS + 40):
        sink.report(recorder.collect(), Totals.nothing())
    assert time.monotonic() - started < 20
    assert len(sink._waiting) == MAX_BACKLOG_CALLS
    assert recorder.collect().total(REPORTS_DROPPED) == 40
    sink.close(0.2)
    assert time.monotonic() - started < 20
    assert recorder.collect().total(REPORTS_DROPPED) == MAX_BACKLOG_CALLS + 40
    assert "could not be delivered" in caplog.text


def test_a_report_that_found_nobody_is_sent_when_cloudwatch_is_back(cloudwatch_url: str) -> None:
    recorder = LiveRecorder()
    client = cloudwatch("eu-west-1", cloudwatch_url)
    away = threading.Event()
    away.set()
    tried = threading.Event()

    def cut_the_line(**_: Any) -> None:
        if away.is_set():
            tried.set()
            raise ConnectionResetError("cut")

    client.meta.events.register("before-send.cloudwatch.PutMetricData", cut_the_line)
    sink = CloudWatchSink(client, recorder=recorder, namespace="Back", dimensions=DIMENSIONS)
    recorder.time_us(MODEL_LATENCY, 90)
    first = recorder.collect()
    sink.report(first, Totals.nothing())
    assert tried.wait(10)
    away.clear()
    sink.report(recorder.collect(), first)  # the next report wakes the sender
    sink.close(10)
    assert statistics(cloudwatch_url, "Back", MODEL_LATENCY.name)["Sum"] == 90
    assert recorder.collect().total(REPORTS_DROPPED) == 0
