"""InvokeEndpoint: to which container a call goes, what comes back, and what CloudWatch hears of it.

Rule: a header that names another place than there is is refused; ignored, it would be answered by a model that was not
asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from container.platform.endpoints.endpoints import Endpoints
from container.platform.endpoints.sides import Endpoint, Side
from container.platform.endpoints.streaming import Passing
from container.platform.endpoints.variants import Retired, Variant, weighted
from container.platform.hosting.contract import Parts, Reply
from container.platform.hosting.errors import ModelError, ServiceUnavailable, ValidationError
from container.platform.metrics import MetricName, Metrics
from container.platform.service.call import Call, Operation
from container.platform.service.faults import ServiceFault
from handler.errors import TargetInvalid
from handler.targets import as_sent, parse_target

log = logging.getLogger("mme.platform")

MAX_BODY_BYTES = 25 * 1024 * 1024  # InvokeEndpoint's limit. Source: SageMaker guide, hosting FAQs
NAMESPACE = "AWS/SageMaker"
# All others are stripped on their way to the container. Source: SageMaker guide, "your-algorithms-inference-code".
PASSED_ON = (
    "content-type", "accept", "x-amzn-sagemaker-custom-attributes", "x-amzn-sagemaker-target-model",
    "x-amzn-sagemaker-inference-id", "x-amzn-sagemaker-session-id",
)  # fmt: skip
# Of the container's answer: header -> member.
PASSED_BACK = {
    "content-type": "ContentType",
    "x-amzn-sagemaker-custom-attributes": "CustomAttributes",
    "x-amzn-sagemaker-new-session-id": "NewSessionId",
    "x-amzn-sagemaker-closed-session-id": "ClosedSessionId",
}


class ComponentsOf(Protocol):
    """The room of inference components, as far as calls need it."""

    def invoke(
        self, endpoint: str, component: str, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False
    ) -> Reply:
        """The answer of one of its copies, whatever its status. Raises ServiceError."""


class Invoking:
    """components   set by the room that has them; without it a call that names one is refused"""

    def __init__(self, endpoints: Endpoints, metrics: Metrics) -> None:
        self._endpoints = endpoints
        self._metrics = metrics
        self.components: ComponentsOf | None = None

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker-runtime", "InvokeEndpoint"): lambda call: self._invoke(call, is_stream=False),
            ("sagemaker-runtime", "InvokeEndpointWithResponseStream"): lambda call: self._invoke(call, is_stream=True),
        }

    def publish(self, at: datetime) -> None:
        """Of the ten seconds before `at`: how many calls are under way; of an idle minute, that nobody called."""
        last, second = at - timedelta(seconds=1), int(at.timestamp())
        for endpoint in self._endpoints.all():
            for variant in endpoint.blue.variants.values():
                servings = [one.serving for one in variant.instances if one.serving]
                if endpoint.status == "Creating" or not servings:
                    continue
                n_calls = sum(one.n_outstanding for one in servings)
                self._metrics.put(
                    NAMESPACE, "ConcurrentRequestsPerModel", variant.dimensions, n_calls / len(servings), "None", last
                )
                called = MetricName.of(NAMESPACE, "InvocationsPerInstance", variant.dimensions)
                if second % 60 == 0 and self._metrics.value(called, second - 60, second, "Sum") is None:
                    for name in ("Invocations", "InvocationsPerInstance"):
                        self._metrics.put(NAMESPACE, name, variant.dimensions, 0, "None", last)

    def _invoke(self, call: Call, *, is_stream: bool) -> Mapping[str, Any]:
        given = call.parameters
        if len(given["Body"]) > MAX_BODY_BYTES:
            raise ServiceFault(f"HTTP content length exceeded {MAX_BODY_BYTES} bytes.", "413", 413)
        name = given["EndpointName"]
        endpoint = self._endpoints.find(name)
        if endpoint is None or endpoint.status in ("Creating", "Failed", "Deleting"):
            raise ValidationError(f"Endpoint {name} of account {call.account} not found.")
        headers = {header: call.request.headers[header] for header in PASSED_ON if header in call.request.headers}
        if is_stream:  # whose Accept has a header of its own
            headers = {**headers, "accept": given.get("Accept", "*/*")}
        side = endpoint.side()
        if any(variant.model is None for variant in side.variants.values()):
            return self._of_component(endpoint, side, call, headers, is_stream=is_stream)
        if "InferenceComponentName" in given:
            raise ValidationError(
                "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy "
                "inference components. Please remove the header and try again."
            )
        variant = _variant(endpoint, side, given.get("TargetVariant"))
        target = _target(variant, call)

        def ask() -> Reply:
            try:
                return variant.invoke(target, given["Body"], headers, is_stream=is_stream)
            except Retired:  # between the choice and the call, its successor has come
                successor = _variant(endpoint, endpoint.side(), given.get("TargetVariant"))
                return successor.invoke(_target(successor, call), given["Body"], headers, is_stream=is_stream)

        return self._measured(call, variant, ask)

    def _of_component(
        self, endpoint: Endpoint, side: Side, call: Call, headers: Mapping[str, str], *, is_stream: bool
    ) -> Mapping[str, Any]:
        given = call.parameters
        component = given.get("InferenceComponentName")
        if component is None:
            raise ValidationError(
                "Inference Component Name header is required for endpoints to which you plan to deploy inference "
                "components. Please include Inference Component Name header or consider using SageMaker models."
            )
        if "TargetModel" in given:
            raise ValidationError(
                f"Endpoint {endpoint.name} is not a multi-model endpoint and does not support target model header."
            )
        if self.components is None:
            raise ValidationError(f"Inference Component {component} was not found")
        components, (variant,) = self.components, side.variants.values()
        return self._measured(
            call,
            variant,
            lambda: components.invoke(endpoint.name, component, given["Body"], headers, is_stream=is_stream),
        )

    def _measured(self, call: Call, variant: Variant, ask: Callable[[], Reply]) -> Mapping[str, Any]:
        """The answer, with what the call was worth to CloudWatch. Raises ServiceFault."""
        started_s = time.monotonic()
        status = 500
        model_us: float | None = None
        parts: Parts | None = None
        try:
            reply = ask()
            model_us = (time.monotonic() - started_s) * 1e6
            parts = reply.parts
            if reply.status != 200:
                raise ModelError(reply.status, reply.body.decode(errors="replace"))
            status = 200
        except ServiceFault as error:
            if isinstance(error, ModelError):
                _say_where_the_log_is(error, call)
            status = error.original if isinstance(error, ModelError) and error.original else error.status
            raise
        finally:
            if parts is None:
                self._put(variant, status, model_us, (time.monotonic() - started_s) * 1e6)
        told = {member: reply.headers[header] for header, member in PASSED_BACK.items() if header in reply.headers}
        body = reply.body if parts is None else self._passing(parts, variant, started_s)
        return {"Body": body, "InvokedProductionVariant": variant.name, **told}

    def _passing(self, parts: Parts, variant: Variant, started_s: float) -> Passing:
        """A stream's figures come with its first part and its end."""

        def put_whole() -> None:
            all_us = (time.monotonic() - started_s) * 1e6
            self._put(variant, 200, all_us, all_us)

        def put(name: str, value: float, unit: str) -> None:
            self._metrics.put(NAMESPACE, name, variant.dimensions, value, unit)

        parts.then(put_whole)
        return Passing(parts, put, started_s)

    def _put(self, variant: Variant, status: int, model_us: float | None, all_us: float) -> None:
        n_instances = max(1, len(variant.instances))
        values: list[tuple[str, float, str]] = [
            ("Invocations", 1, "None"),
            ("InvocationsPerInstance", 1 / n_instances, "None"),
            ("Invocation4XXErrors", int(400 <= status < 500), "None"),
            ("Invocation5XXErrors", int(status >= 500), "None"),
            ("InvocationModelErrors", int(model_us is not None and status != 200), "None"),
        ]
        if model_us is not None:
            values += [
                ("ModelLatency", model_us, "Microseconds"),
                ("OverheadLatency", all_us - model_us, "Microseconds"),
            ]
        both = variant.dimensions, {**variant.dimensions, "EndpointConfigName": variant.config_name}
        for name, value, unit in values:
            for dimensions in both:
                self._metrics.put(NAMESPACE, name, dimensions, value, unit)


