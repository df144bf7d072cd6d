"""Scale to zero as AWS's post of December 2024 goes about it, over HTTP with plain boto3; the containers are cheap fakes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.clock import ManualClock
from container.platform.components.yard import Times
from container.platform.platform import Platform
from tests.rig.platform import FAKE, PATIENCE_S, ROLE, Account, account, client, platform

DIMENSION = "sagemaker:inference-component:DesiredCopyCount"
NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress "
    "(if configured) or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)


class Bare(Account):
    """Without a bucket, whose name would be taken while another platform of this process has one."""

    def __init__(self, played: Platform) -> None:
        self.platform, self.url = played, played.url


class Zero:
    """One endpoint with one component, and the clients that AWS's post uses."""

    def __init__(self, aws: Account, name: str, variant: str = "AllTraffic") -> None:
        self.aws = aws
        self.name = name
        self.variant = variant
        self.component = f"{name}-ic"
        self.scaling = client(aws.url, "application-autoscaling")
        self.cloudwatch = client(aws.url, "cloudwatch")
        self.where = {
            "ServiceNamespace": "sagemaker",
            "ResourceId": f"inference-component/{self.component}",
            "ScalableDimension": DIMENSION,
        }

    def close(self) -> None:
        self.scaling.close()
        self.cloudwatch.close()

    def config(self, least: int = 0, most: int = 2) -> None:
        self.aws.sagemaker.create_endpoint_config(
            EndpointConfigName=self.name,
            ExecutionRoleArn=ROLE,
            ProductionVariants=[
                {
                    "VariantName": self.variant,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": 1,
                    "ManagedInstanceScaling": {
                        "Status": "ENABLED",
                        "MinInstanceCount": least,
                        "MaxInstanceCount": most,
                    },
                    "RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"},
                }
            ],
        )

    def create(self) -> None:
        self.config()
        self.aws.endpoint(self.name, self.name)
        self.aws.sagemaker.create_model(
            ModelName=self.name, PrimaryContainer={"Image": FAKE, "Environment": {"WHO": "me"}}, ExecutionRoleArn=ROLE
        )
        self.aws.sagemaker.create_inference_component(
            InferenceComponentName=self.component,
            EndpointName=self.name,
            VariantName=self.variant,
            Specification={
                "ModelName": self.name,
                "StartupParameters": {"ContainerStartupHealthCheckTimeoutInSeconds": 600},
                "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512, "NumberOfCpuCoresRequired": 1},
            },
            RuntimeConfig={"CopyCount": 1},
        )
        self.until(("InService", 1, 1))

    def policies(self, wake_period_s: int = 30) -> None:
        self.scaling.register_scalable_target(**self.where, MinCapacity=0, MaxCapacity=2)
        self.scaling.put_scaling_policy(
            **self.where,
            PolicyName="track",
            PolicyType="TargetTrackingScaling",
            TargetTrackingScalingPolicyConfiguration={
                "PredefinedMetricSpecification": {
                    "PredefinedMetricType": "SageMakerInferenceComponentInvocationsPerCopy"
                },
                "TargetValue": 5.0,
                "ScaleInCooldown": 60,
                "ScaleOutCooldown": 60,
            },
        )
        wake = self.scaling.put_scaling_policy(
            **self.where,
            PolicyName="wake",
            PolicyType="StepScaling",
            StepScalingPolicyConfiguration={
                "AdjustmentType": "ChangeInCapacity",
                "MetricAggregationType": "Maximum",
                "Cooldown": 60,
                "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
            },
        )
        self.cloudwatch.put_metric_alarm(
            AlarmName=f"{self.name}-wake",
            AlarmActions=[wake["PolicyARN"]],
            MetricName="NoCapacityInvocationFailures",
            Namespace="AWS/SageMaker",
            Statistic="Maximum",
            Dimensions=[{"Name": "InferenceComponentName", "Value": self.component}],
            Period=wake_period_s,
            EvaluationPeriods=1,
            DatapointsToAlarm=1,
            Threshold=1,
            ComparisonOperator="GreaterThanOrEqualToThreshold",
            TreatMissingData="missing",
        )

    def seen(self) -> tuple[str, int, int]:
        """Status, copies, instances."""
        told = self.aws.sagemaker.describe_inference_component(InferenceComponentName=self.component)
        count = self.aws.describe(self.name)["ProductionVariants"][0]["CurrentInstanceCount"]
        return told["InferenceComponentStatus"], told["RuntimeConfig"]["CurrentCopyCount"], count

    def until(
        self, wanted: tuple[str, int, int], each: Callable[[], object] = lambda: None, real_s: float = 0.01
    ) -> None:
        """Let no time pass but what passes by itself."""
        deadline = time.monotonic() + PATIENCE_S
        while (seen := self.seen()) != wanted:
            assert time.monotonic() < deadline, seen
            each()
            self.aws.tick()
            time.sleep(real_s)

    def ask(self) -> Any:
        answer = self.aws.runtime.invoke_endpoint(
            EndpointName=self.name, InferenceComponentName=self.component, Body=b"1,2", ContentType="text/csv"
        )
        return json.loads(answer["Body"].read())

    def refused(self) -> None:
        with pytest.raises(self.aws.runtime.exceptions.ClientError) as raised:
            self.ask()
        error = raised.value.response
        assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("ValidationError", 400)
        assert error["Error"]["Message"] == NO_CAPACITY

    def activities(self) -> list[tuple[str, str]]:
        found = self.scaling.describe_scaling_activities(**self.where)["ScalingActivities"]
        return [(one["Description"], one["StatusCode"]) for one in reversed(found)]


