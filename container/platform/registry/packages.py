"""CreateModelPackage and its siblings, with groups.

Rule: every change of a package is told with the fields that changed, as today's events have them.

Sources: botocore's model; SageMaker guide, automating-sagemaker-with-eventbridge, whose example lacks
UpdatedModelPackageFields; that field is told of by aws/CICD-for-SageMakerUnifiedStudio.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from container.platform.bus import Bus
from container.platform.clock import Clock
from container.platform.service.call import Call, Operation
from container.platform.service.faults import ConflictException, ValidationException
from container.platform.service.pages import listed
from container.platform.service.tags import Tags

DETAIL_TYPE = "SageMaker Model Package State Change"
PENDING = "PendingManualApproval"
MAX_METADATA = 50
ORDER = "Ascending"  # of a list that names none. Source: API reference, ListModelPackages
TOLD = (
    *("ModelPackageGroupName", "ModelPackageName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageDescription"),
    *("CreationTime", "InferenceSpecification", "ModelPackageStatus", "ModelPackageStatusDetails"),
    *("CertifyForMarketplace", "ModelApprovalStatus", "MetadataProperties", "ModelMetrics", "LastModifiedTime"),
)
SUMMARY = (
    *("ModelPackageName", "ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageDescription"),
    *("CreationTime", "ModelPackageStatus", "ModelApprovalStatus", "ModelLifeCycle", "ModelPackageRegistrationType"),
)
IN_BATCH = (
    *("ModelPackageGroupName", "ModelPackageVersion", "ModelPackageArn", "ModelPackageDescription", "CreationTime"),
    *("InferenceSpecification", "ModelPackageStatus", "ModelApprovalStatus", "ModelPackageRegistrationType"),
)


class Packages:
    """By ARN. `find` is for the other rooms."""

    def __init__(self, clock: Clock, bus: Bus, tags: Tags) -> None:
        self._clock = clock
        self._bus = bus
        self._tags = tags
        self._lock = threading.RLock()
        self._groups: dict[str, dict[str, Any]] = {}
        self._packages: dict[str, dict[str, Any]] = {}
        self._last_versions: dict[str, int] = {}
        self._tokens: dict[str, str] = {}

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker", "CreateModelPackageGroup"): self._create_group,
            ("sagemaker", "DescribeModelPackageGroup"): self._describe_group,
            ("sagemaker", "ListModelPackageGroups"): self._list_groups,
            ("sagemaker", "DeleteModelPackageGroup"): self._delete_group,
            ("sagemaker", "CreateModelPackage"): self._create,
            ("sagemaker", "DescribeModelPackage"): self._describe,
            ("sagemaker", "BatchDescribeModelPackage"): self._describe_batch,
            ("sagemaker", "UpdateModelPackage"): self._update,
            ("sagemaker", "ListModelPackages"): self._list,
            ("sagemaker", "DeleteModelPackage"): self._delete,
        }

    def find(self, name: str) -> Mapping[str, Any] | None:
        """As DescribeModelPackage has it, by ARN or, of one without a group, by name; None when there is none."""
        with self._lock:
            named = (one for one in self._packages.values() if one.get("ModelPackageName") == name)
            return self._packages.get(name) or next((one for one in named if "ModelPackageVersion" not in one), None)

    def dump(self) -> Any:
        with self._lock:
            return [self._groups, self._packages, self._last_versions, self._tokens]

    def restore(self, value: Any) -> None:
        self._groups, self._packages, self._last_versions, self._tokens = value

    # -- groups --------------------------------------------------------------------------------------------------------

    def _create_group(self, call: Call) -> Mapping[str, Any]:
        name = call.parameters["ModelPackageGroupName"]
        arn = call.arn("model-package-group", name)
        with self._lock:
            if name in self._groups:
                raise ValidationException(f"Model Package Group already exists: {arn}")
            self._tags.put(arn, call.parameters.get("Tags", ()))
            self._groups[name] = {
                **_without(call.parameters, "Tags"),
                "ModelPackageGroupArn": arn,
                "CreationTime": self._clock.now(),
                "CreatedBy": call.caller,
                "ModelPackageGroupStatus": "Completed",
            }
        return {"ModelPackageGroupArn": arn}

    def _describe_group(self, call: Call) -> Mapping[str, Any]:
        return self._group(call, call.parameters["ModelPackageGroupName"])

    def _list_groups(self, call: Call) -> Mapping[str, Any]:
        groups, token = listed(
            list(self._groups.values()),
            call.parameters,
            lambda one: {"Name": one["ModelPackageGroupName"], "CreationTime": one["CreationTime"]},
            order=ORDER,
        )
        return {
            "ModelPackageGroupSummaryList": [_without(one, "CreatedBy") for one in groups],
            "NextToken": token,
        }

    def _delete_group(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            group = self._group(call, call.parameters["ModelPackageGroupName"])
            name = group["ModelPackageGroupName"]
            if any(one.get("ModelPackageGroupName") == name for one in self._packages.values()):
                raise ConflictException("Model Package Group cannot be deleted, as it still contains model packages.")
            del self._groups[name]
            self._last_versions.pop(name, None)
            self._tags.forget(group["ModelPackageGroupArn"])
        return {}

    def _group(self, call: Call, name: str) -> Mapping[str, Any]:
        bare = name.rpartition("/")[2]
        known = next((one for key, one in self._groups.items() if key == bare or key.lower() == bare), None)
        if known is None:
            raise ValidationException(f"ModelPackageGroup {call.arn('model-package-group', bare)} does not exist.")
        return known

    # -- packages ------------------------------------------------------------------------------------------------------

    def _create(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        name, group = asked.get("ModelPackageName"), asked.get("ModelPackageGroupName")
        if name and group:
            raise ValidationException(
                "Both ModelPackageName and ModelPackageGroupName are provided in the input. Cannot determine which one to "
                "use."
            )
        if not name and not group:
            raise ValidationException("Missing ARN.")
        with self._lock:
            token = asked.get("ClientToken")
            if token in self._tokens:
                return {"ModelPackageArn": self._tokens[token]}
            package = self._numbered(call, group) if group else self._named(call, name or "")
            arn = package["ModelPackageArn"]
            self._packages[arn] = {
                **_without(asked, "Tags", "ClientToken", "ModelPackageGroupName", "ModelPackageName"),
                **package,
                "CertifyForMarketplace": asked.get("CertifyForMarketplace", False),
                "CreationTime": self._clock.now(),
                "CreatedBy": call.caller,
                "ModelPackageStatus": "Completed",
                "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            }
            self._tags.put(arn, asked.get("Tags", ()))
            if token:
                self._tokens[token] = arn
        self._tell(arn, ())
        return {"ModelPackageArn": arn}

    def _numbered(self, call: Call, group: str) -> dict[str, Any]:
        name = self._group(call, group)["ModelPackageGroupName"]
        version = self._last_versions[name] = self._last_versions.get(name, 0) + 1
        return {
            "ModelPackageName": name,
            "ModelPackageGroupName": name,
            "ModelPackageVersion": version,
            "ModelPackageArn": call.arn("model-package", f"{name}/{version}"),
            "ModelApprovalStatus": call.parameters.get("ModelApprovalStatus", PENDING),
        }

    def _named(self, call: Call, name: str) -> dict[str, Any]:
        arn = call.arn("model-package", name)
        if arn in self._packages:
            raise ValidationException(f"Model Package already exists: {arn}")
        return {"ModelPackageName": name, "ModelPackageArn": arn}

    def _describe(self, call: Call) -> Mapping[str, Any]:
        return self._found(call.parameters["ModelPackageName"])

    def _describe_batch(self, call: Call) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        missing: dict[str, Any] = {}
        for arn in call.parameters["ModelPackageArnList"]:
            package = self.find(arn)
            if package is None or "ModelPackageGroupName" not in package:
                missing[arn] = {"ErrorCode": "ValidationException", "ErrorResponse": _none(arn)}
            else:
                found[arn] = _only(package, IN_BATCH)
        return {"ModelPackageSummaries": found, "BatchDescribeModelPackageErrorMap": missing}

    def _update(self, call: Call) -> Mapping[str, Any]:
        asked = _without(call.parameters, "ModelPackageArn", "ClientToken")
        with self._lock:
            package = self._found(call.parameters["ModelPackageArn"])
            changed = {name: value for name, value in asked.items() if name in _REPLACED}
            metadata = {
                key: value
                for key, value in {
                    **package.get("CustomerMetadataProperties", {}),
                    **asked.get("CustomerMetadataProperties", {}),
                }.items()
                if key not in asked.get("CustomerMetadataPropertiesToRemove", ())
            }
            if len(metadata) > MAX_METADATA:
                raise ValidationException(f"A model package has at most {MAX_METADATA} metadata properties.")
            if metadata != package.get("CustomerMetadataProperties", {}):
                changed["CustomerMetadataProperties"] = metadata
            if more := asked.get("AdditionalInferenceSpecificationsToAdd"):
                changed["AdditionalInferenceSpecifications"] = [
                    *package.get("AdditionalInferenceSpecifications", []),
                    *more,
                ]
            arn = package["ModelPackageArn"]
            self._packages[arn] = {
                **package,
                **changed,
                "LastModifiedTime": self._clock.now(),
                "LastModifiedBy": call.caller,
            }
        self._tell(arn, changed)
        return {"ModelPackageArn": arn}

    def _list(self, call: Call) -> Mapping[str, Any]:
        asked = call.parameters
        group = asked.get("ModelPackageGroupName")
        kind = "Versioned" if group else asked.get("ModelPackageType", "Unversioned")
        name = self._group(call, group)["ModelPackageGroupName"] if group else None
        status = asked.get("ModelApprovalStatus")
        with self._lock:
            fits = [
                one
                for one in self._packages.values()
                if kind in ("Both", "Versioned" if "ModelPackageVersion" in one else "Unversioned")
                and name in (None, one.get("ModelPackageGroupName"))
                and status in (None, one.get("ModelApprovalStatus"))
            ]
        packages, token = listed(
            fits,
            asked,
            lambda one: {"Name": one["ModelPackageName"], "CreationTime": one["CreationTime"]},
            order=ORDER,
        )
        return {"ModelPackageSummaryList": [_only(one, SUMMARY) for one in packages], "NextToken": token}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        with self._lock:
            arn = self._found(call.parameters["ModelPackageName"])["ModelPackageArn"]
            del self._packages[arn]
            self._tags.forget(arn)
        return {}

    def _found(self, name: str) -> Mapping[str, Any]:
        package = self.find(name)
        if package is None:
            raise ValidationException(_none(name))
        return package

    def _tell(self, arn: str, changed: Iterable[str]) -> None:
        package = self._packages[arn]
        detail = {name: _told(value) for name, value in _only(package, TOLD).items()}
        if "ModelPackageVersion" in package:
            del detail["ModelPackageName"]
        fields = [name for name in changed if name in _TOLD_CHANGES]
        if fields:
            detail["UpdatedModelPackageFields"] = fields
        self._bus.send(DETAIL_TYPE, detail, [arn])


# What an update replaces, and what of it an event names.
_REPLACED = (
    *("ModelApprovalStatus", "ApprovalDescription", "InferenceSpecification", "SourceUri", "ModelCard"),
    *("ModelLifeCycle", "ModelPackageRegistrationType"),
)
_TOLD_CHANGES = (*_REPLACED, "CustomerMetadataProperties", "AdditionalInferenceSpecifications")


def _none(name: str) -> str:
    return f"ModelPackage {name} does not exist."


def _only(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _told(value: Any) -> Any:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value