def _say_where_the_log_is(error: ModelError, call: Call) -> None:
    group = f"/aws/sagemaker/Endpoints/{call.parameters['EndpointName']}"
    error.fields["LogStreamArn"] = f"arn:aws:logs:{call.region}:{call.account}:log-group:{group}"
    error.message += (
        f" See https://{call.region}.console.aws.amazon.com/cloudwatch/home?region={call.region}#logEventViewer:"
        f"group={group} in account {call.account} for more information."
    )


def _variant(endpoint: Endpoint, side: Side, wanted: str | None) -> Variant:
    if wanted is not None:
        found = side.variants.get(wanted)
        if found is None:
            raise ValidationError(f"Variant {wanted} not found for Endpoint {endpoint.name}")
        return found
    with_weight = [variant for variant in side.variants.values() if variant.weight > 0]
    if not with_weight:
        raise ServiceUnavailable(f"no variant of {endpoint.name} has a weight")
    return weighted(with_weight)


def _target(variant: Variant, call: Call) -> str | None:
    raw = call.parameters.get("TargetModel")
    if "TargetContainerHostname" in call.parameters:
        raise ValidationError(
            f"Endpoint {variant.endpoint} is not a multi-container endpoint and does not support target container "
            f"hostname header."
        )
    if not variant.is_multi:
        if raw is not None:
            raise ValidationError(
                f"Endpoint {variant.endpoint} is not a multi-model endpoint and does not support target model header."
            )
        return None
    if raw is None:
        raise ValidationError(
            f"Endpoint {variant.endpoint} is a multi-model endpoint and requires target model header."
        )
    try:
        return parse_target(as_sent(raw))
    except TargetInvalid as error:
        raise ValidationError(str(error)) from error
