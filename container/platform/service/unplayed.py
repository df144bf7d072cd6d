"""What an operation that is played may be asked for and does not do here, as it says.

Rule: what changes something at AWS and would change nothing here is refused by name. What only the inside of AWS knows of
(networks, keys, agents on instances) is taken and told again, and README.md says so.

A path names a member, below lists too; with `=` only that value of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from container.platform.service.faults import NotPlayed

_VARIANT = (
    *("InstancePools", "AcceleratorType", "CapacityReservationConfig", "RoutingConfig.RoutingStrategy=PREFIX_AWARE"),
    "ServerlessConfig.ProvisionedConcurrency",
)
_VERSION = ("PipelineVersionId", "PipelineVersionAlias")
UNPLAYED: Mapping[str, tuple[str, ...]] = {
    "CreateEndpointConfig": (
        *("ShadowProductionVariants", "AsyncInferenceConfig", "ExplainerConfig", "CrossRegionTrafficConfig"),
        *("DataCaptureConfig.EnableCapture", "MetricsConfig.EnableEnhancedMetrics"),
        *(f"ProductionVariants.{name}" for name in _VARIANT),
    ),
    "CreateModel": (
        *("Containers", "PrimaryContainer.AdditionalModelDataSources", "PrimaryContainer.ModelPackageName"),
        *(
            f"PrimaryContainer.ModelDataSource.S3DataSource.{one}"
            for one in ("S3DataType=S3Prefix", "CompressionType=None")
        ),
    ),
    "CreateTrainingJob": (
        *("MlflowConfig", "ModelPackageConfig", "SessionChainingConfig", "ServerlessJobConfig"),
        *("ResourceConfig.KeepAlivePeriodInSeconds", "ResourceConfig.InstancePlacementConfig"),
        *("InputDataConfig.ShuffleConfig", "StoppingCondition.MaxPendingTimeInSeconds"),
    ),
    "ListTrainingJobs": ("WarmPoolStatusEquals", "TrainingPlanArnEquals"),
    "DescribeModelPackage": ("IncludedData=MetadataOnly",),
    "ListModelPackageGroups": ("CrossAccountFilterOption=CrossAccount",),
    "CreatePipeline": ("PipelineVersionAliases",),
    "DescribePipeline": _VERSION,
    "ListPipelines": ("ManagedBy",),
    "ListPipelineExecutions": ("PipelineVersionAlias",),
    "StartPipelineExecution": (*_VERSION, "SelectiveExecutionConfig", "MlflowExperimentName"),
    "RetryPipelineExecution": ("ParallelismConfiguration",),
    "UpdatePipelineExecution": ("ParallelismConfiguration",),
    "InvokeEndpoint": ("EnableExplanations",),
}


def refuse_unplayed(service: str, operation: str, parameters: Mapping[str, Any]) -> None:
    """Raises NotPlayed."""
    for path in UNPLAYED.get(operation, ()):
        name, _, value = path.partition("=")
        if any(one == value if value else one for one in _at(parameters, name.split("."))):
            raise NotPlayed(service, f"{operation} with {path}")


def _at(found: Any, names: list[str]) -> Iterator[Any]:
    """What is there, in every item of a list."""
    if isinstance(found, list):
        for one in found:
            yield from _at(one, names)
    elif not names:
        yield found
    elif isinstance(found, Mapping) and names[0] in found:
        yield from _at(found[names[0]], names[1:])
