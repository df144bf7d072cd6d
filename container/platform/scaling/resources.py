"""What can be scaled: a variant's instances, a component's copies, found by the words that Application Auto Scaling uses.

Rule: this file knows how they are called and what may be asked of them; what they are is endpoints' and components'.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from container.platform.service.faults import ServiceFault, ValidationException

NAMESPACE = "sagemaker"
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_VARIANT = re.compile(rf"endpoint/({_NAME})/variant/({_NAME})", re.ASCII)
_COMPONENT = re.compile(rf"inference-component/({_NAME})", re.ASCII)


class Resource(Protocol):
    """One thing with a count that can be set."""

    def desired(self) -> int: ...

    def is_settled(self) -> bool:
        """Whether it is as many as desired, and nothing is under way."""

    def trouble(self) -> str | None:
        """Why what was desired will not come. None while it may."""

    def set_desired(self, n: int) -> None:
        """Raises ServiceFault when it cannot be asked for now."""


@dataclass(frozen=True)
class Kind:
    """noun   as it stands in an activity's description
    metrics   predefined metric type -> (CloudWatch's name of it, statistic, period in seconds)
    """

    dimension: str
    pattern: re.Pattern[str]
    noun: str
    least: int
    metrics: dict[str, tuple[str, str, int]]
    dimension_names: tuple[str, ...]


VARIANT = Kind(
    "sagemaker:variant:DesiredInstanceCount",
    _VARIANT,
    "instance count",
    1,
    {
        "SageMakerVariantInvocationsPerInstance": ("InvocationsPerInstance", "Sum", 60),
        "SageMakerVariantConcurrentRequestsPerModelHighResolution": ("ConcurrentRequestsPerModel", "Maximum", 10),
    },
    ("EndpointName", "VariantName"),
)
COMPONENT = Kind(
    "sagemaker:inference-component:DesiredCopyCount",
    _COMPONENT,
    "copy count",
    0,
    {
        "SageMakerInferenceComponentInvocationsPerCopy": ("InvocationsPerCopy", "Sum", 60),
        "SageMakerInferenceComponentConcurrentRequestsPerCopyHighResolution": (
            "ConcurrentRequestsPerCopy",
            "Maximum",
            10,
        ),
    },
    ("InferenceComponentName",),
)
KINDS = {kind.dimension: kind for kind in (VARIANT, COMPONENT)}


@dataclass(frozen=True)
class Address:
    """Which resource: what a caller names it by, and its parts."""

    resource_id: str
    dimension: str

    @property
    def kind(self) -> Kind:
        return KINDS[self.dimension]

    @property
    def names(self) -> tuple[str, ...]:
        found = self.kind.pattern.fullmatch(self.resource_id)
        assert found is not None
        return found.groups()

    @property
    def dimensions(self) -> dict[str, str]:
        """Of its CloudWatch metrics."""
        return dict(zip(self.kind.dimension_names, self.names, strict=True))


# What is at an address now; None when nothing is.
Finder = Callable[[Address], Resource | None]


def address(parameters: Any) -> Address:
    """Of a request. Raises ValidationException, NotImplemented for what is of another service."""
    namespace, dimension = parameters["ServiceNamespace"], parameters["ScalableDimension"]
    if namespace != NAMESPACE or dimension not in KINDS:
        what = dimension if namespace == NAMESPACE else namespace
        raise ServiceFault(
            f"mme platform scales variants and inference components of SageMaker, not {what}", "NotImplemented", 501
        )
    resource_id = parameters["ResourceId"]
    if not KINDS[dimension].pattern.fullmatch(resource_id):
        raise ValidationException(f"Unsupported service namespace, resource type or scalable dimension: {resource_id}")
    return Address(resource_id, dimension)
