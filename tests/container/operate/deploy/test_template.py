"""Templates and policies: CloudFormation's own linter is the judge, and IAM's rules as AWS writes them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cfnlint import api, decode

from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.file import KINDS
from container.operate.deploy.health import examine
from container.operate.deploy.policies import caller_policy, deployer_policy, execution_policy
from container.operate.deploy.resources import resources
from container.operate.deploy.rights import allows, matches, missing
from container.operate.deploy.template import template
from tests.container.operate.deploy.files import ROLE, nothing, wanted

TELL = "[alarms]\nlatency_ms = 100\ntell = ['arn:aws:sns:us-east-1:123456789012:ops']\n"
MORE = {"multi-model": TELL, "zero": TELL + "[zero]\ncopies = 2\nnights = '22-06'", "serverless": TELL}


def faults(made: dict[str, Any]) -> list[str]:
    """Every error, warning and remark."""
    text = json.dumps(made)
    _, errors = decode.decode_str(text)
    assert not errors
    return [str(one) for one in api.lint(text, regions=["us-east-1", "eu-central-1"])]


@pytest.mark.parametrize("kind", KINDS)
def test_cloudformations_linter_has_nothing_to_say(kind: str) -> None:
    # With a role of its own or the file's, with a mail or without: each once, for a look takes a second.
    assert (
        faults(
            template(wanted(kind, MORE[kind]), 1024, with_role=kind == "zero", mail="" if kind == "zero" else "a@b.c")
        )
        == []
    )


def test_the_linter_would_have_said_something() -> None:
    made = template(wanted(), 1024)
    made["Resources"]["Endpoint"]["Properties"]["EndpontName"] = "x"
    assert any("EndpontName" in one for one in faults(made))


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_has_all_that_an_apply_makes(kind: str) -> None:
    of = wanted(kind, MORE[kind])
    made, found = resources(of, 1024), template(of, 1024)["Resources"]
    types = [one["Type"] for one in found.values()]
    assert types.count("AWS::CloudWatch::Alarm") == len(made.alarms)
    assert types.count("AWS::ApplicationAutoScaling::ScalingPolicy") == len(made.policies)
    assert types.count("AWS::SageMaker::InferenceComponent") == (made.component is not None)
    assert {"AWS::SageMaker::Model", "AWS::SageMaker::EndpointConfig", "AWS::SageMaker::Endpoint", "AWS::IAM::Role",
            "AWS::Budgets::Budget"} <= set(types)  # fmt: skip
    if kind == "zero":
        assert found["WakeAlarm"]["Properties"]["AlarmActions"] == [{"Ref": "WakePolicy"}]
        assert len(found["Target"]["Properties"]["ScheduledActions"]) == 2


def test_an_execution_role_of_ours_lacks_nothing_and_one_without_a_right_lacks_that() -> None:
    needed = execution_policy(wanted())
    assert missing([needed], needed) == {}
    less = {**needed, "Statement": [one for one in needed["Statement"] if one["Sid"] != "WriteLog"]}
    lacking = missing([less], needed)
    assert list(lacking) == [
        "arn:aws:logs:*:*:log-group:/aws/sagemaker/Endpoints/*",
        "arn:aws:logs:*:*:log-group:/aws/sagemaker/InferenceComponents/*",
    ]
    assert all(actions[:2] == ["logs:CreateLogGroup", "logs:CreateLogStream"] for actions in lacking.values())
    assert missing([{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}], needed) == {}
    denied = {"Statement": [{"Effect": "Deny", "Action": "s3:Get*", "Resource": "arn:aws:s3:::acme/*"}]}
    assert missing([needed, denied], needed) == {"arn:aws:s3:::acme/prod/*": ["s3:GetObject"]}


@pytest.mark.parametrize(
    ("pattern", "text", "is_match"),
    [
        ("s3:Get*", "s3:GetObject", True), ("s3:*", "ecr:x", False), ("*", "", True), ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("arn:aws:s3:::acme/*", "arn:aws:s3:::acme/prod/x", True), ("a*b*c", "a1b2b3c", True), ("a*b", "a*bc", False),
        ("*" * 50 + "x", "y" * 5000, False),
    ],
)  # fmt: skip
def test_iams_wildcards(pattern: str, text: str, is_match: bool) -> None:
    assert matches(pattern, text) is is_match


def test_a_caller_may_call_what_it_is_given_and_a_deployer_its_own_alone() -> None:
    caller = caller_policy(wanted(), ["eu/*"])
    assert caller["Statement"][0]["Condition"] == {"StringLike": {"sagemaker:TargetModel": ["eu/*"]}}
    deployer = [deployer_policy(wanted())]
    at = "arn:aws:sagemaker:us-east-1:123456789012"
    assert allows(deployer, "sagemaker:UpdateEndpoint", f"{at}:endpoint/prices")
    assert not allows(deployer, "sagemaker:UpdateEndpoint", f"{at}:endpoint/theirs")
    assert allows(deployer, "iam:PassRole", ROLE)
    assert not allows(deployer, "iam:PassRole", "arn:aws:iam::123456789012:role/admin")


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployer_may_make_every_call_that_a_plan_has(kind: str) -> None:
    from container.operate.deploy.plan import plan

    of = wanted(kind, MORE[kind])
    granted = {action.lower() for one in deployer_policy(of)["Statement"] for action in one["Action"]}
    for step in plan(of, nothing(of)).steps:
        assert f"{step.service}:{step.operation}".lower() in granted


@pytest.mark.parametrize("kind", KINDS)
def test_a_deployer_may_look_at_all_that_is_looked_at(kind: str) -> None:
    asked: list[str] = []

    class Account(Aws):
        """Empty but for the role."""

        def call(self, service: str, operation: str, arguments: Any = None) -> Any:
            asked.append(f"{service}:{'ListBucket' if operation == 'ListObjectsV2' else operation}".lower())
            if operation.startswith("Describe") and service == "sagemaker":
                raise AwsRefused(operation, "ValidationException", "Could not find it", 400)
            return {
                "ListRolePolicies": {"PolicyNames": ["own"]},
                "GetRolePolicy": {"PolicyDocument": {}},
                "ListAttachedRolePolicies": {"AttachedPolicies": [{"PolicyArn": "arn:theirs"}]},
                "GetPolicy": {"Policy": {"DefaultVersionId": "v1"}},
                "GetPolicyVersion": {"PolicyVersion": {"Document": {}}},
            }.get(operation, {})

    of = wanted(kind, MORE[kind])
    examine(Account(client=lambda _: SimpleNamespace(meta=SimpleNamespace(region_name="us-east-1"))), of)
    granted = {action.lower() for one in deployer_policy(of)["Statement"] for action in one["Action"]}
    assert "iam:getpolicyversion" in asked
    assert set(asked) <= granted


def test_policies_are_small_enough_for_a_role(tmp_path: Path) -> None:
    for kind in KINDS:  # source: IAM's quotas, 6,144 characters of a managed policy, 10,240 of a role's own
        for made in (deployer_policy(wanted(kind)), execution_policy(wanted(kind))):
            assert len(json.dumps(made, separators=(",", ":"))) < 6144
