"""What the doctor knows besides `There`: figures, activities, logs and the role's rights.

Rule: read-only, and what may not be read is noted; a check of it then says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.file import ZERO, Wanted
from container.operate.deploy.look import look
from container.operate.deploy.names import VARIANT, Json
from container.operate.deploy.resources import MODEL_METRICS, NAMESPACE, scalable
from container.operate.deploy.there import There

IDLE_DAYS = 3
N_ACTIVITIES = 50


@dataclass(frozen=True, slots=True)
class Health:
    """None: it may not be read.

    calls       answered within IDLE_DAYS
    activities  of Application Auto Scaling, the newest first
    has_log     the log group is there
    role        documents of all policies of the execution role
    """

    there: There
    at: datetime
    calls: float | None = None
    activities: tuple[Json, ...] | None = None
    has_log: bool | None = None
    role: tuple[Json, ...] | None = None
    unread: tuple[str, ...] = ()


def examine(aws: Aws, wanted: Wanted, at: datetime | None = None) -> Health:
    """at: now, where AWS's clock is another than this machine's. Raises CommandFailed."""
    there = look(aws, wanted)
    at = at or datetime.now(UTC)
    reader = _Reader(aws, wanted)
    return Health(
        there=there,
        at=at,
        calls=reader.calls(at),
        activities=reader.activities(),
        has_log=reader.has_log(),
        role=reader.role(),
        unread=(*there.unread, *reader.unread),
    )


class _Reader:
    def __init__(self, aws: Aws, wanted: Wanted) -> None:
        self._aws, self._wanted = aws, wanted
        self.unread: list[str] = []

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        try:
            yield
        except AwsRefused as error:
            self.unread.append(f"{what}: {error}")

    def calls(self, at: datetime) -> float | None:
        dimensions = {"EndpointName": self._wanted.name, "VariantName": VARIANT}
        if self._wanted.kind == ZERO:
            dimensions = {"InferenceComponentName": self._wanted.name}
        with self._noting("calls"):
            answer = self._aws.call(
                "cloudwatch",
                "GetMetricStatistics",
                {
                    "Namespace": MODEL_METRICS,
                    "MetricName": "Invocations",
                    "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
                    "StartTime": at - timedelta(days=IDLE_DAYS),
                    "EndTime": at + timedelta(days=IDLE_DAYS),  # a played clock may be ahead of this one
                    "Period": 3600,
                    "Statistics": ["Sum"],
                },
            )
            return float(sum(point["Sum"] for point in answer.get("Datapoints", ())))
        return None

    def activities(self) -> tuple[Json, ...] | None:
        of = scalable(self._wanted.kind, self._wanted.name)
        arguments = {
            "ServiceNamespace": NAMESPACE,
            "ResourceId": of["ResourceId"],
            "ScalableDimension": of["ScalableDimension"],
            "MaxResults": N_ACTIVITIES,
            "IncludeNotScaledActivities": True,
        }
        with self._noting("scaling activities"):
            answer = self._aws.call("application-autoscaling", "DescribeScalingActivities", arguments)
            return tuple(answer.get("ScalingActivities", ()))
        return None

    def has_log(self) -> bool | None:
        name = log_group(self._wanted)
        with self._noting("log groups"):
            answer = self._aws.call("logs", "DescribeLogGroups", {"logGroupNamePrefix": name})
            return any(one["logGroupName"] == name for one in answer.get("logGroups", ()))
        return None

    def role(self) -> tuple[Json, ...] | None:
        name = {"RoleName": self._wanted.role.rsplit("/", 1)[-1]}
        found = []
        with self._noting("the role's policies"):
            for one in self._aws.call("iam", "ListRolePolicies", name).get("PolicyNames", ()):
                told = self._aws.call("iam", "GetRolePolicy", {**name, "PolicyName": one})
                found.append(_document(told["PolicyDocument"]))
            for attached in self._aws.call("iam", "ListAttachedRolePolicies", name).get("AttachedPolicies", ()):
                arn = {"PolicyArn": attached["PolicyArn"]}
                version = self._aws.call("iam", "GetPolicy", arn)["Policy"]["DefaultVersionId"]
                told = self._aws.call("iam", "GetPolicyVersion", {**arn, "VersionId": version})
                found.append(_document(told["PolicyVersion"]["Document"]))
            return tuple(found)
        return None


def log_group(wanted: Wanted) -> str:
    room = "InferenceComponents" if wanted.kind == ZERO else "Endpoints"
    return f"/aws/sagemaker/{room}/{wanted.name}"


def _document(told: object) -> Json:
    """boto3 reads it already; other servers' answers it leaves as text."""
    if isinstance(told, dict):
        return told
    read: Json = json.loads(str(told))
    return read
