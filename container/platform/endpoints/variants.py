"""A variant as it runs: its instances, each a container, and which of them gets a call.

Rule: starting and stopping block and run on the endpoints' executor; choosing never does.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from container.platform.endpoints.artifacts import DataMissing, own_store, unpack
from container.platform.endpoints.containers import STARTUP_S, Ground, Running, Spec, StartFailed
from container.platform.endpoints.serverless import Serverless
from container.platform.hosting.contract import Container, Reply
from container.platform.hosting.disk import DISK_BYTES
from container.platform.hosting.errors import ServiceUnavailable
from container.platform.hosting.figures import Figures
from container.platform.hosting.fleet import choose
from container.platform.hosting.instance import Instance, SingleModel
from container.platform.instance_types import INSTANCE_TYPES
from container.platform.logs import Nowhere, Stream
from container.platform.metrics import Metrics
from container.platform.ports import PortsUsedUp
from container.platform.rights import Rights
from container.platform.traps import Traps
from handler.stores import LocationInvalid, Store
from handler.telemetry.recorder import LOADED_MODEL_COUNT, Metric

log = logging.getLogger(__name__)

GIB = 1 << 30
DRAIN_S = 60.0  # of real time: InvokeEndpoint's own limit
SLOW_START_S = 600.0  # the trap
GONE = "was deleted before it was there"
NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
    "Please retry using a different ML instance type."
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every variant needs of the platform.

    logs       makes boto3's client for CloudWatch Logs, once
    executor   loads, unloads, starts and stops
    """

    ground: Ground
    metrics: Metrics
    traps: Traps
    rights: Rights
    logs: Callable[[], Any]
    executor: Executor
    root: Path


class Retired(ServiceUnavailable):
    """A call came to a variant in whose place there is another by now."""


@dataclass(slots=True)
class Played:
    """One instance.

    running   its container; None on the instance of an endpoint for inference components
    serving   how calls reach it
    """

    id: str
    type: str
    started_at: datetime
    running: Running | None = None
    serving: Instance | SingleModel | None = None

    @property
    def is_ready(self) -> bool:
        return self.running is None or self.running.is_ready


@dataclass(slots=True)
class InstanceNews:
    """That an instance has begun or ended to cost money."""

    endpoint: str
    variant: str
    instance: Played
    is_start: bool


class PublishedFigures(Figures):
    """The six metrics of a multi-model endpoint, as CloudWatch gets them."""

    def __init__(self, metrics: Metrics, dimensions: Mapping[str, str]) -> None:
        super().__init__()
        self._metrics = metrics
        self._dimensions = dimensions

    def add(self, metric: Metric, value: float) -> None:
        super().add(metric, value)
        self._metrics.put("AWS/SageMaker", metric.name, self._dimensions, value, metric.unit)


