"""What exporters report is what the client saw: the status page, Prometheus, CloudWatch and EMF agree to the last count."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.rig import boosters
from tests.rig.endpoint import Endpoint, free_port, needs_classes, until
from tests.rig.faulty_s3 import ENVIRONMENT

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
NAMESPACE = "Test"


class Watched:
    """An endpoint with every exporter open, and what its client counted."""

    def __init__(self, endpoint: Endpoint, name: str, admin: str, cloudwatch: Any) -> None:
        self.endpoint, self.name, self.admin, self.cloudwatch = endpoint, name, admin, cloudwatch
        self.calls = self.hits = self.errors = 0

    def call(self, target: str) -> None:
        reply = self.endpoint.post(target, ROW)
        self.calls += 1
        self.errors += reply.status >= 400
        self.hits += reply.headers.get("x-amzn-sagemaker-custom-attributes") == "cache=hit"

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.admin + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def prometheus(self, name: str) -> float:
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + "{"):
                return float(line.rsplit(" ", 1)[1])
        raise AssertionError(name)

    def sent(self, name: str, statistic: str) -> float:
        now = datetime.now(UTC)
        found = self.cloudwatch.get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName=name,
            Dimensions=[
                {"Name": "EndpointName", "Value": self.name},
                {"Name": "VariantName", "Value": "AllTraffic"},
            ],
            StartTime=now - timedelta(hours=1),
            EndTime=now + timedelta(hours=1),
            Period=60,
            Statistics=[statistic],
        )
        return float(sum(point[statistic] for point in found["Datapoints"]))


@pytest.fixture(scope="module")
def watched(segments: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    try:
        host, port = moto.get_host_and_port()
        url, admin_port = f"http://{host}:{port}", free_port()
        flags = ["--admin-port", str(admin_port), "--metrics-namespace", NAMESPACE, "--endpoint-name", "houses"]
        flags += ["--cloudwatch", "--cloudwatch-endpoint-url", url, "--metrics-interval", "1", "--emf"]
        client = boto3.client(
            "cloudwatch", "us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b"
        )
        with Endpoint(segments, scratch, *flags, "--workers", "2", "--memory", boosters.memory_for(2.5, 2)) as endpoint:
            yield Watched(endpoint, "houses", f"http://127.0.0.1:{admin_port}", client)
    finally:
        moto.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def test_health_is_the_truth(watched: Watched) -> None:
    assert watched.get("/healthz")[0] == 200
    assert json.loads(watched.get("/readyz")[1]) == {"ok": True, "reasons": []}


def test_every_exporter_says_what_the_client_counted(watched: Watched) -> None:
    for number in (0, 1, 2, 0, 3, 4, 5, 0, 1, 1, 1):
        watched.call(f"us/{number}.tar.gz")
    watched.call("us/none.tar.gz")
    served = watched.calls - watched.errors
    assert 0 < watched.hits < served
    labels = {
        "mme_model_cache_hit_count": served,
        "mme_model_cache_hit_sum": watched.hits,
        "mme_model_loading_time_seconds_count": served - watched.hits,
    }
    for name, count in labels.items():
        assert watched.prometheus(name) == count
    until(lambda: watched.sent("Invocations", "Sum") == watched.calls)
    assert watched.sent("ModelCacheHit", "SampleCount") == served
    assert watched.sent("ModelCacheHit", "Sum") == watched.hits
    assert watched.sent("ModelLoadingTime", "SampleCount") == served - watched.hits
    assert watched.sent("Invocation4XXErrors", "Sum") == watched.errors
    assert watched.sent("Evictions", "Sum") > 0
    status = json.loads(watched.get("/status.json")[1])
    assert str(watched.calls) in json.dumps(status)


def test_models_lists_what_is_in_memory(watched: Watched) -> None:
    watched.call("us/2.tar.gz")
    page = json.loads(watched.get("/models")[1])
    assert "us/2.tar.gz" in [model["name"] for model in page["models"]]
    assert sum(model["n_bytes"] for model in page["models"]) <= 60_000
    run = subprocess.run(
        [sys.executable, "-m", "container.operate.main", "models", "--admin", watched.admin],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "us/2.tar.gz" in run.stdout
    assert f"of {page['total']} in memory" in run.stdout


def test_the_page_is_served(watched: Watched) -> None:
    status, page = watched.get("/")
    assert status == 200
    assert "<!doctype html>" in page.lower()


def test_mme_dashboard_puts_what_it_prints_into_cloudwatch(watched: Watched) -> None:
    url = watched.cloudwatch.meta.endpoint_url
    command = [sys.executable, "-m", "container.operate.main", "dashboard", "cloudwatch", "--endpoint-name", "houses"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(printed.stdout)["widgets"]) > 4
    applied = subprocess.run(
        [*command, "--apply", "--cloudwatch-endpoint-url", url],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        check=True,
    )
    assert applied.stdout.startswith("dashboard houses-AllTraffic")
    assert watched.cloudwatch.list_dashboards()["DashboardEntries"][0]["DashboardName"] == "houses-AllTraffic"
    assert watched.cloudwatch.describe_alarms()["MetricAlarms"]


def test_a_taken_admin_port_is_told_in_one_line(watched: Watched, segments: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    try:
        endpoint = Endpoint(segments, scratch, "--admin-port", watched.admin.rsplit(":", 1)[1])
        assert endpoint.wait() == 1
        assert "for the admin port: Address already in use" in "".join(endpoint.log)
        assert "Traceback" not in "".join(endpoint.log)
    finally:
        shutil.rmtree(scratch)


def test_nothing_recorded_is_lost_when_it_stops(segments: Path) -> None:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    try:
        host, port = moto.get_host_and_port()
        url = f"http://{host}:{port}"
        flags = ["--cloudwatch", "--cloudwatch-endpoint-url", url, "--metrics-namespace", NAMESPACE]
        with Endpoint(segments, scratch, *flags, "--endpoint-name", "stopped", "--workers", "2") as endpoint:
            for _ in range(7):
                assert endpoint.post("us/1.tar.gz", ROW).status == 200
        client = boto3.client(
            "cloudwatch", "us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b"
        )
        assert Watched(endpoint, "stopped", "", client).sent("Invocations", "Sum") == 7
    finally:
        moto.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def get(endpoint: Endpoint, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@needs_classes
def test_the_serving_port_itself_tells_health_metrics_and_execution_parameters(endpoint: Endpoint) -> None:
    assert get(endpoint, "/ping") == (200, '{"status":"Healthy"}')
    assert "mme_invocations" in get(endpoint, "/metrics")[1]
    assert json.loads(get(endpoint, "/execution-parameters")[1])["BatchStrategy"] == "MULTI_RECORD"


@needs_classes
def test_ping_says_so_while_the_runtime_is_away(segments: Path, tmp_path: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    try:
        with Endpoint(segments, scratch, "--workers", "2") as endpoint:
            os.kill(endpoint.runtime, signal.SIGSTOP)  # as good as dead: it answers nobody
            try:
                status, body = get(endpoint, "/ping")
                assert (status, json.loads(body)["status"]) == (503, "Unhealthy")
            finally:
                os.kill(endpoint.runtime, signal.SIGCONT)
            until(lambda: get(endpoint, "/ping")[0] == 200)
            os.kill(endpoint.runtime, signal.SIGKILL)
            until(lambda: get(endpoint, "/ping")[0] == 503)
            until(lambda: get(endpoint, "/ping")[0] == 200)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
