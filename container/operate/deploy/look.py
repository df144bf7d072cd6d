"""The account looked at: everything about one deployment, as `There`.

Rule: nothing is changed. What may not be read of what only a check needs is noted as unread; what a plan needs is an error.
"""

from __future__ import annotations

from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.file import ZERO, Wanted
from container.operate.deploy.names import Json, alarm_prefix, is_named
from container.operate.deploy.policies import bucket_of
from container.operate.deploy.reservation import Models
from container.operate.deploy.resources import NAMESPACE, scalable
from container.operate.deploy.there import There

MODELS_COUNTED = 20_000  # objects below the prefix; more of them change no reservation


def look(aws: Aws, wanted: Wanted) -> There:
    """Raises CommandFailed."""
    return _Looker(aws, wanted).look()


class _Looker:
    def __init__(self, aws: Aws, wanted: Wanted) -> None:
        self._aws, self._wanted = aws, wanted
        self._name = wanted.name
        self._unread: list[str] = []

    def look(self) -> There:
        endpoint = self._described("DescribeEndpoint", {"EndpointName": self._name})
        configs = self._configs()
        config = None
        if endpoint is not None:
            name = endpoint["EndpointConfigName"]
            config = configs.get(name) or self._described("DescribeEndpointConfig", {"EndpointConfigName": name})
        scaled = {
            key: value for key, value in scalable(self._wanted.kind, self._name).items() if key != "ServiceNamespace"
        }
        return There(
            name=self._name,
            region=self._aws.region,
            endpoint=endpoint,
            endpoint_tags={} if endpoint is None else self._tags(endpoint["EndpointArn"]),
            config=config,
            configs=configs,
            models=self._models(),
            components=self._components(),
            target=self._target(scaled),
            policies={
                one["PolicyName"]: one for one in self._scaling("DescribeScalingPolicies", "ScalingPolicies", scaled)
            },
            scheduled={
                one["ScheduledActionName"]: one
                for one in self._scaling("DescribeScheduledActions", "ScheduledActions", scaled)
            },
            alarms=self._alarms(),
            role_exists=self._role_exists(),
            models_below=self._models_below() if self._wanted.kind == ZERO else None,
            unread=tuple(self._unread),
        )

    def _described(self, operation: str, arguments: Json) -> Json | None:
        try:
            return self._aws.call("sagemaker", operation, arguments)
        except AwsRefused as error:
            if error.is_absent:
                return None
            raise

    def _tags(self, arn: str) -> dict[str, str]:
        return {
            one["Key"]: one["Value"] for one in self._aws.pages("sagemaker", "ListTags", "Tags", {"ResourceArn": arn})
        }

    def _configs(self) -> dict[str, Json]:
        arguments = {"NameContains": self._name, "SortBy": "CreationTime", "SortOrder": "Descending"}
        found = {}
        for one in self._aws.pages("sagemaker", "ListEndpointConfigs", "EndpointConfigs", arguments):
            name = one["EndpointConfigName"]
            if is_named(self._name, name):
                told = self._described("DescribeEndpointConfig", {"EndpointConfigName": name})
                if told is not None:
                    found[name] = told
        return found

    def _models(self) -> dict[str, Json]:
        arguments = {"NameContains": self._name, "SortBy": "CreationTime", "SortOrder": "Descending"}
        return {
            one["ModelName"]: one
            for one in self._aws.pages("sagemaker", "ListModels", "Models", arguments)
            if is_named(self._name, one["ModelName"])
        }

    def _components(self) -> tuple[Json, ...]:
        if self._wanted.kind != ZERO:
            return ()
        names = [
            one["InferenceComponentName"]
            for one in self._aws.pages(
                "sagemaker", "ListInferenceComponents", "InferenceComponents", {"EndpointNameEquals": self._name}
            )
        ]
        # Our own by its name, too: an endpoint that is gone lists nothing, and its components' names stay taken.
        found = [
            self._described("DescribeInferenceComponent", {"InferenceComponentName": name})
            for name in dict.fromkeys([*names, self._name])
        ]
        return tuple(one for one in found if one is not None)

    def _target(self, scaled: Json) -> Json | None:
        arguments = {
            "ServiceNamespace": NAMESPACE,
            "ResourceIds": [scaled["ResourceId"]],
            "ScalableDimension": scaled["ScalableDimension"],
        }
        found = list(
            self._aws.pages("application-autoscaling", "DescribeScalableTargets", "ScalableTargets", arguments)
        )
        return found[0] if found else None

    def _scaling(self, operation: str, key: str, scaled: Json) -> list[Json]:
        arguments = {"ServiceNamespace": NAMESPACE, **scaled}
        return list(self._aws.pages("application-autoscaling", operation, key, arguments))

    def _alarms(self) -> dict[str, Json]:
        arguments = {"AlarmNamePrefix": alarm_prefix(self._name), "AlarmTypes": ["MetricAlarm"]}
        return {
            one["AlarmName"]: one for one in self._aws.pages("cloudwatch", "DescribeAlarms", "MetricAlarms", arguments)
        }

    def _role_exists(self) -> bool | None:
        try:
            self._aws.call("iam", "GetRole", {"RoleName": self._wanted.role.rsplit("/", 1)[-1]})
        except AwsRefused as error:
            if error.is_absent:
                return False
            self._unread.append(f"role: {error}")
            return None
        return True

    def _models_below(self) -> Models | None:
        bucket, prefix = bucket_of(self._wanted.models)
        n = n_bytes = 0
        token: Json = {}
        try:
            while n < MODELS_COUNTED:
                answer = self._aws.call("s3", "ListObjectsV2", {"Bucket": bucket, "Prefix": prefix, **token})
                sizes = [one["Size"] for one in answer.get("Contents", ())]
                n, n_bytes = n + len(sizes), n_bytes + sum(sizes)
                if not answer.get("IsTruncated"):
                    break
                token = {"ContinuationToken": answer["NextContinuationToken"]}
        except AwsRefused as error:
            self._unread.append(f"models: {error}")
            return None
        return Models(n, n_bytes)
