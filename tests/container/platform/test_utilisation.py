"""CPU, memory and disk of endpoints, components and jobs are in CloudWatch each minute, as the guide names them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from container.platform import usage
from container.platform.clock import ManualClock
from container.platform.utilisation import COMPONENTS, ENDPOINTS
from tests.container.platform.jobs.conftest import Account as Jobs
from tests.container.platform.jobs.conftest import until
from tests.rig.platform import FAKE, ROLE, Account, client, platform

GIB = 1 << 30
BEGINS = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with pytest.MonkeyPatch.context() as patch, platform(clock=ManualClock(BEGINS)) as played:
        for name in ("LOOK_EVERY_S", "FOLDER_EVERY_S"):  # minutes go by in an instant here
            patch.setattr(usage, name, 0.0)
        made = Account(played)
        yield made
        made.close()


def minutes(account: Account, namespace: str, name: str, **dimensions: str) -> list[float]:
    """Averages of each minute until now, as boto3 gets them."""
    cloudwatch = client(account.url, "cloudwatch")
    now = account.platform.clock.now()
    told = cloudwatch.get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=BEGINS - datetime.timedelta(minutes=1),
        EndTime=now + datetime.timedelta(minutes=1),
        Period=60,
        Statistics=["Average"],
    )
    cloudwatch.close()
    assert {one["Unit"] for one in told["Datapoints"]} <= {"Percent"}
    return [one["Average"] for one in told["Datapoints"]]


def a_minute_later(account: Account) -> None:
    clock = account.platform.clock
    assert isinstance(clock, ManualClock)
    clock.advance(60)


def test_an_endpoints_instances_tell_what_their_containers_take(account: Account) -> None:
    account.endpoint("shop", account.config("shop", 2))
    account.runtime.invoke_endpoint(EndpointName="shop", TargetModel="a.tar.gz", Body=b"1")
    a_minute_later(account)
    where = {"EndpointName": "shop", "VariantName": "AllTraffic"}
    (cpu,) = minutes(account, ENDPOINTS, "CPUUtilization", **where)
    (memory,) = minutes(account, ENDPOINTS, "MemoryUtilization", **where)
    (disk,) = minutes(account, ENDPOINTS, "DiskUtilization", **where)
    assert cpu > 0
    assert 1 << 20 < memory / 100 * 8 * GIB < 1 << 30  # a Python of a few megabytes, on an ml.m5.large
    assert 0 < disk < 0.001
    assert minutes(account, ENDPOINTS, "CPUUtilizationNormalized", **where) == []  # which components have
    listed = client(account.url, "cloudwatch").list_metrics(Namespace=ENDPOINTS, MetricName="CPUUtilization")
    assert [one["Dimensions"] for one in listed["Metrics"]] == [
        [{"Name": n, "Value": v} for n, v in sorted(where.items())]
    ]


def test_components_tell_it_over_what_they_reserve(account: Account) -> None:
    config = {
        "VariantName": "AllTraffic",
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "ManagedInstanceScaling": {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 1},
    }
    sagemaker = account.sagemaker
    sagemaker.create_endpoint_config(EndpointConfigName="parts", ProductionVariants=[config], ExecutionRoleArn=ROLE)
    account.endpoint("parts", "parts")
    sagemaker.create_inference_component(
        InferenceComponentName="part",
        EndpointName="parts",
        VariantName="AllTraffic",
        Specification={
            "Container": {"Image": FAKE},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512, "NumberOfCpuCoresRequired": 1},
        },
        RuntimeConfig={"CopyCount": 1},
    )

    def in_service() -> Any:
        a_minute_later(account)
        told = sagemaker.describe_inference_component(InferenceComponentName="part")
        return told["InferenceComponentStatus"] == "InService"

    until(in_service)
    a_minute_later(account)
    assert minutes(account, COMPONENTS, "CPUUtilizationNormalized", InferenceComponentName="part")
    memory = minutes(account, COMPONENTS, "MemoryUtilizationNormalized", InferenceComponentName="part")
    assert all(0 < one < 100 for one in memory)
    where = {"EndpointName": "parts", "VariantName": "AllTraffic"}
    assert minutes(account, ENDPOINTS, "CPUReservation", **where)[-1] == 50
    assert minutes(account, ENDPOINTS, "MemoryReservation", **where)[-1] == pytest.approx(512 / 8192 * 100)
    assert minutes(account, ENDPOINTS, "CPUUtilizationNormalized", **where)
    assert minutes(account, ENDPOINTS, "MemoryUtilization", **where)[-1] * 8192 == pytest.approx(
        memory[-1] * 512, rel=0.5
    )


def test_a_jobs_hosts_tell_it_each(account: Account, tmp_path: Path) -> None:
    jobs = Jobs(account.platform, tmp_path)
    go_on = tmp_path / "go-on"
    script = f"head -c 2000000 /dev/zero >${{MME_OPT_ML:-/opt/ml}}/model/m; while [ ! -e {go_on} ]; do :; done"
    name = jobs.train(script, ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1})
    until(lambda: len(account.platform.jobs.hosts()) == 2)
    wrote = account.platform.jobs.hosts()
    until(lambda: all((one.folder / "ml/model/m").exists() for one in wrote))
    a_minute_later(account)
    for host in (f"{name}/algo-1", f"{name}/algo-2"):
        for metric in ("CPUUtilization", "MemoryUtilization", "DiskUtilization"):
            (value,) = minutes(account, "/aws/sagemaker/TrainingJobs", metric, Host=host)
            assert value > 0, metric
    go_on.touch()
    assert jobs.trained(name)["TrainingJobStatus"] == "Completed"
    assert account.platform.jobs.hosts() == []
