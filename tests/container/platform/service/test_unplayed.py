"""What an operation may be asked for and does not do here is refused by name, and every path in the table is one of AWS's."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.model import ListShape, Shape, StringShape, StructureShape

from container.platform.service.descriptions import OURS, operation_model
from container.platform.service.faults import NotPlayed
from container.platform.service.unplayed import UNPLAYED, refuse_unplayed


@pytest.mark.parametrize(("operation", "path"), [(name, path) for name, paths in UNPLAYED.items() for path in paths])
def test_a_path_of_the_table_is_one_of_the_services(operation: str, path: str) -> None:
    (model,) = (found for service in OURS if (found := operation_model(service, operation)) is not None)
    names, _, value = path.partition("=")
    shape: Shape | None = model.input_shape
    for name in names.split("."):
        while isinstance(shape, ListShape):
            shape = shape.member
        assert isinstance(shape, StructureShape)
        shape = shape.members[name]
    if value:
        assert isinstance(shape, StringShape)
        assert value in shape.enum


@pytest.mark.parametrize(
    ("operation", "asked", "path"),
    [
        (
            "CreateEndpointConfig",
            {"ProductionVariants": [{}, {"InstancePools": [{"InstanceType": "ml.m5.large"}]}]},
            "ProductionVariants.InstancePools",
        ),
        ("CreateEndpointConfig", {"DataCaptureConfig": {"EnableCapture": True}}, "DataCaptureConfig.EnableCapture"),
        (
            "ListModelPackageGroups",
            {"CrossAccountFilterOption": "CrossAccount"},
            "CrossAccountFilterOption=CrossAccount",
        ),
        ("ListTrainingJobs", {"WarmPoolStatusEquals": "InUse"}, "WarmPoolStatusEquals"),
    ],
)
def test_what_would_change_nothing_is_refused(operation: str, asked: dict[str, Any], path: str) -> None:
    with pytest.raises(NotPlayed, match=f"{operation} with {path}"):
        refuse_unplayed("sagemaker", operation, asked)


@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        (
            "CreateEndpointConfig",
            {"DataCaptureConfig": {"EnableCapture": False}, "ProductionVariants": [{"VariantName": "a"}]},
        ),
        ("ListModelPackageGroups", {"CrossAccountFilterOption": "SameAccount"}),
        ("DescribeModel", {"ModelName": "a"}),
    ],
)
def test_what_is_as_it_is_without_being_asked_for_is_not(operation: str, asked: dict[str, Any]) -> None:
    refuse_unplayed("sagemaker", operation, asked)