@pytest.fixture(scope="module")
def aws() -> Iterator[Account]:
    with platform(clock=ManualClock()) as played:
        made = Account(played)
        yield made
        made.close()


@pytest.fixture(scope="module")
def zero(aws: Account) -> Iterator[Zero]:
    made = Zero(aws, "post")
    made.create()
    made.policies()
    yield made
    made.close()


def test_the_post_step_by_step(aws: Account, zero: Zero) -> None:
    """To zero copies in 15 minutes, to zero instances in ten more, and back on a call."""
    assert zero.ask()["who"] == "me"
    aws.tick(14 * 60)
    assert zero.seen() == ("InService", 1, 1)
    aws.tick(3 * 60)
    zero.until(("InService", 0, 1))
    aws.tick(600)
    zero.until(("InService", 0, 0))
    assert aws.describe("post")["EndpointStatus"] == "InService"

    aws.tick(3600)
    zero.refused()
    aws.tick(30)
    assert zero.seen() == ("Updating", 0, 0)
    aws.tick(105)
    zero.until(("InService", 1, 1))
    assert zero.ask()["body"] == "1,2"
    aws.tick(10)
    assert zero.activities() == [
        ("Setting desired copy count to 0.", "Successful"),
        ("Setting desired copy count to 1.", "Successful"),
    ]
    found = zero.cloudwatch.describe_alarms(AlarmNames=["post-wake"])["MetricAlarms"][0]
    assert found["StateValue"] == "INSUFFICIENT_DATA"  # nobody has called since: missing is missing


def test_both_policies_are_described_with_their_alarms(zero: Zero) -> None:
    found = zero.scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    names = {one["PolicyName"]: [alarm["AlarmName"] for alarm in one["Alarms"]] for one in found}
    assert names["wake"] == ["post-wake"]
    high, low = names["track"]
    assert high.startswith("TargetTracking-inference-component/post-ic-AlarmHigh-")
    assert low.startswith("TargetTracking-inference-component/post-ic-AlarmLow-")
    shown = zero.cloudwatch.describe_alarms(AlarmNames=[high, low])["MetricAlarms"]
    assert {one["EvaluationPeriods"] for one in shown} == {3, 15}


def test_the_first_call_is_charged_to_nobody_and_instances_are_on_the_bill(aws: Account, zero: Zero) -> None:
    bill = aws.platform.ledger.bill()
    assert [(line.kind, line.what, line.instance_type) for line in bill.lines] == [
        ("endpoint", "post/AllTraffic", "ml.m5.large")
    ]
    assert bill.usd == pytest.approx(bill.lines[0].seconds / 3600 * 0.115)


def test_a_component_of_no_copies_cannot_be_created(aws: Account, zero: Zero) -> None:
    with pytest.raises(ClientError, match="copy count an integer larger than 0"):
        aws.sagemaker.create_inference_component(
            InferenceComponentName="cold",
            EndpointName="post",
            VariantName="AllTraffic",
            Specification={"ModelName": "post", "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}},
            RuntimeConfig={"CopyCount": 0},
        )


def test_a_copy_that_this_machine_cannot_hold_fails_its_component_in_words(aws: Account) -> None:
    zero = Zero(aws, "full")
    zero.config()
    aws.endpoint("full", "full")
    (instance,) = aws.platform.endpoints.instances("full", "AllTraffic")
    (aws.platform.root / instance.id).write_text("where the copy's directory would be")
    aws.sagemaker.create_inference_component(
        InferenceComponentName="full-ic",
        EndpointName="full",
        VariantName="AllTraffic",
        Specification={
            "Container": {"Image": FAKE},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128},
        },
        RuntimeConfig={"CopyCount": 1},
    )
    zero.until(("Failed", 0, 1))
    told = aws.sagemaker.describe_inference_component(InferenceComponentName="full-ic")
    assert "Not a directory" in told["FailureReason"]
    zero.close()


