"""IAM policies with least rights: of who deploys, of the execution role, and of callers.

Rule: a right is here because a call of `mme deploy`, of SageMaker for the container, or of a caller needs it, and names what
it is for as narrowly as the service can.

Source: SageMaker guide, sagemaker-roles, endpoint-auto-scaling-prerequisites, multi-model-endpoint-security (the condition
sagemaker:TargetModel); Service Authorization Reference.
"""

from __future__ import annotations

from container.operate.deploy.file import MULTI_MODEL, SERVERLESS, ZERO, Wanted
from container.operate.deploy.names import Json

VERSION = "2012-10-17"
SCALING_SERVICE = "sagemaker.application-autoscaling.amazonaws.com"
SERVICE_LINKED = f"aws-service-role/{SCALING_SERVICE}/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"


def bucket_of(models: str) -> tuple[str, str]:
    """Bucket and prefix of s3://bucket/prefix/."""
    bucket, _, prefix = models.removeprefix("s3://").partition("/")
    return bucket, prefix


def partition_of(role: str) -> str:
    return role.split(":")[1]


def execution_policy(wanted: Wanted) -> Json:
    """What the endpoint itself may do: read its models and its image, write its log and its figures."""
    bucket, prefix = bucket_of(wanted.models)
    at = f"arn:{partition_of(wanted.role)}"
    rooms = f"{at}:logs:*:*:log-group:/aws/sagemaker"
    return _document(
        _allow("ReadModels", ["s3:GetObject"], [f"{at}:s3:::{bucket}/{prefix}*"]),
        _allow(
            "ListModels",
            ["s3:ListBucket"],
            [f"{at}:s3:::{bucket}"],
            {"StringLike": {"s3:prefix": [f"{prefix}*"]}},
        ),
        *_warm_list(wanted, at),
        _allow("ReadImageToken", ["ecr:GetAuthorizationToken"], ["*"]),
        _allow("ReadImage", list(_PULL), [_repository(wanted)]),
        _allow(
            "WriteLog",
            ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"],
            [f"{rooms}/Endpoints/*", f"{rooms}/InferenceComponents/*"],
        ),
        _allow("WriteFigures", ["cloudwatch:PutMetricData"], ["*"]),
        # SageMaker looks at the alarms of a blue/green update as this role.
        _allow("WatchUpdates", ["cloudwatch:DescribeAlarms"], ["*"]),
    )


def _warm_list(wanted: Wanted, at: str) -> list[Json]:
    """The list lies beside the live prefix: container/worker/warm.py."""
    if wanted.kind == MULTI_MODEL or not wanted.warm_list:
        return []
    bucket, prefix = bucket_of(wanted.models)
    beside = f"{prefix.rstrip('/')}.warm/{wanted.name}/"
    return [
        _allow("KeepWarmList", ["s3:GetObject", "s3:PutObject"], [f"{at}:s3:::{bucket}/{beside}*"]),
        _allow(
            "ListWarmLists", ["s3:ListBucket"], [f"{at}:s3:::{bucket}"], {"StringLike": {"s3:prefix": [f"{beside}*"]}}
        ),
    ]


_PULL = ("ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage")


def trust_policy() -> Json:
    """Who may take the execution role: SageMaker."""
    return _document(
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    )


