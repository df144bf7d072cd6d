"""botocore's descriptions of the services that are ours, each read once, and which of them a request is for."""

from __future__ import annotations

from functools import cache

from botocore.loaders import create_loader
from botocore.model import OperationModel, ServiceModel

OURS = ("sagemaker", "sagemaker-runtime", "application-autoscaling")
RUNTIME = "sagemaker-runtime"


@cache
def service_model(service: str) -> ServiceModel:
    return ServiceModel(create_loader().load_service_model(service, "service-2"), service)


@cache
def _prefixes() -> dict[str, str]:
    """X-Amz-Target's first word -> the service."""
    found = {service_model(service).metadata.get("targetPrefix"): service for service in OURS}
    return {prefix: service for prefix, service in found.items() if prefix}


def targeted(target: str) -> tuple[str, str] | None:
    """`SageMaker.CreateModel` -> (sagemaker, CreateModel); None when it is of no service of ours."""
    prefix, _, operation = target.rpartition(".")
    service = _prefixes().get(prefix)
    return (service, operation) if service else None


@cache
def operation_model(service: str, operation: str) -> OperationModel | None:
    model = service_model(service)
    return model.operation_model(operation) if operation in model.operation_names else None


def routed(method: str, path: str) -> tuple[OperationModel, dict[str, str]] | None:
    """The runtime's operation at a path, and what the path says."""
    parts = path.strip("/").split("/")
    for name in service_model(RUNTIME).operation_names:
        model = operation_model(RUNTIME, name)
        assert model is not None
        template = model.http["requestUri"].strip("/").split("/")
        if model.http["method"] == method and len(template) == len(parts):
            pairs = list(zip(template, parts, strict=True))
            if all(wanted == got or wanted.startswith("{") for wanted, got in pairs):
                return model, {wanted[1:-1]: got for wanted, got in pairs if wanted.startswith("{")}
    return None
