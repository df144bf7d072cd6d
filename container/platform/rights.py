"""--trap role-missing-rights: the execution role held against what SageMaker needs of it.

Rule: without the trap every role does, for a laptop has none. Conditions of a statement are not looked at: a statement with
one counts as if it held. Policies are read from moto's IAM, where CreateRole and PutRolePolicy put them.

Source of the words: what CreateModel and DescribeEndpoint say, as quoted in public issues; of what is needed: SageMaker
guide, sagemaker-roles.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from container.platform.service.faults import ValidationException
from container.platform.service.moto import Moto

PRINCIPAL = "sagemaker.amazonaws.com"
# For an image of ECR; what is missing first is what the endpoint's FailureReason names.
ECR_ACTIONS = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")


class Rights:
    """Any thread may ask. Where `is_on` is false, everything is allowed."""

    def __init__(self, moto: Moto, *, is_on: bool) -> None:
        self._moto = moto
        self.is_on = is_on

    def check_role(self, arn: str | None) -> None:
        """Whether SageMaker can be it. Raises ValidationException."""
        if not self.is_on:
            return
        role = self._role(arn)
        if role is None or not _trusts(json.loads(role.assume_role_policy_document or "{}")):
            raise ValidationException(
                f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
                f"'{PRINCIPAL}' to assume the role."
            )

    def check_data(self, arn: str | None, url: str, region: str) -> None:
        """Whether it may read a single model's data. Raises ValidationException."""
        if not self.may(arn, "s3:GetObject", _object(url)):
            raise ValidationException(
                f'Could not access model data at {url}. Please ensure that the role "{arn}" exists and that its trust '
                f'relationship policy allows the action "sts:AssumeRole" for the service principal "{PRINCIPAL}". Also '
                f'ensure that the role has "s3:GetObject" permissions and that the object is located in {region}.'
            )

    def image_fault(self, arn: str | None, image: str) -> str | None:
        """Why an image of ECR cannot be fetched, as a FailureReason."""
        if ".dkr.ecr." not in image:
            return None
        for action in ECR_ACTIONS:
            if not self.may(arn, f"ecr:{action}", _repository(image)):
                return f'The role "{arn}" does not have {action} permission for the image: "{image}".'
        return None

    def may(self, arn: str | None, action: str, resource: str) -> bool:
        """Whether its policies allow it: a denial wins."""
        if not self.is_on:
            return True
        role = self._role(arn)
        if role is None:
            return False
        effects = {
            statement.get("Effect")
            for policy in _policies(role)
            for statement in _listed(policy.get("Statement"))
            if _fits(statement, "Action", action) and _fits(statement, "Resource", resource)
        }
        return "Allow" in effects and "Deny" not in effects

    def _role(self, arn: str | None) -> Any:
        roles = self._moto.backend("iam", "aws").roles.values()
        return next((role for role in roles if role.arn == arn), None)


def _policies(role: Any) -> Iterator[Mapping[str, Any]]:
    for text in role.policies.values():
        yield json.loads(text) if isinstance(text, str) else text
    for policy in role.managed_policies.values():
        version = next(one for one in policy.versions if one.version_id == policy.default_version_id)
        yield json.loads(version.document) if isinstance(version.document, str) else version.document


def _trusts(document: Mapping[str, Any]) -> bool:
    return any(
        statement.get("Effect") == "Allow"
        and PRINCIPAL in _listed((statement.get("Principal") or {}).get("Service"))
        and _fits(statement, "Action", "sts:AssumeRole")
        for statement in _listed(document.get("Statement"))
        if isinstance(statement.get("Principal"), dict)
    )


def _fits(statement: Mapping[str, Any], member: str, wanted: str) -> bool:
    """IAM's wildcards; an action's letters may be of either case."""
    lower = str.lower if member == "Action" else str
    return any(
        fnmatchcase(lower(wanted), lower(pattern.replace("[", "[[]"))) for pattern in _listed(statement.get(member))
    )


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _repository(image: str) -> str:
    """Its ARN, of which policies of least rights name one. ACCOUNT.dkr.ecr.REGION.amazonaws.com/NAME:TAG or @DIGEST."""
    host, _, path = image.partition("/")
    account, _, _, region = host.split(".")[:4]
    name = path.partition("@")[0]
    return f"arn:aws:ecr:{region}:{account}:repository/{name.rpartition(':')[0] or name}"


def _object(url: str) -> str:
    return f"arn:aws:s3:::{url.removeprefix('s3://')}"