@dataclass(slots=True)
class Variant:
    """One variant of one config of one endpoint.

    config    its ProductionVariant
    model     as DescribeModel had it when the variant came to be; None: inference components run here
    """

    endpoint: str
    config_name: str
    config: Mapping[str, Any]
    model: Mapping[str, Any] | None
    around: Surroundings
    tell: Callable[[InstanceNews], None]
    weight: float = 0.0
    desired_weight: float = 0.0
    desired: int = 0
    instances: list[Played] = field(default_factory=list)
    is_closed: bool = False
    _starting: list[Played] = field(default_factory=list)
    figures: Figures = field(init=False)
    serverless: Serverless | None = field(init=False)
    _store: Store | None = None
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.weight = self.desired_weight = self.config.get("InitialVariantWeight", 1.0)
        self.desired = self.config.get("InitialInstanceCount", 0)
        self.serverless = Serverless(self) if "ServerlessConfig" in self.config else None
        self.figures = PublishedFigures(self.around.metrics, self.dimensions)
        self.figures.loaded = self.loaded

    @property
    def name(self) -> str:
        name: str = self.config["VariantName"]
        return name

    @property
    def dimensions(self) -> dict[str, str]:
        return {"EndpointName": self.endpoint, "VariantName": self.name}

    @property
    def n_first(self) -> int:
        """How many it has when it is new. Serverless it is one, which shows that its container comes up."""
        return 1 if self.serverless else self.desired

    @property
    def container(self) -> Mapping[str, Any]:
        """The model's ContainerDefinition."""
        return self.model["PrimaryContainer"] if self.model else {}

    @property
    def is_multi(self) -> bool:
        return self.container.get("Mode") == "MultiModel"

    def loaded(self) -> list[int]:
        """How many models each instance has in memory."""
        with self._lock:
            return [one.serving.n_loaded for one in self.instances if isinstance(one.serving, Instance)]

    def each_minute(self) -> None:
        """LoadedModelCount; and what is idle of a serverless variant goes."""
        if self.serverless is not None:
            self.serverless.release_idle()
        if self.is_multi:
            for n_models in self.loaded():
                self.around.metrics.put(
                    "/aws/sagemaker/Endpoints", LOADED_MODEL_COUNT.name, self.dimensions, n_models, "None"
                )

    # -- instances -----------------------------------------------------------------------------------------------------

    def start_one(self) -> Played:
        """One more instance, its container healthy. Raises StartFailed."""
        if self.around.traps.is_on("no-capacity"):
            raise StartFailed(NO_CAPACITY)
        clock = self.around.ground.clock
        number = "".join(random.choices("0123456789abcdef", k=17))  # noqa: S311  a name
        instance = Played(f"i-{number}", self.config.get("InstanceType", ""), clock.now())
        self._starting.append(instance)
        self._tell(instance, is_start=True)
        try:
            self._start(instance)
        except BaseException:
            self._tell(instance, is_start=False)
            raise
        finally:
            self._starting.remove(instance)
        return instance

    def stop_one(self, instance: Played | None = None, drain_s: float = DRAIN_S) -> None:
        """End that instance, else the youngest; nothing where there is none. It gets no more calls, and those that it has
        may end."""
        with self._lock:
            if instance is None and self.instances:
                instance = self.instances[-1]
            if instance is None or instance not in self.instances:
                return
            self.instances.remove(instance)
            serving = instance.serving
            self._lock.wait_for(lambda: serving is None or not serving.n_outstanding, drain_s)
        if instance.running is not None:
            instance.running.stop()
        if serving is not None:
            serving.container.close()
        self._tell(instance, is_start=False)

    def retire(self) -> None:
        """End all of them when their calls have ended, and start no more."""
        with self._lock:
            self.is_closed = True
            ends = [self.around.executor.submit(self.stop_one, one) for one in self.instances]
        for end in ends:
            end.result()
        self.close()

    def _tell(self, instance: Played, *, is_start: bool) -> None:
        if self.serverless is None:  # which is paid for by the call, not by the hour
            self.tell(InstanceNews(self.endpoint, self.name, instance, is_start=is_start))

    def close(self) -> None:
        """End all of them, those too that are just starting, side by side, and start no more."""
        with self._lock:
            self.is_closed = True
        running = [one.running for one in (*self._starting, *self.instances) if one.running is not None]
        for one in running:
            one.ask_to_stop()
        while self.instances:
            self.stop_one(drain_s=0)
        if self._store is not None:
            self._store.close()

    def _start(self, instance: Played) -> None:
        if self.around.traps.is_on("slow-start") and not self.around.ground.clock.wait(SLOW_START_S):
            raise StartFailed(GONE)
        try:
            if self.model is not None:
                self._give_container(instance)
        except (OSError, PortsUsedUp, LocationInvalid) as error:
            raise StartFailed(str(error)) from error
        with self._lock:
            if not self.is_closed:
                self.instances.append(instance)
                return
        if instance.running is not None:
            instance.running.stop()
        raise StartFailed(GONE)

    def _give_container(self, instance: Played) -> None:
        assert self.model is not None
        ground, root = self.around.ground, self.around.root / instance.id
        fault = self.around.rights.image_fault(self.model.get("ExecutionRoleArn"), self.container.get("Image", ""))
        if fault:
            raise StartFailed(fault)
        root.mkdir(parents=True)
        single = root / "model"
        url = self.container.get("ModelDataUrl") or _source(self.container)
        if not self.is_multi and url:
            try:
                unpack(url, single, ground.address, ground.region)
            except DataMissing as error:
                raise StartFailed(str(error)) from error
        spec = Spec(
            self.container.get("Image", ""),
            self.container.get("Environment", {}),
            is_multi=self.is_multi,
            startup_s=self.config.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_S),
            model=single if single.exists() else None,
            memory_bytes=self._memory_bytes,
        )
        running = Running(ground, spec, root / "container.log", self._stream(instance))
        with self._lock:
            # Whoever closes looks at what is starting: either he sees this one, or it sees that he was here.
            if self.is_closed:
                raise StartFailed(GONE)
            instance.running = running
        try:
            running.start()
        except StartFailed as error:
            raise StartFailed(
                f"The primary container for production variant {self.name} {error}. "
                f"Please check CloudWatch logs for this endpoint."
            ) from error
        instance.serving = self._serving(instance, running, root)

    def _serving(self, instance: Played, running: Running, root: Path) -> Instance | SingleModel:
        container = Container(running.url)
        if not self.is_multi:
            return SingleModel(instance.id, container)
        ground = self.around.ground
        with self._lock:
            if self._store is None:
                self._store = own_store(self.container["ModelDataUrl"], ground.address, ground.region, self._may_read)
        cache = self.container.get("MultiModelConfig", {}).get("ModelCacheSetting", "Enabled")
        home = root / "models"
        home.mkdir()
        return Instance(
            instance.id,
            container,
            self._store,
            home,
            self.figures,
            self.around.executor,
            disk_bytes=self.config.get("VolumeSizeInGB", 0) * GIB or DISK_BYTES,
            is_cached=cache == "Enabled",
        )

    def _stream(self, instance: Played) -> Stream:
        """Where CloudWatch Logs has its output, unless the role may not write any."""
        role = self.model.get("ExecutionRoleArn") if self.model else None
        if not self.around.rights.may(role, "logs:PutLogEvents", "*"):
            return Nowhere()
        return Stream(self.around.logs(), f"/aws/sagemaker/Endpoints/{self.endpoint}", f"{self.name}/{instance.id}")

    def _may_read(self, url: str) -> bool:
        assert self.model is not None
        return self.around.rights.may(
            self.model.get("ExecutionRoleArn"), "s3:GetObject", f"arn:aws:s3:::{url.removeprefix('s3://')}"
        )

    # -- calls ---------------------------------------------------------------------------------------------------------

    def invoke(self, target: str | None, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False) -> Reply:
        """The container's answer, whatever its status. Raises ServiceError."""
        if self.serverless is not None:
            return self.serverless.invoke(body, headers, is_stream=is_stream)
        with self._lock:
            serving = self._chosen(target)
            serving.n_outstanding += 1

        def give_back() -> None:
            with self._lock:
                serving.n_outstanding -= 1
                self._lock.notify_all()

        try:
            if isinstance(serving, Instance):
                assert target is not None  # asked for before
                reply = serving.invoke(target, body, headers)
            else:
                reply = serving.invoke(body, headers, is_stream=is_stream)
        except BaseException:
            give_back()
            raise
        return reply.then(give_back)

    def _chosen(self, target: str | None) -> Instance | SingleModel:
        ready = [one.serving for one in self.instances if one.serving and one.is_ready]
        servings = ready or [one.serving for one in self.instances if one.serving]
        if not servings:
            no_instance = f"variant {self.name} of {self.endpoint} has no instance"
            raise Retired(no_instance) if self.is_closed else ServiceUnavailable(no_instance)
        several = [one for one in servings if isinstance(one, Instance)]
        if several and target is not None:
            return choose(several, target, self._busy_at)
        if self.config.get("RoutingConfig", {}).get("RoutingStrategy") == "LEAST_OUTSTANDING_REQUESTS":
            return min(servings, key=lambda one: one.n_outstanding)
        return random.choice(servings)  # noqa: S311  RANDOM is the default

    @property
    def _memory_bytes(self) -> int | None:
        if self.serverless is not None:
            return int(self.config["ServerlessConfig"]["MemorySizeInMB"]) << 20
        known = INSTANCE_TYPES.get(self.config.get("InstanceType", ""))
        return known.memory_bytes if known else None

    @property
    def _busy_at(self) -> int:
        """Calls under way that an instance's processors can take, twice. SageMaker's own number is not published."""
        known = INSTANCE_TYPES.get(self.config.get("InstanceType", ""))
        return 2 * (known.vcpus if known else 2)


def _source(container: Mapping[str, Any]) -> str | None:
    """ModelDataSource's tar.gz."""
    source: str | None = container.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri")
    return source


def weighted(variants: Sequence[Variant]) -> Variant:
    """One of them, as often as its weight says. There is at least one with a weight."""
    return random.choices(variants, [variant.weight for variant in variants])[0]  # noqa: S311
