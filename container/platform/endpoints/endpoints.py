"""CreateEndpoint and its siblings, and what the other rooms ask of endpoints.

Rule: one thing at a time happens to an endpoint; while it does, another is refused as the real service refuses it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from container.platform.bus import Bus
from container.platform.clock import Clock, Timer
from container.platform.endpoints import sides
from container.platform.endpoints.configs import Configs
from container.platform.endpoints.deployments import Alarms, Deployments
from container.platform.endpoints.describing import described, event_detail
from container.platform.endpoints.models import Models
from container.platform.endpoints.policies import ROLLING, Policy, check, policy_of
from container.platform.endpoints.sides import Endpoint, Side
from container.platform.endpoints.variants import InstanceNews, Played, Surroundings, Variant
from container.platform.service.call import Call, Operation
from container.platform.service.faults import NotPlayed, ValidationException
from container.platform.service.pages import listed
from container.platform.service.tags import Tags
from container.platform.stories import Story

log = logging.getLogger("mme.platform")

MINUTE_S = 60.0


class Endpoints:
    """By name.

    is_scaled   whether a variant is registered with Application Auto Scaling; set by the room that knows
    on_news     called when an instance begins or ends to cost money
    on_gone     called with an endpoint that has been deleted
    """

    def __init__(
        self,
        clock: Clock,
        tags: Tags,
        models: Models,
        configs: Configs,
        around: Surroundings,
        bus: Bus,
        alarms: Alarms,
    ) -> None:
        self._clock = clock
        self._tags = tags
        self._models = models
        self._configs = configs
        self._around = around
        self._bus = bus
        self._lock = threading.RLock()
        self._endpoints: dict[str, Endpoint] = {}
        self._minute: Timer | None = None
        self.deployments = Deployments(clock, around.executor, alarms, self._tell)
        self.is_scaled: Callable[[str, str], bool] = lambda _endpoint, _variant: False
        self.on_news: list[Callable[[InstanceNews], None]] = []
        self.on_gone: list[Callable[[Endpoint], object]] = []

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker", "CreateEndpoint"): self._create,
            ("sagemaker", "UpdateEndpoint"): self._update,
            ("sagemaker", "UpdateEndpointWeightsAndCapacities"): self._scale,
            ("sagemaker", "DescribeEndpoint"): self._describe,
            ("sagemaker", "ListEndpoints"): self._list,
            ("sagemaker", "DeleteEndpoint"): self._delete,
        }

    # -- for the other rooms -------------------------------------------------------------------------------------------

    def find(self, name: str) -> Endpoint | None:
        return self._endpoints.get(name)

    def all(self) -> list[Endpoint]:
        return list(self._endpoints.values())

    def variant(self, endpoint: str, variant: str) -> Variant | None:
        """The one that serves, not the one that a deployment brings."""
        found = self._endpoints.get(endpoint)
        return found.blue.variants.get(variant) if found else None

    def instances(self, endpoint: str, variant: str) -> list[Played]:
        found = self.variant(endpoint, variant)
        return list(found.instances) if found else []

    def start_instance(self, endpoint: str, variant: str) -> Played:
        """One more, at once and whatever the endpoint's status. Blocks. Raises StartFailed, KeyError."""
        found = self._endpoints[endpoint].blue.variants[variant]
        found.desired += 1
        try:
            return found.start_one()
        except BaseException:
            found.desired -= 1
            raise

    def stop_instance(self, endpoint: str, variant: str, instance: Played | None = None) -> None:
        """That one, else the youngest. Blocks."""
        found = self._endpoints[endpoint].blue.variants[variant]
        found.desired = max(0, found.desired - 1)
        found.stop_one(instance)

    def set_desired(self, endpoint: str, variant: str, n: int) -> bool:
        """What autoscaling asks for. False when the endpoint is busy: it is blocked during an update."""
        with self._lock:
            found = self._endpoints.get(endpoint)
            if found is None or variant not in found.blue.variants or found.status != sides.IN_SERVICE:
                return False
            found.status = sides.UPDATING
            found.story = Story(self._clock, self.deployments.scale(found, {variant: n}, {}))
            return True

    def begin_minutes(self) -> None:
        """Write once a minute what CloudWatch has once a minute."""
        self._minute = self._clock.call_later(MINUTE_S, self._each_minute)

    def close(self) -> None:
        """Every container has ended."""
        if self._minute is not None:
            self._minute.cancel()
        variants = [one for endpoint in self.all() for side in endpoint.sides() for one in side.variants.values()]
        for end in [self._around.executor.submit(variant.close) for variant in variants]:
            end.result()

    def dump(self) -> Any:
        """Those that serve, as they are without what is under way: that is lost, as a rollback would have it."""
        return [
            {
                "name": one.name, "arn": one.arn, "created_at": one.created_at, "modified_at": one.modified_at,
                "status": one.status, "failure": one.failure, "deployment_config": one.deployment_config,
                "config_name": one.blue.config_name,
                "variants": [
                    {
                        "config": variant.config, "model": variant.model,
                        "weight": variant.weight, "desired": variant.desired,
                    }
                    for variant in one.blue.variants.values()
                ],
            }
            for one in self.all()
            if one.status != sides.DELETING
        ]  # fmt: skip

    def restore(self, value: Any) -> None:
        """Containers are started anew; until they are there, an endpoint is SystemUpdating."""
        for one in value:
            side = Side(one["config_name"], {})
            for kept in one["variants"]:
                variant = Variant(
                    one["name"], one["config_name"], kept["config"], kept["model"], self._around, self._news
                )
                variant.weight = variant.desired_weight = kept["weight"]
                variant.desired = kept["desired"]
                side.variants[variant.name] = variant
            endpoint = Endpoint(
                one["name"], one["arn"], one["created_at"], one["modified_at"], side,
                failure=one["failure"], deployment_config=one["deployment_config"], status=one["status"],
            )  # fmt: skip
            self._endpoints[endpoint.name] = endpoint
            if endpoint.status != sides.FAILED:
                endpoint.status = sides.CREATING if one["status"] == sides.CREATING else sides.SYSTEM_UPDATING
                endpoint.story = Story(self._clock, self.deployments.create(endpoint))

    # -- operations ----------------------------------------------------------------------------------------------------

    def _create(self, call: Call) -> Mapping[str, Any]:
        given = call.parameters
        name, arn = given["EndpointName"], call.arn("endpoint", given["EndpointName"])
        policy_of(given.get("DeploymentConfig"))  # refused now, used by an update that retains it
        with self._lock:
            if any(known.lower() == name.lower() for known in self._endpoints):
                raise ValidationException(f'Cannot create already existing endpoint "{arn}".')
            now = self._clock.now()
            side = self._side(call, name, given["EndpointConfigName"])
            endpoint = Endpoint(name, arn, now, now, side, deployment_config=given.get("DeploymentConfig"))
            self._tags.put(arn, given.get("Tags", ()))
            self._endpoints[name] = endpoint
            self._tell(endpoint)
            if not self._around.traps.is_on("creating-forever"):
                endpoint.story = Story(self._clock, self.deployments.create(endpoint))
        return {"EndpointArn": arn}

    def _update(self, call: Call) -> Mapping[str, Any]:
        given = call.parameters
        with self._lock:
            endpoint = self._idle(call)
            green = self._side(call, endpoint.name, given["EndpointConfigName"])
            config, policy = self._policy(given, endpoint)
            self._refuse_update(endpoint, green, config)
            if given.get("RetainAllVariantProperties"):
                _retain(given, endpoint, green)
            is_serverless = any(variant.serverless for variant in green.variants.values())
            if policy.kind == ROLLING and (len(green.variants) > 1 or is_serverless):
                log.warning("%s is not for rolling: it is updated all at once and without a bake", endpoint.name)
                policy = Policy()
            sized = {name: variant.desired for name, variant in green.variants.items() if not variant.serverless}
            check(policy, sized)
            for name in policy.alarms:
                if self.deployments.alarms.state(name) is None:
                    raise ValidationException(f"Could not find the alarm {name} of AutoRollbackConfiguration")
            endpoint.deployment_config = config
            endpoint.status = sides.UPDATING
            endpoint.story = Story(self._clock, self.deployments.update(endpoint, green, policy))
        return {"EndpointArn": endpoint.arn}

    def _scale(self, call: Call) -> Mapping[str, Any]:
        wanted = call.parameters["DesiredWeightsAndCapacities"]
        with self._lock:
            endpoint = self._idle(call)
            names = [one["VariantName"] for one in wanted]
            unknown = [name for name in names if name not in endpoint.blue.variants]
            if unknown:
                raise ValidationException(
                    f'The variant name(s) "{", ".join(unknown)}" is/are not present within endpoint configuration '
                    f'"{endpoint.blue.config_name}".'
                )
            counts, weights = {}, {}
            for one in wanted:
                variant = endpoint.blue.variants[one["VariantName"]]
                if names.count(variant.name) > 1:
                    raise ValidationException(f'The variant name "{variant.name}" was non-unique within the request.')
                if "ServerlessUpdateConfig" in one or variant.serverless:
                    raise NotPlayed("sagemaker", "UpdateEndpointWeightsAndCapacities of a serverless variant")
                if "DesiredInstanceCount" in one:
                    counts[variant.name] = one["DesiredInstanceCount"]
                if "DesiredWeight" in one:
                    weights[variant.name] = one["DesiredWeight"]
            least = 0 if any(variant.model is None for variant in endpoint.blue.variants.values()) else 1
            if any(count < least for count in counts.values()):
                raise ValidationException("DesiredInstanceCount must be 1 or more")
            endpoint.status = sides.UPDATING
            endpoint.story = Story(self._clock, self.deployments.scale(endpoint, counts, weights))
        return {"EndpointArn": endpoint.arn}

    def _describe(self, call: Call) -> Mapping[str, Any]:
        return described(self._found(call))

    def _list(self, call: Call) -> Mapping[str, Any]:
        found, token = listed(
            self.all(),
            call.parameters,
            lambda one: {
                "Name": one.name,
                "Status": one.status,
                "CreationTime": one.created_at,
                "LastModifiedTime": one.modified_at,
            },
        )
        shown = [
            {
                "EndpointName": one.name,
                "EndpointArn": one.arn,
                "CreationTime": one.created_at,
                "LastModifiedTime": one.modified_at,
                "EndpointStatus": one.status,
            }
            for one in found
        ]
        return {"Endpoints": shown, "NextToken": token}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            endpoint = self._found(call)
            if endpoint.is_in_progress:
                raise ValidationException(f'Cannot update in-progress endpoint "{endpoint.arn}".')
            endpoint.status = sides.DELETING
            endpoint.story = Story(self._clock, self.deployments.delete(endpoint, lambda: self._forget(endpoint)))
        return {}

    # -- refusals ------------------------------------------------------------------------------------------------------

    def _found(self, call: Call) -> Endpoint:
        name = call.parameters["EndpointName"]
        endpoint = self._endpoints.get(name)
        if endpoint is None:
            raise ValidationException(f'Could not find endpoint "{call.arn("endpoint", name)}".')
        return endpoint

    def _idle(self, call: Call) -> Endpoint:
        endpoint = self._found(call)
        if endpoint.is_in_progress:
            raise ValidationException(f'Cannot update in-progress endpoint "{endpoint.arn}".')
        if endpoint.status == sides.FAILED:
            raise ValidationException(f'Cannot update failed endpoint "{endpoint.arn}": it can only be deleted.')
        return endpoint

    def _refuse_update(self, endpoint: Endpoint, green: Side, config: Mapping[str, Any] | None) -> None:
        blue = endpoint.blue
        if config is not None and green.variants.keys() != blue.variants.keys():
            raise ValidationException(
                f"The variant names of {green.config_name} ({', '.join(green.variants)}) must be those of "
                f"{blue.config_name} ({', '.join(blue.variants)})"
            )
        for name, variant in green.variants.items():
            old = blue.variants.get(name)
            if old is None or old.config.get("InstanceType") == variant.config.get("InstanceType"):
                continue
            if self.is_scaled(endpoint.name, name):
                raise ValidationException(
                    f"Cannot change the instance type of variant {name}: it is registered with Application Auto Scaling. "
                    f"Deregister it as a scalable target, update, and register it again."
                )

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _side(self, call: Call, endpoint: str, config_name: str) -> Side:
        config = self._configs.find(config_name)
        if config is None:
            raise ValidationException(
                f'Could not find endpoint configuration "{call.arn("endpoint-config", config_name)}".'
            )
        return Side(config_name, {
            one["VariantName"]: self._variant(call, endpoint, config_name, one) for one in config["ProductionVariants"]
        })  # fmt: skip

    def _variant(self, call: Call, endpoint: str, config_name: str, config: Mapping[str, Any]) -> Variant:
        model = None
        if "ModelName" in config:
            model = self._models.find(config["ModelName"])
            if model is None:
                raise ValidationException(f'Could not find model "{call.arn("model", config["ModelName"])}".')
        return Variant(endpoint, config_name, config, model, self._around, self._news)

    def _policy(self, given: Mapping[str, Any], endpoint: Endpoint) -> tuple[Mapping[str, Any] | None, Policy]:
        config = given.get("DeploymentConfig")
        if config is None and given.get("RetainDeploymentConfig"):
            config = endpoint.deployment_config
        return config, policy_of(config)

    def _forget(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._endpoints.pop(endpoint.name, None)
        self._tags.forget(endpoint.arn)
        for hear in self.on_gone:
            hear(endpoint)

    def _news(self, news: InstanceNews) -> None:
        for hear in self.on_news:
            hear(news)

    def _tell(self, endpoint: Endpoint) -> None:
        """Both events: of the endpoint's status, and of what its deployment does."""
        detail = event_detail(endpoint, self._tags.of(endpoint.arn))
        is_note = bool(endpoint.notes or (endpoint.pending and endpoint.pending.notes))
        kind = "SageMaker Endpoint Deployment State Change" if is_note else "SageMaker Endpoint State Change"
        self._bus.send(kind, detail, [endpoint.arn])

    def _each_minute(self) -> None:
        for endpoint in self.all():
            for side in endpoint.sides():
                for variant in side.variants.values():
                    variant.each_minute()
        self.begin_minutes()


def _retain(given: Mapping[str, Any], endpoint: Endpoint, green: Side) -> None:
    """RetainAllVariantProperties: counts and weights as they are now, but for those that are excluded."""
    excluded = {one["VariantPropertyType"] for one in given.get("ExcludeRetainedVariantProperties", ())}
    for name, variant in green.variants.items():
        old = endpoint.blue.variants.get(name)
        if old is None:
            continue
        if "DesiredInstanceCount" not in excluded:
            variant.desired = old.desired
        if "DesiredWeight" not in excluded:
            variant.weight = variant.desired_weight = old.desired_weight
