"""SageMaker's Model Registry: a release is one package of a group, pending until a person approves it there.

Rule: the package's archive is the manifest, on our own shelf, so its address says which release of which place it is. No
other field is leaned on: they may be changed, and the registry is not where models are.

Source: CreateModelPackage in botocore's model; a package has no Mode, and its ModelDataUrl is one .tar.gz.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from container.operate.artifacts.archive import pack
from container.operate.documents import read_as
from container.operate.release.manifest import ID, Manifest
from container.operate.release.place import Place
from container.operate.release.trouble import aws_told
from container.operate.troubles import Misused
from handler.errors import ArtifactChanged, ArtifactMissing
from handler.stores.writing import NOTHING

PACKAGES = "packages/"
REGISTERED = "registry/"
PENDING, APPROVED, REJECTED = "PendingManualApproval", "Approved", "Rejected"


@dataclass(frozen=True, slots=True)
class Package:
    """One version of a group. status: as it is now, whatever an event said. approved_by: empty when AWS does not tell."""

    arn: str
    group: str
    version: int
    status: str
    release: str
    approved_by: str
    description: str


@dataclass(frozen=True, slots=True)
class _Registered:
    arn: str


class Registry:
    """The packages of one place. client: boto3's for sagemaker."""

    def __init__(self, client: Any, place: Place) -> None:
        if not place.is_s3:
            raise Misused("a release in the Model Registry lies in S3, and this one in a directory")
        self._client = client
        self._place = place

    def register(self, manifest: Manifest, group: str, image: str | None) -> str:
        """The ARN of the release's package in that group, made if there is none. Raises NotNow, Refused."""
        noted = f"{REGISTERED}{group}/{manifest.id}.json"
        with suppress(ArtifactMissing):
            fetched = self._place.shelf.fetch(noted)
            return read_as(_Registered, fetched.data, fetched.uri).arn
        packed = f"{PACKAGES}{manifest.id}.tar.gz"
        self._place.shelf.put(packed, pack({"release.json": manifest.to_json()}), NOTHING)
        container = {"ModelDataUrl": self._place.shelf.uri(packed)} | ({"Image": image} if image else {})
        with aws_told():
            self._make_group(group)
            answer = self._client.create_model_package(
                ModelPackageGroupName=group,
                ModelPackageDescription=_description(manifest),
                ModelApprovalStatus=PENDING,
                InferenceSpecification={
                    "Containers": [container],
                    "SupportedContentTypes": ["text/csv"],
                    "SupportedResponseMIMETypes": ["text/csv"],
                },
                CustomerMetadataProperties={
                    "mme.release": manifest.id,
                    "mme.live": self._place.location,
                    "mme.segments": str(len(manifest.segments)),
                    "mme.refused": str(len(manifest.refused)),
                },
                ClientToken=manifest.id,  # made twice, because the answer was lost, it is the same package
            )
        arn: str = answer["ModelPackageArn"]
        with suppress(ArtifactChanged):
            self._place.shelf.put(noted, json.dumps({"arn": arn}).encode(), NOTHING)
        return arn

    def package(self, arn: str) -> Package | None:
        """As it is now; None when it is no release of this place. Raises NotNow, Refused."""
        with aws_told():
            told = self._client.describe_model_package(ModelPackageName=arn)
        release = _release_in(told, self._place.shelf.uri(PACKAGES))
        if release is None:
            return None
        by = told.get("LastModifiedBy") or {}
        return Package(
            arn,
            told.get("ModelPackageGroupName", ""),
            int(told.get("ModelPackageVersion", 0)),
            told.get("ModelApprovalStatus", ""),
            release,
            (by.get("IamIdentity") or {}).get("Arn") or by.get("UserProfileArn") or "",
            told.get("ApprovalDescription") or "",
        )

    def _make_group(self, group: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client.create_model_package_group(
                ModelPackageGroupName=group,
                ModelPackageGroupDescription=f"Releases of all models at {self._place.location}",
            )
        except ClientError as error:
            if "already exist" not in str(error).lower():
                raise


def _release_in(told: dict[str, Any], packages: str) -> str | None:
    for container in (told.get("InferenceSpecification") or {}).get("Containers") or ():
        url = container.get("ModelDataUrl") or ""
        if url.startswith(packages):
            id = url[len(packages) :].removesuffix(".tar.gz")
            if ID.fullmatch(id):
                return id
    return None


def _description(manifest: Manifest) -> str:
    said = f"{len(manifest.segments)} segments, {len(manifest.refused)} refused; {manifest.note}".rstrip("; ")
    return said[:1024]
