"""CPU, memory and disk of what runs, as CloudWatch has them once a minute.

Rule: a figure is what the processes really took of this machine, held against the instance that they stand for; of a type
that is in no table there is none for memory.

Source: SageMaker guide, monitoring-cloudwatch (names, dimensions, ranges), serverless-endpoints-monitoring.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from container.platform.components.component import Component
from container.platform.components.components import Components
from container.platform.endpoints.endpoints import Endpoints
from container.platform.endpoints.variants import GIB, Played, Variant
from container.platform.hosting.disk import DISK_BYTES
from container.platform.hosting.instance import Instance
from container.platform.instance_types import INSTANCE_TYPES
from container.platform.jobs.room import Jobs
from container.platform.metrics import Metrics
from container.platform.usage import Machine, Use

ENDPOINTS, COMPONENTS = "/aws/sagemaker/Endpoints", "/aws/sagemaker/InferenceComponents"
MIB = 1 << 20
PERCENT = "Percent"


@dataclass(frozen=True, slots=True)
class Figure:
    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    value: float


class Utilisation:
    """publish: to be called on each beat."""

    def __init__(
        self,
        metrics: Metrics,
        endpoints: Endpoints,
        components: Components,
        jobs: Jobs,
        machine: Machine | None = None,
    ) -> None:
        self._metrics = metrics
        self._endpoints = endpoints
        self._components = components
        self._jobs = jobs
        self._machine = machine or Machine()

    def publish(self, at: datetime) -> None:
        """Of the minute before `at`."""
        if int(at.timestamp()) % 60:
            return
        instances = [
            (variant, instance)
            for endpoint in self._endpoints.all()
            for side in endpoint.sides()
            for variant in side.variants.values()
            for instance in list(variant.instances)
        ]
        copies = [
            (component, copy.instance_id, copy.served.pid)
            for component in self._components.all()
            for copy in component.ready
            if copy.served is not None and copy.served.pid is not None
        ]
        hosts = self._jobs.hosts()
        pids = [instance.running.pid for _, instance in instances if instance.running is not None]
        uses = self._machine.use(
            [pid for pid in (*pids, *(pid for *_, pid in copies), *(one.pid for one in hosts)) if pid is not None]
        )
        last = at - timedelta(seconds=1)
        for variant, instance in instances:
            on_it = [(one, uses[pid]) for one, id, pid in copies if id == instance.id and pid in uses]
            self._put(self._of_instance(variant, instance, uses, on_it), last)
        for component, _, pid in copies:
            if pid in uses:
                self._put(_of_copy(component, uses[pid], self._vcpus_of(component)), last)
        for one in hosts:
            if one.pid in uses:
                where = (("Host", one.name),)
                figures = _plain(one.namespace, where, uses[one.pid], one.instance_type)
                self._put(figures, last)
                if one.disk_bytes:
                    share = self._share(one.folder, one.disk_bytes)
                    self._put([Figure(one.namespace, "DiskUtilization", where, share)], last)

    def _put(self, figures: Iterator[Figure] | list[Figure], at: datetime) -> None:
        for one in figures:
            self._metrics.put(one.namespace, one.name, dict(one.dimensions), one.value, PERCENT, at)

    def _of_instance(
        self, variant: Variant, instance: Played, uses: dict[int, Use], copies: list[tuple[Component, Use]]
    ) -> Iterator[Figure]:
        where = tuple(variant.dimensions.items())
        if instance.running is not None:
            use = uses.get(instance.running.pid or 0)
        else:
            use = Use(sum(one.cores for _, one in copies), sum(one.memory_bytes for _, one in copies))
        if use is None:
            return
        if variant.serverless is not None:
            memory_bytes = int(variant.config["ServerlessConfig"]["MemorySizeInMB"]) * MIB
            yield Figure(ENDPOINTS, "MemoryUtilization", where, 100 * use.memory_bytes / memory_bytes)
            return
        yield from _plain(ENDPOINTS, where, use, instance.type)
        yield Figure(ENDPOINTS, "DiskUtilization", where, self._disk_share(variant, instance))
        known = INSTANCE_TYPES.get(instance.type)
        if known is not None and variant.model is None and copies:
            needs = [component.need for component, _ in copies]
            reserved_bytes = sum(need.memory_mib for need in needs) * MIB
            yield Figure(ENDPOINTS, "CPUUtilizationNormalized", where, 100 * use.cores / known.vcpus)
            yield Figure(ENDPOINTS, "CPUReservation", where, 100 * sum(need.cores for need in needs) / known.vcpus)
            yield Figure(ENDPOINTS, "MemoryReservation", where, 100 * reserved_bytes / known.memory_bytes)

    def _disk_share(self, variant: Variant, instance: Played) -> float:
        if isinstance(instance.serving, Instance):  # which counts what it downloads
            return 100 * instance.serving.disk_share
        disk_bytes = variant.config.get("VolumeSizeInGB", 0) * GIB or DISK_BYTES
        return self._share(variant.around.root / instance.id, disk_bytes)

    def _share(self, folder: Path, disk_bytes: int) -> float:
        return 100 * self._machine.folder_bytes(folder) / disk_bytes

    def _vcpus_of(self, component: Component) -> float | None:
        """Of the instances that it is on: its limit where it reserves nothing."""
        variant = self._endpoints.variant(component.endpoint, component.variant)
        known = INSTANCE_TYPES.get(variant.config.get("InstanceType", "")) if variant else None
        return float(known.vcpus) if known else None


def _plain(namespace: str, where: tuple[tuple[str, str], ...], use: Use, instance_type: str) -> Iterator[Figure]:
    yield Figure(namespace, "CPUUtilization", where, 100 * use.cores)
    known = INSTANCE_TYPES.get(instance_type)
    if known is not None:
        yield Figure(namespace, "MemoryUtilization", where, 100 * use.memory_bytes / known.memory_bytes)


def _of_copy(component: Component, use: Use, vcpus: float | None) -> Iterator[Figure]:
    """Over what it reserves."""
    where = tuple(component.dimensions.items())
    cores = component.need.cores or vcpus
    if cores:
        yield Figure(COMPONENTS, "CPUUtilizationNormalized", where, 100 * use.cores / cores)
    memory_bytes = component.need.memory_mib * MIB
    if memory_bytes:
        yield Figure(COMPONENTS, "MemoryUtilizationNormalized", where, 100 * use.memory_bytes / memory_bytes)
