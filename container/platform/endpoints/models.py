"""CreateModel and its siblings. A model is an image, where its data are, and an environment.

Rule: a model never changes; one that endpoints run may be deleted, and they go on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from container.platform.clock import Clock
from container.platform.rights import Rights
from container.platform.service.call import Call, Operation
from container.platform.service.faults import ValidationException
from container.platform.service.pages import listed
from container.platform.service.tags import Tags

MAX_ENVIRONMENT_BYTES = 32 * 1024  # of all keys and values together. Source: botocore, ContainerDefinition


class Models:
    """By name. `find` is for the other rooms."""

    def __init__(self, clock: Clock, tags: Tags, rights: Rights) -> None:
        self._clock = clock
        self._tags = tags
        self._rights = rights
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, Any]] = {}

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker", "CreateModel"): self._create,
            ("sagemaker", "DescribeModel"): self._describe,
            ("sagemaker", "ListModels"): self._list,
            ("sagemaker", "DeleteModel"): self._delete,
        }

    def find(self, name: str) -> Mapping[str, Any] | None:
        """As DescribeModel has it; None when there is none."""
        return self._models.get(name)

    def dump(self) -> Any:
        return self._models

    def restore(self, value: Any) -> None:
        self._models = value

    def _create(self, call: Call) -> Mapping[str, Any]:
        given = dict(call.parameters)
        _check(given)
        role, container = given.get("ExecutionRoleArn"), given["PrimaryContainer"]
        self._rights.check_role(role)
        if container.get("Mode") != "MultiModel" and "ModelDataUrl" in container:
            self._rights.check_data(role, container["ModelDataUrl"], call.region)
        tags = given.pop("Tags", [])
        arn = call.arn("model", given["ModelName"])
        if "PrimaryContainer" in given:
            given["PrimaryContainer"] = {"Mode": "SingleModel", **given["PrimaryContainer"]}
        record = {"EnableNetworkIsolation": False, **given, "ModelArn": arn, "CreationTime": self._clock.now()}
        with self._lock:
            if given["ModelName"] in self._models:
                raise ValidationException(f'Cannot create already existing model "{arn}".')
            self._tags.put(arn, tags)
            self._models[given["ModelName"]] = record
        return {"ModelArn": arn}

    def _describe(self, call: Call) -> Mapping[str, Any]:
        return self._found(call)

    def _list(self, call: Call) -> Mapping[str, Any]:
        models, token = listed(
            list(self._models.values()),
            call.parameters,
            lambda model: {"Name": model["ModelName"], "CreationTime": model["CreationTime"]},
        )
        shown = [{name: model[name] for name in ("ModelName", "ModelArn", "CreationTime")} for model in models]
        return {"Models": shown, "NextToken": token}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            record = self._found(call)
            del self._models[record["ModelName"]]
        self._tags.forget(record["ModelArn"])
        return {}

    def _found(self, call: Call) -> Mapping[str, Any]:
        name = call.parameters["ModelName"]
        record = self._models.get(name)
        if record is None:
            raise ValidationException(f'Could not find model "{call.arn("model", name)}".')
        return record


def _check(given: Mapping[str, Any]) -> None:
    kinds = [kind for kind in ("PrimaryContainer", "Containers") if given.get(kind)]
    if len(kinds) != 1:
        raise ValidationException("Exactly one of PrimaryContainer and Containers must be given")
    container = given["PrimaryContainer"]
    if not ("Image" in container or "ModelPackageName" in container or "InferenceSpecificationName" in container):
        raise ValidationException("A container needs an Image or a ModelPackageName")
    environment = container.get("Environment", {})
    n_bytes = sum(len(key.encode()) + len(value.encode()) for key, value in environment.items())
    if n_bytes > MAX_ENVIRONMENT_BYTES:
        raise ValidationException(f"The environment has {n_bytes} bytes, more than {MAX_ENVIRONMENT_BYTES}")
    is_multi = container.get("Mode") == "MultiModel"
    if is_multi and "ModelDataSource" in container:
        raise ValidationException("ModelDataSource is not supported for a container in MultiModel mode")
    if is_multi and "ModelDataUrl" not in container:
        raise ValidationException(
            "ModelDataUrl is required for a container in MultiModel mode: the prefix of its models"
        )
    if not is_multi and "MultiModelConfig" in container:
        raise ValidationException("MultiModelConfig is only supported for a container in MultiModel mode")
