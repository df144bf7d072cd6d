"""CreateEndpointConfig and its siblings. A config is a set of variants: which model, on how many instances of what type.

Rule: a config never changes. One in use may be deleted; the guide asks people not to, and the service lets them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from container.platform.clock import Clock
from container.platform.endpoints.models import Models
from container.platform.instance_types import INSTANCE_TYPES
from container.platform.service.call import Call, Operation
from container.platform.service.faults import NotPlayed, ValidationException
from container.platform.service.pages import listed
from container.platform.service.tags import Tags
from container.platform.traps import Traps

log = logging.getLogger("mme.platform")

SERVERLESS_MB = tuple(1024 * gib for gib in range(1, 7))  # Source: SageMaker guide, serverless-endpoints


class Configs:
    """By name. `find` is for the other rooms."""

    def __init__(self, clock: Clock, tags: Tags, models: Models, traps: Traps) -> None:
        self._clock = clock
        self._tags = tags
        self._models = models
        self._traps = traps
        self._lock = threading.Lock()
        self._configs: dict[str, dict[str, Any]] = {}

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker", "CreateEndpointConfig"): self._create,
            ("sagemaker", "DescribeEndpointConfig"): self._describe,
            ("sagemaker", "ListEndpointConfigs"): self._list,
            ("sagemaker", "DeleteEndpointConfig"): self._delete,
        }

    def find(self, name: str) -> Mapping[str, Any] | None:
        """As DescribeEndpointConfig has it; None when there is none."""
        return self._configs.get(name)

    def dump(self) -> Any:
        return self._configs

    def restore(self, value: Any) -> None:
        self._configs = value

    def _create(self, call: Call) -> Mapping[str, Any]:
        given = dict(call.parameters)
        tags = given.pop("Tags", [])
        arn = call.arn("endpoint-config", given["EndpointConfigName"])
        variants = given.get("ProductionVariants", [])
        names = [variant["VariantName"] for variant in variants]
        if len(set(names)) != len(names):
            raise ValidationException(f"Variant names must be unique, and these are not: {names}")
        given["ProductionVariants"] = [self._variant(call, variant) for variant in variants]
        record = {**given, "EndpointConfigArn": arn, "CreationTime": self._clock.now()}
        with self._lock:
            if given["EndpointConfigName"] in self._configs:
                raise ValidationException(f'Cannot create already existing endpoint configuration "{arn}".')
            self._tags.put(arn, tags)
            self._configs[given["EndpointConfigName"]] = record
        return {"EndpointConfigArn": arn}

    def _variant(self, call: Call, variant: Mapping[str, Any]) -> dict[str, Any]:
        model = variant.get("ModelName")
        managed = variant.get("ManagedInstanceScaling")
        if model is None:
            if "ExecutionRoleArn" not in call.parameters:
                raise ValidationException(
                    "ExecutionRoleArn is required for an endpoint configuration whose variants have no ModelName"
                )
        elif self._models.find(model) is None:
            raise ValidationException(f'Could not find model "{call.arn("model", model)}".')
        elif managed is not None:
            raise ValidationException("ManagedInstanceScaling is only supported for inference component endpoints.")
        if "ServerlessConfig" in variant:
            self._check_serverless(call, variant)
            return {"InitialVariantWeight": 1.0, **variant}
        if "InstanceType" not in variant:
            raise ValidationException(f"InstanceType is required for variant {variant['VariantName']}")
        if variant["InstanceType"] not in INSTANCE_TYPES:
            log.warning(
                "the memory of %s is not known here: its containers take what this machine has", variant["InstanceType"]
            )
        if managed is None and "InitialInstanceCount" not in variant:
            raise ValidationException(f"InitialInstanceCount is required for variant {variant['VariantName']}")
        if managed is not None and managed.get("ScaleInPolicy", {}).get("Strategy") == "CONSOLIDATION":
            raise NotPlayed("sagemaker", "CreateEndpointConfig with a ScaleInPolicy of CONSOLIDATION")
        if managed is not None and self._traps.is_on("zero-refused") and managed.get("MinInstanceCount") == 0:
            raise ValidationException(
                "Min instance count needs to be greater than 0 for enabled managed instance scaling"
            )
        return {"InitialVariantWeight": 1.0, **variant}

    def _check_serverless(self, call: Call, variant: Mapping[str, Any]) -> None:
        given = variant["ServerlessConfig"]
        model = self._models.find(variant.get("ModelName", ""))
        if model is None or "InstanceType" in variant or "InitialInstanceCount" in variant:
            raise ValidationException(
                "A serverless variant has a ModelName and neither instance type nor instance count"
            )
        if model["PrimaryContainer"].get("Mode") == "MultiModel":
            raise ValidationException("Serverless endpoints do not support containers in MultiModel mode")
        if len(call.parameters["ProductionVariants"]) > 1:
            raise ValidationException("A serverless endpoint has one production variant")
        if given["MemorySizeInMB"] not in SERVERLESS_MB:
            raise ValidationException(f"MemorySizeInMB must be one of {', '.join(map(str, SERVERLESS_MB))}")

    def _describe(self, call: Call) -> Mapping[str, Any]:
        return self._found(call)

    def _list(self, call: Call) -> Mapping[str, Any]:
        configs, token = listed(
            list(self._configs.values()),
            call.parameters,
            lambda config: {"Name": config["EndpointConfigName"], "CreationTime": config["CreationTime"]},
        )
        members = ("EndpointConfigName", "EndpointConfigArn", "CreationTime")
        return {"EndpointConfigs": [{name: config[name] for name in members} for config in configs], "NextToken": token}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            record = self._found(call)
            del self._configs[record["EndpointConfigName"]]
        self._tags.forget(record["EndpointConfigArn"])
        return {}

    def _found(self, call: Call) -> Mapping[str, Any]:
        name = call.parameters["EndpointConfigName"]
        record = self._configs.get(name)
        if record is None:
            raise ValidationException(f'Could not find endpoint configuration "{call.arn("endpoint-config", name)}".')
        return record