def test_calls_must_name_a_component_that_is_there(aws: Account, zero: Zero) -> None:
    with pytest.raises(ClientError, match="Inference Component Name header is required"):
        aws.runtime.invoke_endpoint(EndpointName="post", Body=b"1")
    with pytest.raises(ClientError, match="not found"):
        aws.runtime.invoke_endpoint(EndpointName="post", InferenceComponentName="nobody", Body=b"1")


def test_nights_at_zero_by_a_schedule_without_a_function(aws: Account, zero: Zero) -> None:
    """As the post has it: EventBridge Scheduler calls UpdateInferenceComponentRuntimeConfig itself."""
    scheduler = client(aws.url, "scheduler")
    window = {"Mode": "OFF"}
    due = aws.platform.clock.now() + timedelta(minutes=30)
    calls = {"night": ("updateInferenceComponentRuntimeConfig", 0), "lambda": (None, 0)}
    for name, (action, copies) in calls.items():
        wanted = {"InferenceComponentName": "post-ic", "DesiredRuntimeConfig": {"CopyCount": copies}}
        arn = f"arn:aws:scheduler:::aws-sdk:sagemaker:{action}" if action else "arn:aws:lambda:us-east-1:1:function:x"
        scheduler.create_schedule(
            Name=name,
            ScheduleExpression=f"cron({due.minute} {due.hour} * * ? *)",
            FlexibleTimeWindow=window,
            Target={"Arn": arn, "RoleArn": ROLE, "Input": json.dumps(wanted)},
        )
    aws.sagemaker.update_inference_component_runtime_config(
        InferenceComponentName="post-ic", DesiredRuntimeConfig={"CopyCount": 1}
    )
    aws.tick(105)
    zero.until(("InService", 1, 1))
    for _ in range(30):
        zero.ask()
        aws.tick(60)
        if zero.seen()[1] == 0:
            break
    zero.until(("InService", 0, 1))
    assert aws.platform.clock.now() >= due.replace(second=0, microsecond=0)
    scheduler.close()


def test_deleting_the_endpoint_leaves_the_component_and_its_name_taken(aws: Account) -> None:
    """As others measured; the order that works is component, endpoint, config, model."""
    gone = Zero(aws, "gone")
    gone.create()
    gone.policies()
    aws.sagemaker.delete_endpoint(EndpointName="gone")
    aws.until_gone("gone")
    told = aws.sagemaker.describe_inference_component(InferenceComponentName="gone-ic")
    assert told["InferenceComponentStatus"] == "InService"
    names = [one["InferenceComponentName"] for one in aws.sagemaker.list_inference_components()["InferenceComponents"]]
    assert "gone-ic" in names
    gone.scaling.deregister_scalable_target(**gone.where)
    aws.sagemaker.delete_inference_component(InferenceComponentName="gone-ic")
    aws.tick()
    with pytest.raises(ClientError, match="Could not find inference component"):
        aws.sagemaker.describe_inference_component(InferenceComponentName="gone-ic")
    gone.close()


def test_the_next_run_has_component_policies_and_alarms_and_serves_again(tmp_path: Path) -> None:
    mine = account()
    with platform(clock=ManualClock(), state=tmp_path, account=mine) as played:
        before = Bare(played)
        zero = Zero(before, "kept")
        zero.create()
        zero.policies()
        zero.aws.tick(60)
        alarms = sorted(one["AlarmName"] for one in zero.cloudwatch.describe_alarms()["MetricAlarms"])
        policies = zero.scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
        zero.close()
        before.close()
    with platform(clock=ManualClock(), state=tmp_path, account=mine) as played:
        after = Bare(played)
        zero = Zero(after, "kept")
        zero.until(("InService", 1, 1), each=lambda: after.tick(5))
        assert zero.ask()["who"] == "me"
        assert sorted(one["AlarmName"] for one in zero.cloudwatch.describe_alarms()["MetricAlarms"]) == alarms
        assert zero.scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"] == policies
        after.tick(17 * 60)
        zero.until(("InService", 0, 1))
        zero.close()
        after.close()


