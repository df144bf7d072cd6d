"""What DescribeEndpoint and the events say of an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from container.platform.endpoints.sides import Endpoint, Side, VariantNote
from container.platform.endpoints.variants import Variant

# Events spell a status otherwise. Source: SageMaker guide, automating-sagemaker-with-eventbridge
EVENT_STATUS = {
    "InService": "IN_SERVICE",
    "OutOfService": "OUT_OF_SERVICE",
    "SystemUpdating": "SYSTEM_UPDATING",
    "RollingBack": "ROLLING_BACK",
    "UpdateRollbackFailed": "UPDATE_ROLLBACK_FAILED",
}


def described(endpoint: Endpoint) -> dict[str, Any]:
    """As DescribeEndpoint answers."""
    has_variants = endpoint.status != "Failed" or endpoint.blue.n_instances > 0
    return {
        "EndpointName": endpoint.name,
        "EndpointArn": endpoint.arn,
        "EndpointConfigName": endpoint.blue.config_name,
        "ProductionVariants": _variants(endpoint.blue, endpoint.notes) if has_variants else None,
        "EndpointStatus": endpoint.status,
        "FailureReason": endpoint.failure,
        "CreationTime": endpoint.created_at,
        "LastModifiedTime": endpoint.modified_at,
        "LastDeploymentConfig": endpoint.deployment_config,
        "PendingDeploymentSummary": _pending(endpoint),
    }


def event_detail(endpoint: Endpoint, tags: list[dict[str, str]]) -> dict[str, Any]:
    """The detail of both endpoint events: times are milliseconds, and a status is in capitals."""
    told = {
        name: value
        for name, value in described(endpoint).items()
        if value is not None and name not in ("LastDeploymentConfig", "PendingDeploymentSummary")
    }
    told["EndpointStatus"] = EVENT_STATUS.get(endpoint.status, endpoint.status.upper())
    told["Tags"] = {tag["Key"]: tag["Value"] for tag in tags}
    pending = _pending(endpoint)
    if pending is not None:
        told["PendingDeploymentSummary"] = pending
    plain = _plain(told)
    assert isinstance(plain, dict)
    return plain


def _variants(side: Side, notes: Mapping[str, VariantNote]) -> list[dict[str, Any]]:
    return [_variant(variant, notes.get(variant.name)) for variant in side.variants.values()]


def _variant(variant: Variant, note: VariantNote | None) -> dict[str, Any]:
    serverless = variant.config.get("ServerlessConfig")
    image = variant.container.get("Image")
    deployed = {"SpecifiedImage": image, "ResolvedImage": image} if image else None
    return {
        "VariantName": variant.name,
        "DeployedImages": [deployed] if deployed else None,
        "CurrentWeight": variant.weight,
        "DesiredWeight": variant.desired_weight,
        "CurrentInstanceCount": None if serverless else len(variant.instances),
        "DesiredInstanceCount": None if serverless else variant.desired,
        "CurrentServerlessConfig": serverless,
        "DesiredServerlessConfig": serverless,
        "ManagedInstanceScaling": variant.config.get("ManagedInstanceScaling"),
        "RoutingConfig": variant.config.get("RoutingConfig"),
        "VariantStatus": [note.told()] if note else None,
    }


def _pending(endpoint: Endpoint) -> dict[str, Any] | None:
    if endpoint.pending is None or endpoint.green is None:
        return None
    variants = [
        {
            **_variant(variant, endpoint.pending.notes.get(variant.name)),
            "InstanceType": variant.config.get("InstanceType"),
        }
        for variant in endpoint.green.variants.values()
    ]
    return {
        "EndpointConfigName": endpoint.green.config_name,
        "ProductionVariants": variants,
        "StartTime": endpoint.pending.started_at,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