def deployer_policy(wanted: Wanted) -> Json:
    """What `mme deploy` needs for this file, and nothing of other deployments'."""
    name = wanted.name
    bucket, prefix = bucket_of(wanted.models)
    at = f"arn:{partition_of(wanted.role)}"
    of = f"{at}:sagemaker:*:*"
    own = [f"{of}:model/{name}-*", f"{of}:endpoint-config/{name}-*", f"{of}:endpoint/{name}"]
    actions = [f"sagemaker:{verb}{what}" for verb in ("Create", "Describe", "Delete") for what in _THINGS]
    actions += [
        "sagemaker:UpdateEndpoint",
        "sagemaker:UpdateEndpointWeightsAndCapacities",
        "sagemaker:AddTags",
        "sagemaker:ListTags",
        "sagemaker:InvokeEndpoint",
    ]
    listed = ["sagemaker:ListModels", "sagemaker:ListEndpointConfigs"]
    if wanted.kind == ZERO:
        own.append(f"{of}:inference-component/{name}")
        actions += [f"sagemaker:{verb}InferenceComponent" for verb in ("Create", "Describe", "Update", "Delete")]
        actions.append("sagemaker:UpdateInferenceComponentRuntimeConfig")
        listed.append("sagemaker:ListInferenceComponents")
    statements = [
        _allow("Own", actions, own),
        _allow("Look", listed, ["*"]),
        _allow(
            "HandOverRole",
            ["iam:PassRole"],
            [wanted.role],
            {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        ),
        _allow(
            "LookAtRole",
            ["iam:GetRole", "iam:ListRolePolicies", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies"],
            [wanted.role],
        ),
        _allow("LookAtItsPolicies", ["iam:GetPolicy", "iam:GetPolicyVersion"], [f"{at}:iam::*:policy/*"]),
        _allow(
            "Alarms",
            ["cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms", "cloudwatch:TagResource"],
            [f"{at}:cloudwatch:*:*:alarm:mme/{name}/*"],
        ),
        _allow("LookAtFigures", ["cloudwatch:DescribeAlarms", "cloudwatch:GetMetricStatistics"], ["*"]),
        _allow("LookAtLogs", ["logs:DescribeLogGroups"], ["*"]),
        _allow(
            "LookAtModels", ["s3:ListBucket"], [f"{at}:s3:::{bucket}"], {"StringLike": {"s3:prefix": [f"{prefix}*"]}}
        ),
    ]
    # Application Auto Scaling has no ARNs of SageMaker's things to name here. What is serverless now may have been scaled
    # before, so that is looked for and taken away.
    statements.append(_allow("Scale", [f"application-autoscaling:{call}" for call in _SCALING], ["*"]))
    if wanted.kind != SERVERLESS:
        statements.append(
            _allow(
                "ScaleForUs",
                ["iam:CreateServiceLinkedRole"],
                [f"{at}:iam::*:role/{SERVICE_LINKED}"],
                {"StringLike": {"iam:AWSServiceName": SCALING_SERVICE}},
            )
        )
    return _document(*statements)


_THINGS = ("Model", "EndpointConfig", "Endpoint")
_SCALING = (
    "RegisterScalableTarget",
    "DeregisterScalableTarget",
    "DescribeScalableTargets",
    "PutScalingPolicy",
    "DeleteScalingPolicy",
    "DescribeScalingPolicies",
    "PutScheduledAction",
    "DeleteScheduledAction",
    "DescribeScheduledActions",
    "DescribeScalingActivities",
)


def caller_policy(wanted: Wanted, targets: list[str] | None = None) -> Json:
    """Who may call the endpoint. targets: patterns such as eu/*; AWS knows the targets of multi-model endpoints alone."""
    at = f"arn:{partition_of(wanted.role)}:sagemaker:*:*"
    named = [f"{at}:endpoint/{wanted.name}"]
    if wanted.kind == ZERO:
        named.append(f"{at}:inference-component/{wanted.name}")
    condition = {"StringLike": {"sagemaker:TargetModel": targets}} if targets and wanted.kind == MULTI_MODEL else None
    return _document(_allow("Call", ["sagemaker:InvokeEndpoint"], named, condition))


def _repository(wanted: Wanted) -> str:
    """The ARN of the image's repository, where it is in ECR."""
    host, _, path = wanted.image.partition("/")
    parts = host.split(".")
    repository = path.partition("@")[0].rpartition(":")[0] or path.partition("@")[0]
    if len(parts) < 6 or parts[1:3] != ["dkr", "ecr"]:
        return "*"
    return f"arn:{partition_of(wanted.role)}:ecr:{parts[3]}:{parts[0]}:repository/{repository}"


def _document(*statements: Json) -> Json:
    return {"Version": VERSION, "Statement": list(statements)}


def _allow(id: str, actions: list[str], on: list[str], condition: Json | None = None) -> Json:
    made: Json = {"Sid": id, "Effect": "Allow", "Action": actions, "Resource": on}
    return made | ({"Condition": condition} if condition else {})
