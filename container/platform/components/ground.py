"""What components stand on: the variants of endpoints, and containers that really run.

Rule: a variant is looked up each time it is asked for, since an update of its endpoint puts another in its place.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from container.platform.components.component import CopySpec
from container.platform.components.components import Ground, NotYet
from container.platform.components.yard import Host
from container.platform.endpoints import sides
from container.platform.endpoints.artifacts import DataMissing, unpack
from container.platform.endpoints.containers import Running, Spec, StartFailed
from container.platform.endpoints.endpoints import Endpoints
from container.platform.endpoints.variants import Played, Surroundings, Variant
from container.platform.hosting.contract import Container, Reply
from container.platform.hosting.instance import SingleModel
from container.platform.instance_types import INSTANCE_TYPES
from container.platform.logs import Stream
from container.platform.ports import PortsUsedUp
from container.platform.service.faults import ServiceFault, ValidationException

LOG_GROUP = "/aws/sagemaker/InferenceComponents"  # SageMaker guide, logging-cloudwatch; the stream's name is ours


class Grounds:
    """Finds the variant that a component is to be on."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def find(self, endpoint_name: str, variant_name: str | None, arn: str) -> Ground:
        """Raises ValidationException: not there, not in service, not for components."""
        endpoint = self._endpoints.find(endpoint_name)
        if endpoint is None or endpoint.status == sides.DELETING:
            raise ValidationException(f'Could not find endpoint "{arn}".')
        if endpoint.status != sides.IN_SERVICE:
            raise NotYet(f'Endpoint "{arn}" is {endpoint.status}; it must be InService for a component.')
        variants = endpoint.blue.variants
        if variant_name is None and len(variants) == 1:
            (variant_name,) = variants
        if variant_name not in variants:
            raise ValidationException(f'The variant name "{variant_name}" is not present in endpoint "{arn}".')
        if variants[variant_name].model is not None:
            raise ValidationException(f'Endpoint "{arn}" has models of its own and cannot host inference components.')
        return Ground(variant_name, _OnEndpoint(self._endpoints, endpoint_name, variant_name))


class _OnEndpoint:
    """yard.Variant of one endpoint's."""

    def __init__(self, endpoints: Endpoints, endpoint: str, variant: str) -> None:
        self._endpoints = endpoints
        self._names = endpoint, variant

    @property
    def config(self) -> Mapping[str, Any]:
        return self._variant.config

    @property
    def is_serving(self) -> bool:
        endpoint = self._endpoints.find(self._names[0])
        return endpoint is not None and endpoint.status in (sides.IN_SERVICE, sides.UPDATING)

    def hosts(self) -> Sequence[Host]:
        return self._endpoints.instances(*self._names)

    def start_one(self) -> Host:
        return self._endpoints.start_instance(*self._names)

    def stop_one(self, host: Host) -> None:
        assert isinstance(host, Played)
        self._endpoints.stop_instance(*self._names, host)

    @property
    def _variant(self) -> Variant:
        found = self._endpoints.variant(*self._names)
        if found is None:
            raise ServiceFault(f"variant {self._names[1]} of {self._names[0]} is gone")
        return found


class _Copy:
    """One container."""

    def __init__(self, running: Running, model: SingleModel) -> None:
        self._running = running
        self._model = model

    @property
    def pid(self) -> int | None:
        return self._running.pid

    def invoke(self, body: bytes, headers: Mapping[str, str], *, is_stream: bool = False) -> Reply:
        return self._model.invoke(body, headers, is_stream=is_stream)

    def stop(self) -> None:
        self._running.stop()
        self._model.container.close()


class Starter:
    """Starts copies as processes, each with a directory of its own below the instance's."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    def start(self, runs: CopySpec, host: Host) -> _Copy:
        """Blocks until it is healthy. Raises StartFailed."""
        try:
            return self._started(runs, host)
        except (OSError, PortsUsedUp) as error:
            raise StartFailed(str(error)) from error

    def _started(self, runs: CopySpec, host: Host) -> _Copy:
        name = uuid.uuid4().hex[:8]
        root = self._around.root / host.id / f"{runs.component}-{name}"
        root.mkdir(parents=True)
        stream = Stream(self._around.logs(), f"{LOG_GROUP}/{runs.component}", f"{host.id}/{name}")
        model = self._model(runs, root)
        known = INSTANCE_TYPES.get(host.type) if isinstance(host, Played) else None
        spec = Spec(
            runs.image,
            runs.environment,
            is_multi=False,
            startup_s=runs.startup_s,
            model=model,
            memory_bytes=known.memory_bytes if known else None,  # a reservation is no limit
        )
        running = Running(self._around.ground, spec, root / "container.log", stream)
        try:
            running.start()
        except StartFailed as error:
            raise StartFailed(
                f"The container for inference component {runs.component} {error}. "
                f"Please check CloudWatch logs for this endpoint."
            ) from error
        return _Copy(running, SingleModel(f"{host.id}/{runs.component}", Container(running.url)))

    def _model(self, runs: CopySpec, root: Path) -> Path | None:
        if runs.artifact_url is None:
            return None
        ground, into = self._around.ground, root / "model"
        try:
            unpack(runs.artifact_url, into, ground.address, ground.region)
        except DataMissing as error:
            raise StartFailed(str(error)) from error
        return into
