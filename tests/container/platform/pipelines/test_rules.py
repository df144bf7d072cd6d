"""A rule of EventBridge starts a pipeline, and each of a rule's targets gets an event whatever the others are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.container.platform.jobs.conftest import ROLE, until
from tests.container.platform.pipelines.conftest import Lines
from tests.rig.platform import client

LAMBDA = "arn:aws:lambda:us-east-1:123456789012:function:f"


class Rule:
    """One that hears of every object that comes to the account's bucket."""

    def __init__(self, account: Lines, **target: Any) -> None:
        self.account = account
        self.events, self.sqs = (client(account.platform.url, one) for one in ("events", "sqs"))
        account.s3.put_bucket_notification_configuration(
            Bucket=account.bucket, NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        self.pipeline = account.pipeline(Parameters=[{"Name": "Key", "Type": "String", "DefaultValue": "none"}])
        arn = account.sagemaker.describe_pipeline(PipelineName=self.pipeline)["PipelineArn"]
        self.name = account.name("rule")
        self.queue = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        told = self.sqs.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["QueueArn"])["Attributes"]
        pattern = {
            "source": ["aws.s3"],
            "detail-type": ["Object Created"],
            "detail": {"bucket": {"name": [account.bucket]}},
        }
        self.events.put_rule(Name=self.name, EventPattern=json.dumps(pattern))
        targets = [
            {"Id": "unplayed", "Arn": LAMBDA},
            {"Id": "pipeline", "Arn": arn, "RoleArn": ROLE, **target},
            {"Id": "queue", "Arn": told["QueueArn"]},
        ]
        self.events.put_targets(Rule=self.name, Targets=targets)

    def executions(self) -> list[str]:
        told = self.account.sagemaker.list_pipeline_executions(PipelineName=self.pipeline)
        return [one["PipelineExecutionArn"] for one in told["PipelineExecutionSummaries"]]

    def heard(self) -> list[Any]:
        return list(self.sqs.receive_message(QueueUrl=self.queue).get("Messages", []))


def test_an_object_that_comes_starts_it_with_what_the_event_says(
    account: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"PipelineParameterList": [{"Name": "Key", "Value": "$.detail.object.key"}]}
    rule = Rule(account, SageMakerPipelineParameters=given)
    account.put(a="1")
    (arn,) = rule.executions()
    assert account.over(arn)["PipelineExecutionStatus"] == "Succeeded"
    told = account.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
    assert told == [{"Name": "Key", "Value": "a"}]
    assert len(until(rule.heard)) == 1
    assert f"does not play its target {LAMBDA}" in caplog.text


def test_a_rule_that_is_disabled_does_nothing(account: Lines) -> None:
    rule = Rule(account)
    rule.events.disable_rule(Name=rule.name)
    account.put(a="1")
    assert (rule.executions(), rule.heard()) == ([], [])


def test_a_start_that_is_refused_is_in_the_log(account: Lines, caplog: pytest.LogCaptureFixture) -> None:
    given = {"PipelineParameterList": [{"Name": "Other", "Value": "x"}]}
    rule = Rule(account, SageMakerPipelineParameters=given)
    account.put(a="1")
    assert rule.executions() == []
    assert "is not started by an event: Unknown parameters provided" in caplog.text


def test_an_event_of_somebodys_own_starts_it_too(account: Lines) -> None:
    rule = Rule(account)
    rule.events.put_rule(Name=rule.name, EventPattern=json.dumps({"source": ["mine"]}))
    answer = rule.events.put_events(Entries=[{"Source": "mine", "DetailType": "t", "Detail": "{}"}])
    assert answer["FailedEntryCount"] == 0
    assert len(rule.executions()) == 1
    assert len(until(rule.heard)) == 1
