"""Components over a clock that stands still: instances and containers that take their time and do nothing, and a bill."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from container.platform.bill.ledger import Ledger, Meter
from container.platform.clock import ManualClock
from container.platform.components.component import CopySpec
from container.platform.components.components import Components, Ground
from container.platform.components.yard import Host, Times
from container.platform.counts import Counts
from container.platform.endpoints.containers import StartFailed
from container.platform.endpoints.models import Models
from container.platform.hosting.contract import Reply
from container.platform.metrics import MetricName, Metrics
from container.platform.rights import Rights
from container.platform.scaling.alarms import Rule
from container.platform.scaling.resources import COMPONENT
from container.platform.scaling.room import Scaling
from container.platform.service.call import Call, Request
from container.platform.service.faults import ValidationException
from container.platform.service.moto import Moto
from container.platform.service.tags import Tags
from container.platform.traps import Traps
from tests.rig.fakes import InlineExecutor

REGION, ACCOUNT = "us-east-1", "123456789012"
MIDNIGHT = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
TIMES = Times(instance_s=105, copy_s=60, release_s=600)
ROLE = f"arn:aws:iam::{ACCOUNT}:role/run"


@dataclass(frozen=True)
class FakeHost:
    id: str
    meter: Meter


@dataclass
class FakeVariant:
    """Instances that cost."""

    ledger: Ledger
    config: Mapping[str, Any]
    there: list[FakeHost] = field(default_factory=list)
    refuses: str | None = None
    is_serving: bool = True
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def hosts(self) -> list[FakeHost]:
        return list(self.there)

    def start_one(self) -> FakeHost:
        if self.refuses:
            raise StartFailed(self.refuses)
        name = f"i-{next(self._numbers)}"
        host = FakeHost(name, self.ledger.start("endpoint", "shop/AllTraffic", self.config["InstanceType"], name))
        self.there.append(host)
        return host

    def stop_one(self, host: Host) -> None:
        found = next(one for one in self.there if one.id == host.id)
        self.there.remove(found)
        self.ledger.stop(found.meter)


@dataclass
class FakeServed:
    runs: CopySpec
    during: Callable[[], None] = lambda: None
    is_stopped: bool = False
    pid: int | None = None

    def invoke(self, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False) -> Reply:
        self.during()
        return Reply(200, {"content-type": "text/csv"}, self.runs.environment.get("ANSWER", "1").encode())

    def stop(self) -> None:
        self.is_stopped = True


class Shop:
    """An endpoint `shop` whose one variant is for components."""

    def __init__(self, traps: tuple[str, ...] = (), instance_type: str = "ml.m5.large", **managed: Any) -> None:
        self.clock = ManualClock(MIDNIGHT)
        self.metrics = Metrics(self.clock)
        moto, tags = Moto(ACCOUNT), Tags()
        self.ledger = Ledger(self.clock, REGION)
        scaling = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2, **managed}
        self.variant = FakeVariant(self.ledger, {"InstanceType": instance_type, "ManagedInstanceScaling": scaling})
        self.variant.start_one()
        self.models = Models(self.clock, tags, Rights(moto, is_on=False))
        self.served: list[FakeServed] = []
        self.broken: str | None = None
        self.components = Components(
            self.clock,
            tags,
            self.models,
            self.metrics,
            Traps(traps),
            self._ground,
            self._start_copy,
            InlineExecutor(),
            TIMES,
        )
        self.scaling = Scaling(self.clock, self.metrics, moto, REGION, ACCOUNT)
        self.scaling.auto.find = Counts(None, self.components).find  # type: ignore[arg-type]  there are no endpoints
        self.scaling.publish(self.components.publish)
        self.scaling.start()
        self.operations = {**self.components.operations(), **self.scaling.operations(), **self.models.operations()}

    def call(self, operation: str, service: str = "sagemaker", **parameters: Any) -> Mapping[str, Any]:
        request = Request("POST", "/", {}, b"")
        return self.operations[service, operation](Call(service, operation, parameters, REGION, ACCOUNT, request))

    def scale(self, operation: str, **parameters: Any) -> Mapping[str, Any]:
        where = {"ResourceId": "inference-component/churn", "ScalableDimension": COMPONENT.dimension}
        return self.call(operation, "application-autoscaling", ServiceNamespace="sagemaker", **where, **parameters)

    def wake_alarm(self, policy_arn: str) -> None:
        """On calls that found no copy: at least one in thirty seconds."""
        metric = MetricName.of("AWS/SageMaker", "NoCapacityInvocationFailures", {"InferenceComponentName": "churn"})
        alarms = self.scaling.alarms
        arn, comparison = alarms.arn("wake"), "GreaterThanOrEqualToThreshold"
        alarms.put(Rule("wake", arn, metric, "Maximum", 30, 1, 1, 1.0, comparison, alarm_actions=(policy_arn,)))

    def create(self, name: str = "churn", copies: int = 1, memory_mib: int = 512, **container: Any) -> None:
        self.call(
            "CreateInferenceComponent",
            InferenceComponentName=name,
            EndpointName="shop",
            VariantName="AllTraffic",
            Specification={
                "Container": {"Image": "mme", **container},
                "ComputeResourceRequirements": {"MinMemoryRequiredInMb": memory_mib},
            },
            RuntimeConfig={"CopyCount": copies},
        )

    def set_copies(self, copies: int, name: str = "churn") -> None:
        self.call(
            "UpdateInferenceComponentRuntimeConfig",
            InferenceComponentName=name,
            DesiredRuntimeConfig={"CopyCount": copies},
        )

    def described(self, name: str = "churn") -> Mapping[str, Any]:
        return self.call("DescribeInferenceComponent", InferenceComponentName=name)

    def seen(self, name: str = "churn") -> tuple[str, int, int]:
        """Status, copies that answer, instances."""
        found = self.described(name)
        return found["InferenceComponentStatus"], found["RuntimeConfig"]["CurrentCopyCount"], len(self.variant.there)

    def invoke(self, name: str | None = "churn") -> Reply:
        return self.components.invoke("shop", name, b"1,2", {})

    def until(self, text: str) -> None:
        """Let the clock go on to a time of the first day."""
        hours, minutes, seconds = (int(part) for part in text.split(":"))
        self.clock.advance(3600 * hours + 60 * minutes + seconds - self.clock.monotonic())

    def _ground(self, endpoint: str, variant: str | None, arn: str) -> Ground:
        if endpoint != "shop":
            raise ValidationException(f'Could not find endpoint "{arn}".')
        return Ground(variant or "AllTraffic", self.variant)

    def _start_copy(self, runs: CopySpec, host: Host) -> FakeServed:
        if self.broken:
            raise StartFailed(self.broken)
        self.served.append(FakeServed(runs))
        return self.served[-1]


@pytest.fixture
def shop() -> Shop:
    return Shop()
