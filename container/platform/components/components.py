"""CreateInferenceComponent and its siblings, and who answers a call that names a component.

Rule: a component outlives its endpoint, as on SageMaker: its name stays taken until it is deleted.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from container.platform.clock import Clock
from container.platform.components.component import UNDER_WAY, Component, Copy, CopySpec
from container.platform.components.pool import Need, capacity
from container.platform.components.yard import StartCopy, Times, Variant, Yard
from container.platform.endpoints.models import Models
from container.platform.hosting.contract import Reply
from container.platform.hosting.errors import ServiceError, ValidationError
from container.platform.metrics import MetricName, Metrics
from container.platform.service.call import Call, Operation
from container.platform.service.faults import NotPlayed, ValidationException
from container.platform.service.pages import listed
from container.platform.service.tags import Tags
from container.platform.stories import Story, Tale
from container.platform.traps import Traps

NAMESPACE = "AWS/SageMaker"
AGAIN_S = 5.0  # how often a restored component looks for its endpoint
STARTUP_S = 480.0  # where StartupParameters name no other
NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
    "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)
NAME_NEEDED = (
    "Inference Component Name header is required for endpoints to which you plan to deploy inference components. "
    "Please include Inference Component Name header or consider using SageMaker models."
)


@dataclass(frozen=True)
class Ground:
    """What components stand on."""

    variant_name: str
    variant: Variant


class NotYet(ValidationException):
    """The endpoint is there, and not in service."""


# By the names of an endpoint and a variant, None being its only one, and the endpoint's ARN. Raises ValidationException.
FindGround = Callable[[str, "str | None", str], Ground]


class Components:
    """All of one platform. Any thread may ask."""

    def __init__(
        self,
        clock: Clock,
        tags: Tags,
        models: Models,
        metrics: Metrics,
        traps: Traps,
        find_ground: FindGround,
        start_copy: StartCopy,
        executor: Executor,
        times: Times | None = None,
    ) -> None:
        self._clock = clock
        self._tags = tags
        self._models = models
        self._metrics = metrics
        self._traps = traps
        self._find_ground = find_ground
        self._start_copy = start_copy
        self._executor = executor
        self._times = times or Times()
        self._lock = threading.RLock()
        self._components: dict[str, Component] = {}
        self._yards: dict[tuple[str, str], Yard] = {}

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker", "CreateInferenceComponent"): self._create,
            ("sagemaker", "DescribeInferenceComponent"): lambda call: self._found(call).described(),
            ("sagemaker", "ListInferenceComponents"): self._list,
            ("sagemaker", "UpdateInferenceComponent"): self._update,
            ("sagemaker", "UpdateInferenceComponentRuntimeConfig"): self._update_runtime,
            ("sagemaker", "DeleteInferenceComponent"): self._delete,
        }

    def find(self, name: str) -> Component | None:
        with self._lock:
            return self._components.get(name)

    def all(self) -> list[Component]:
        with self._lock:
            return list(self._components.values())

    def set_desired(self, name: str, n: int) -> None:
        """As UpdateInferenceComponentRuntimeConfig. Raises ValidationException."""
        with self._lock:
            component = self._components.get(name)
            if component is None:
                raise ValidationException(f'Could not find inference component "{name}".')
            _check_steady(component)
            component.desired = n
            component.change("Updating", self._clock.now())
        self._look_again(component)

    # Calls

    def invoke(
        self, endpoint: str, name: str | None, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False
    ) -> Reply:
        """The container's answer, whatever its status. Raises ServiceError."""
        if name is None:
            raise ValidationError(NAME_NEEDED)
        component = self.find(name)
        if component is None or component.endpoint != endpoint:
            raise ValidationError(f"Inference Component {name} not found on endpoint {endpoint}.")
        with self._lock:
            copy = min(component.ready, key=lambda one: one.n_calls, default=None)
            if copy is not None:
                copy.n_calls += 1
                component.n_calls_most = max(component.n_calls_most, component.n_calls)
        if copy is None:
            self._metrics.put(NAMESPACE, "NoCapacityInvocationFailures", component.dimensions, 1, "None")
            raise ValidationError(NO_CAPACITY)

        def give_back() -> None:
            with self._lock:
                copy.n_calls -= 1

        try:
            reply = self._measured(component, copy, body, headers, is_stream=is_stream)
        except BaseException:
            give_back()
            raise
        return reply.then(give_back)

    def _measured(
        self, component: Component, copy: Copy, body: bytes, headers: Mapping[str, str], *, is_stream: bool
    ) -> Reply:
        assert copy.served is not None
        self._put(component, "Invocations", 1)
        self._put(component, "InvocationsPerCopy", 1 / max(1, len(component.ready)))
        start = time.perf_counter()
        try:
            reply = copy.served.invoke(body, headers, is_stream=is_stream)
        except ServiceError:
            self._put(component, "Invocation5XXErrors", 1)
            raise
        reply.then(lambda: self._put(component, "ModelLatency", (time.perf_counter() - start) * 1e6, "Microseconds"))
        self._put(component, "Invocation4XXErrors", float(400 <= reply.status < 500))
        self._put(component, "Invocation5XXErrors", float(reply.status >= 500))
        return reply

    def publish(self, at: datetime.datetime) -> None:
        """Figures of the ten seconds before `at`: how many calls at once; of an idle minute, that it was idle."""
        last = at - datetime.timedelta(seconds=1)
        is_minute = int(at.timestamp()) % 60 == 0
        for component in self.all():
            n = len(component.ready)
            if n == 0:
                continue
            with self._lock:
                most = max(component.n_calls_most, component.n_calls)
                component.n_calls_most = component.n_calls
            self._put(component, "ConcurrentRequestsPerCopy", most / n, at=last)
            if is_minute and self._is_idle(component, at):
                self._put(component, "InvocationsPerCopy", 0, at=last)

    def _is_idle(self, component: Component, at: datetime.datetime) -> bool:
        metric = MetricName.of(NAMESPACE, "InvocationsPerCopy", component.dimensions)
        second = int(at.timestamp())
        return self._metrics.value(metric, second - 60, second, "Sum") is None

    def _put(
        self, component: Component, name: str, value: float, unit: str = "None", at: datetime.datetime | None = None
    ) -> None:
        self._metrics.put(NAMESPACE, name, component.dimensions, value, unit, at)

    # Operations

    def _create(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        name = asked["InferenceComponentName"]
        arn = call.arn("inference-component", name)
        specification = self._specification(call)
        n_copies = asked.get("RuntimeConfig", {}).get("CopyCount", 0)
        if n_copies < 1:
            raise ValidationException("Inference components copy count an integer larger than 0")
        endpoint_arn = call.arn("endpoint", asked["EndpointName"])
        ground = self._find_ground(asked["EndpointName"], asked.get("VariantName"), endpoint_arn)
        _check_type(ground.variant)
        now = self._clock.now()
        component = Component(
            name,
            arn,
            asked["EndpointName"],
            endpoint_arn,
            ground.variant_name,
            specification,
            self._copy_spec(name, specification),
            Need.of(specification["ComputeResourceRequirements"]),
            n_copies,
            now,
            now,
        )
        with self._lock:
            if name in self._components:
                raise ValidationException(f'Cannot create already existing inference component "{arn}".')
            self._tags.put(arn, asked.get("Tags", []))
            self._components[name] = component
            if not self._traps.is_on("creating-forever"):
                self._yard(component, ground).components.append(component)
        self._look_again(component)
        return {"InferenceComponentArn": arn}

    def _list(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        fitting = [
            one
            for one in self.all()
            if asked.get("EndpointNameEquals", one.endpoint) == one.endpoint
            and asked.get("VariantNameEquals", one.variant) == one.variant
        ]
        shown, token = listed(
            fitting,
            asked,
            lambda one: {
                "Name": one.name,
                "Status": one.status,
                "CreationTime": one.created,
                "LastModifiedTime": one.modified,
            },
        )
        return {"InferenceComponents": [one.listed() for one in shown], "NextToken": token}

    def _update(self, call: Call) -> Mapping[str, Any]:
        """Another specification: new copies come, and then the former ones go."""
        asked = call.parameters
        if "DeploymentConfig" in asked:
            raise NotPlayed("sagemaker", "UpdateInferenceComponent with DeploymentConfig")
        specification = self._specification(call) if "Specification" in asked else None
        with self._lock:
            component = self._found(call)
            _check_steady(component)
            component.desired = asked.get("RuntimeConfig", {}).get("CopyCount", component.desired)
            if specification is not None:
                component.specification = specification
                component.runs = self._copy_spec(component.name, specification)
                component.need = Need.of(specification["ComputeResourceRequirements"])
                component.generation += 1
            component.change("Updating", self._clock.now())
        self._look_again(component)
        return {"InferenceComponentArn": component.arn}

    def _update_runtime(self, call: Call) -> Mapping[str, Any]:
        component = self._found(call)
        self.set_desired(component.name, call.parameters["DesiredRuntimeConfig"]["CopyCount"])
        return {"InferenceComponentArn": component.arn}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            component = self._found(call)
            _check_steady(component)
            component.change("Deleting", self._clock.now())
            yard = self._yards.get((component.endpoint, component.variant))
            if yard is None or yard.is_closed:
                self._forget(component)
                return {}
        self._look_again(component)
        return {}

    def _found(self, call: Call) -> Component:
        name = call.parameters["InferenceComponentName"]
        component = self.find(name)
        if component is None:
            raise ValidationException(f'Could not find inference component "{call.arn("inference-component", name)}".')
        return component

    def _specification(self, call: Call) -> Mapping[str, Any]:
        """Checked, as it was given. Raises ValidationException."""
        if "Specifications" in call.parameters:
            raise NotPlayed("sagemaker", f"{call.operation} with Specifications")
        given: Mapping[str, Any] = call.parameters.get("Specification", {})
        if "BaseInferenceComponentName" in given:
            raise NotPlayed("sagemaker", f"{call.operation} with BaseInferenceComponentName")
        for member, where in (
            ("ContainerMetricsConfig", given.get("Container", {})),
            ("AcceleratorPartitionType", given.get("ComputeResourceRequirements", {})),
        ):
            if member in where:
                raise NotPlayed("sagemaker", f"{call.operation} with {member}")
        if ("ModelName" in given) == ("Container" in given):
            raise ValidationException("Exactly one of ModelName and Container must be given for an inference component")
        if "ComputeResourceRequirements" not in given:
            raise ValidationException("ComputeResourceRequirements must be given for an inference component")
        needs = given["ComputeResourceRequirements"]
        if needs.get("MaxMemoryRequiredInMb", needs["MinMemoryRequiredInMb"]) < needs["MinMemoryRequiredInMb"]:
            raise ValidationException("MaxMemoryRequiredInMb must not be less than MinMemoryRequiredInMb")
        if "Container" in given and "Image" not in given["Container"]:
            raise ValidationException("Image must be given for the container of an inference component")
        model = given.get("ModelName")
        if model is not None:
            found = self._models.find(model)
            if found is None:
                raise ValidationException(f'Could not find model "{call.arn("model", model)}".')
            if found["PrimaryContainer"].get("Mode") == "MultiModel":
                raise NotPlayed("sagemaker", f"{call.operation} with a model in MultiModel mode")
        return given

    def _copy_spec(self, name: str, specification: Mapping[str, Any]) -> CopySpec:
        startup = specification.get("StartupParameters", {})
        startup_s = float(startup.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_S))
        if "Container" in specification:
            own = specification["Container"]
            return CopySpec(name, own["Image"], own.get("Environment", {}), own.get("ArtifactUrl"), startup_s)
        model = self._models.find(specification["ModelName"])
        assert model is not None
        container = model["PrimaryContainer"]
        source = container.get("ModelDataSource", {}).get("S3DataSource", {}).get("S3Uri")
        url = container.get("ModelDataUrl") or source
        return CopySpec(name, container.get("Image", ""), container.get("Environment", {}), url, startup_s)

    # --state

    def dump(self) -> Any:
        """What is under way is lost: a component that was being made is made anew, one that was going is gone."""
        return [
            {
                "name": one.name,
                "arn": one.arn,
                "endpoint": one.endpoint,
                "endpoint_arn": one.endpoint_arn,
                "variant": one.variant,
                "specification": one.specification,
                "desired": one.desired,
                "created": one.created,
                "modified": one.modified,
                "status": one.status,
                "reason": one.reason,
            }
            for one in self.all()
            if one.status != "Deleting"
        ]

    def restore(self, value: Any) -> None:
        """Copies are started anew when the endpoint is in service again; until then a component is Updating."""
        for kept in value:
            specification = kept["specification"]
            need = Need.of(specification["ComputeResourceRequirements"])
            component = Component(**kept, runs=self._copy_spec(kept["name"], specification), need=need)
            self._components[component.name] = component
            if component.status != "Failed":
                Story(self._clock, self._come_back(component))

    def _come_back(self, component: Component) -> Tale:
        """One whose endpoint is gone stays as it was."""
        while True:
            try:
                ground = self._find_ground(component.endpoint, component.variant, component.endpoint_arn)
            except NotYet:
                yield AGAIN_S
            except ValidationException:
                return
            else:
                break
        with self._lock:
            component.status = "Creating" if component.status == "Creating" else "Updating"
            self._yard(component, ground).components.append(component)
        self._look_again(component)

    # Yards

    def _yard(self, component: Component, ground: Ground) -> Yard:
        key = component.endpoint, component.variant
        if key not in self._yards:
            self._yards[key] = Yard(
                self._clock, self._executor, ground.variant, self._start_copy, self._times, self._forget
            )
        return self._yards[key]

    def _look_again(self, component: Component) -> None:
        yard = self._yards.get((component.endpoint, component.variant))
        if yard is not None:
            yard.look_again()

    def _forget(self, component: Component) -> None:
        with self._lock:
            self._components.pop(component.name, None)
            self._tags.forget(component.arn)

    def instances_changed(self, endpoint: str) -> None:
        """Some came or went, by whomever."""
        for key, yard in list(self._yards.items()):
            if key[0] == endpoint:
                yard.look_again()

    def endpoint_gone(self, endpoint: str) -> None:
        """Its containers stop; its components stay, and answer no more. Blocks."""
        with self._lock:
            yards = [self._yards.pop(key) for key in list(self._yards) if key[0] == endpoint]
        for yard in yards:
            yard.close()
            for component in yard.components:
                component.copies.clear()

    def close(self) -> None:
        for yard in list(self._yards.values()):
            yard.close()


def _check_steady(component: Component) -> None:
    """Raises ValidationException while something is under way."""
    state = UNDER_WAY.get(component.status)
    if state is not None:
        raise ValidationException(
            f'Inference component "{component.arn}" is in state {state}; try again when it is over.'
        )


def _check_type(variant: Variant) -> None:
    try:
        capacity(variant.config["InstanceType"])
    except KeyError as error:
        raise ValidationException(f"mme platform does not know the memory of instance type {error}") from error