def test_consolidation_is_not_played_and_says_so(aws: Account) -> None:
    policy = {"Strategy": "CONSOLIDATION", "CooldownInMinutes": 20}
    managed = {"Status": "ENABLED", "MinInstanceCount": 0, "MaxInstanceCount": 2, "ScaleInPolicy": policy}
    variant = {"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    with pytest.raises(ClientError, match="NotImplemented"):
        aws.sagemaker.create_endpoint_config(
            EndpointConfigName="packed",
            ExecutionRoleArn=ROLE,
            ProductionVariants=[{**variant, "ManagedInstanceScaling": managed}],
        )


def test_zero_is_refused_where_the_trap_is_on() -> None:
    with platform(clock=ManualClock(), traps=["zero-refused"]) as played:
        aws = Bare(played)
        refused = Zero(aws, "paris")
        with pytest.raises(ClientError) as raised:
            refused.config(least=0)
        assert raised.value.response["Error"]["Code"] == "ValidationException"
        assert raised.value.response["Error"]["Message"] == (
            "Min instance count needs to be greater than 0 for enabled managed instance scaling"
        )
        refused.config(least=1)
        refused.close()
        aws.close()


def test_a_variants_instances_are_scaled_by_the_calls_they_get(aws: Account) -> None:
    """An ordinary endpoint: three minutes of 30 calls at 10 an instance make three; 15 idle minutes one again."""
    aws.endpoint("busy", aws.config("busy", is_multi=False))
    scaling = client(aws.url, "application-autoscaling")
    where = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": "endpoint/busy/variant/AllTraffic",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    with pytest.raises(ClientError, match="Minimum capacity cannot be less than 1"):
        scaling.register_scalable_target(**where, MinCapacity=0, MaxCapacity=4)
    scaling.register_scalable_target(**where, MinCapacity=1, MaxCapacity=4)
    one = {"Id": "m1", "MetricStat": {"Metric": {"Namespace": "n", "MetricName": "m"}, "Stat": "Sum"}}
    for custom, why in (
        ({"Metrics": [{**one, "ReturnData": False}, {"Id": "e1", "Expression": "m1 + m2"}]}, "is the id of nothing"),
        ({"Metrics": [one, {"Id": "e1", "Expression": "m1"}]}, "exactly one of the metrics has ReturnData"),
        ({"Metrics": [{**one, "MetricStat": {**one["MetricStat"], "Stat": "Mode"}}]}, "knows no statistic"),  # type: ignore[dict-item]
        ({"Metrics": [one], "Namespace": "n"}, "not both"),
    ):
        with pytest.raises(ClientError, match=why):
            scaling.put_scaling_policy(
                **where,
                PolicyName="math",
                PolicyType="TargetTrackingScaling",
                TargetTrackingScalingPolicyConfiguration={"TargetValue": 1, "CustomizedMetricSpecification": custom},
            )
    scaling.put_scaling_policy(
        **where,
        PolicyName="calls",
        PolicyType="TargetTrackingScaling",
        TargetTrackingScalingPolicyConfiguration={
            "TargetValue": 10,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
        },
    )
    for _ in range(3):
        for _ in range(30):
            aws.ask("busy", None)
        aws.tick(60)
    aws.tick(10)
    aws.until("busy", lambda told: told["ProductionVariants"][0]["CurrentInstanceCount"] == 3)
    aws.settled("busy")
    larger = aws.config("busy-larger", is_multi=False, type_="ml.m5.xlarge")
    with pytest.raises(ClientError, match="registered with Application Auto Scaling"):
        aws.sagemaker.update_endpoint(EndpointName="busy", EndpointConfigName=larger)
    aws.tick(60 * 21)
    aws.until("busy", lambda told: told["ProductionVariants"][0]["CurrentInstanceCount"] == 1)
    aws.settled("busy")
    aws.sagemaker.delete_endpoint(EndpointName="busy")
    aws.until_gone("busy")
    assert (
        scaling.describe_scalable_targets(ServiceNamespace="sagemaker", ResourceIds=[where["ResourceId"]])[
            "ScalableTargets"
        ]
        == []
    )
    scaling.close()


def test_a_wake_at_the_speed_of_real_clocks() -> None:
    """The alarm's ten seconds are real ones; an instance comes in one."""
    with platform(speed=1.0, times=Times(instance_s=1.0, release_s=1.0)) as played:
        aws = Bare(played)
        zero = Zero(aws, "real")
        zero.create()
        zero.policies(wake_period_s=10)
        aws.sagemaker.update_inference_component_runtime_config(
            InferenceComponentName="real-ic", DesiredRuntimeConfig={"CopyCount": 0}
        )
        zero.until(("InService", 0, 0), real_s=0.2)
        began_s = time.monotonic()
        zero.refused()
        zero.until(("InService", 1, 1), real_s=0.2)
        assert zero.ask()["who"] == "me"
        assert 1.0 < time.monotonic() - began_s < PATIENCE_S
        zero.close()
        aws.close()
