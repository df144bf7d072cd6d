"""An update as the guide's deployment guardrails have it, step by step on a clock that stands still between them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.rig.platform import Account, client


def policy(kind: str = "ALL_AT_ONCE", wait: int = 600, termination: int = 600, **size: Any) -> dict[str, Any]:
    routing: dict[str, Any] = {"Type": kind, "WaitIntervalInSeconds": wait}
    for name, (how, value) in size.items():
        routing[name] = {"Type": how, "Value": value}
    return {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": termination}


def begin(
    aws: Account, name: str, n: int, deployment: dict[str, Any] | None, **environment: str
) -> tuple[str, str, str]:
    """An endpoint in service that has been told to update: its name, the old config's and the new one's."""
    old, new = aws.config(f"{name}-old", n), aws.config(f"{name}-new", n, **environment)
    aws.endpoint(name, old)
    options = {"DeploymentConfig": deployment} if deployment else {}
    aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new, **options)
    return name, old, new


def noted(aws: Account, name: str, begins: str) -> str:
    """Wait for the deployment to say something that begins so, without letting time pass."""
    found: list[str | None] = []

    def says(_: Any) -> bool:
        found.append(aws.note(name))
        return (found[-1] or "").startswith(begins)

    aws.until(name, says)
    assert found[-1] is not None
    return found[-1]


def alarm(aws: Account, name: str, state: str = "OK") -> str:
    cloudwatch = client(aws.url, "cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=name, Namespace="AWS/SageMaker", MetricName="Invocation5XXErrors", Statistic="Average", Period=60,
        EvaluationPeriods=1, Threshold=0.5, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="test")
    cloudwatch.close()
    return name


def test_without_a_policy_all_traffic_moves_at_once_and_the_old_fleet_goes(aws: Account) -> None:
    name, _, new = begin(aws, "plain", 1, None)
    assert aws.describe(name)["EndpointStatus"] == "Updating"
    told = aws.settled(name)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", new)
    assert aws.whose(name, 5) == {new: 5}
    assert "PendingDeploymentSummary" not in told


def test_a_canary_gets_its_share_bakes_and_then_all_of_it(aws: Account) -> None:
    name, old, new = begin(
        aws, "canary", 2, {"BlueGreenUpdatePolicy": policy("CANARY", CanarySize=("INSTANCE_COUNT", 1))}
    )
    assert noted(aws, name, "Baking") == (
        "Baking: Baking for 600 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s)."
    )
    told = aws.describe(name)
    assert told["EndpointStatus"] == "Updating"
    assert told["EndpointConfigName"] == old  # what serves, until all is over
    assert told["PendingDeploymentSummary"]["EndpointConfigName"] == new
    assert told["PendingDeploymentSummary"]["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    assert set(aws.whose(name)) == {old, new}
    aws.tick(599)
    assert "canary" in noted(aws, name, "Baking")
    aws.tick(1)
    assert "(TerminationWaitInSeconds) with traffic enabled on full capacity of 2" in noted(aws, name, "Baking")
    assert aws.whose(name, 10) == {new: 10}
    assert len(aws.platform.endpoints.instances(name, "AllTraffic")) == 2  # blue still stands by
    aws.tick(600)
    told = aws.settled(name)
    assert (
        told["EndpointConfigName"],
        told["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]["TerminationWaitInSeconds"],
    ) == (
        new,
        600,
    )


def test_linear_steps_take_as_many_intervals_as_there_are_steps_before_the_last(aws: Account) -> None:
    """The guide's own example: a fifth every five minutes, and five minutes more before blue goes."""
    guide = policy("LINEAR", 300, 300, LinearStepSize=("CAPACITY_PERCENT", 20))
    guide["MaximumExecutionTimeoutInSeconds"] = 3600
    name, _, new = begin(aws, "linear", 5, {"BlueGreenUpdatePolicy": guide})
    for n_instances in (1, 2, 3, 4):
        assert f"(WaitIntervalInSeconds) with traffic enabled on linear capacity of {n_instances} " in noted(
            aws, name, "Baking"
        )
        aws.tick(300)
    assert "(TerminationWaitInSeconds) with traffic enabled on full capacity of 5 " in noted(aws, name, "Baking")
    aws.tick(300)
    assert aws.settled(name)["EndpointConfigName"] == new


def test_rolling_never_has_more_than_a_batch_too_many(aws: Account) -> None:
    deployment = {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "CAPACITY_PERCENT", "Value": 50}, "WaitIntervalInSeconds": 100,
        }
    }  # fmt: skip
    name, old, new = begin(aws, "rolling", 2, deployment)
    noted(aws, name, "Baking")
    endpoint = aws.platform.endpoints.find(name)
    assert endpoint is not None
    assert endpoint.green is not None
    assert (endpoint.blue.n_instances, endpoint.green.n_instances) == (2, 1)
    assert set(aws.whose(name)) == {old, new}
    aws.tick(100)
    noted(aws, name, "Baking")
    assert (endpoint.blue.n_instances, endpoint.green.n_instances) == (1, 2)
    aws.tick(100)
    assert aws.settled(name)["EndpointConfigName"] == new


def test_rolling_with_two_variants_is_all_at_once(aws: Account) -> None:
    both = {"A": 1.0, "B": 1.0}
    name = aws.endpoint("pair", aws.config("pair-old", 2, variants=both))
    new = aws.config("pair-new", 2, variants=both)
    rolling = {"MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 100}
    aws.sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName=new, DeploymentConfig={"RollingUpdatePolicy": rolling}
    )
    assert aws.settled(name)["EndpointConfigName"] == new  # and no time has passed


def test_an_alarm_in_a_bake_rolls_back_and_nobody_is_told_why(aws: Account) -> None:
    name = "alarmed"
    watch = alarm(aws, "errors-of-green")
    deployment = {
        "BlueGreenUpdatePolicy": policy("CANARY", CanarySize=("CAPACITY_PERCENT", 50)),
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": watch}]},
    }
    _, old, _ = begin(aws, name, 2, deployment)
    noted(aws, name, "Baking")
    aws.tick(300)
    assert aws.describe(name)["EndpointStatus"] == "Updating"
    alarm(aws, watch, "ALARM")
    aws.tick(10)
    told = aws.settled(name)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", old)
    assert "FailureReason" not in told
    assert aws.whose(name, 10) == {old: 10}
    statuses = [e.detail["EndpointStatus"] for e in aws.platform.bus.sent if e.detail["EndpointName"] == name]
    assert statuses[-2:] == ["ROLLING_BACK", "IN_SERVICE"]


def test_a_new_fleet_that_is_not_healthy_is_rolled_back_in_silence(aws: Account) -> None:
    name, old, _ = begin(aws, "unhealthy", 1, None, HOW="lists-nothing")
    told = aws.settled(name)
    assert (told["EndpointStatus"], told["EndpointConfigName"]) == ("InService", old)
    assert "FailureReason" not in told
    assert aws.whose(name, 5) == {old: 5}


def test_an_alarm_that_trips_in_a_rolling_update_brings_back_what_had_gone(aws: Account) -> None:
    watch = alarm(aws, "errors-of-rolling")
    deployment = {
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1}, "WaitIntervalInSeconds": 100,
        },
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": watch}]},
    }  # fmt: skip
    name, old, _ = begin(aws, "rolled", 2, deployment)
    noted(aws, name, "Baking")
    aws.tick(100)
    noted(aws, name, "Baking")
    alarm(aws, watch, "ALARM")
    aws.tick(10)
    told = aws.settled(name)
    assert (told["EndpointConfigName"], told["ProductionVariants"][0]["CurrentInstanceCount"]) == (old, 2)
    assert aws.whose(name, 5) == {old: 5}


def test_an_update_that_takes_too_long_is_rolled_back(aws: Account) -> None:
    blue_green = policy("LINEAR", 300, 0, LinearStepSize=("CAPACITY_PERCENT", 10))
    name, old, _ = begin(
        aws, "long", 2, {"BlueGreenUpdatePolicy": {**blue_green, "MaximumExecutionTimeoutInSeconds": 600}}
    )
    noted(aws, name, "Baking")
    for _ in range(80):
        aws.tick(10)
    assert aws.settled(name)["EndpointConfigName"] == old


def test_a_busy_endpoint_is_neither_updated_nor_deleted(aws: Account) -> None:
    name, _, new = begin(aws, "busy", 1, {"BlueGreenUpdatePolicy": policy()})
    noted(aws, name, "Baking")
    for refused in (
        lambda: aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new),
        lambda: aws.sagemaker.delete_endpoint(EndpointName=name),
    ):
        with pytest.raises(ClientError, match="Cannot update in-progress endpoint") as caught:
            refused()
        assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert not aws.platform.endpoints.set_desired(name, "AllTraffic", 3)  # autoscaling is blocked
    aws.tick(600)
    assert aws.settled(name)["EndpointConfigName"] == new


def test_what_the_guide_forbids_is_refused_before_anything_moves(aws: Account) -> None:
    one, two = aws.config("limits-1", 1), aws.config("limits-2", 2)
    other = aws.config("limits-other", 2, variants={"Other": 1.0})
    name = aws.endpoint("limits", two)
    too_much = policy("CANARY", CanarySize=("CAPACITY_PERCENT", 60))
    for config, deployment, words in (
        (two, {"BlueGreenUpdatePolicy": too_much}, "CanarySize must be between"),
        (one, {"BlueGreenUpdatePolicy": policy("CANARY", CanarySize=("CAPACITY_PERCENT", 50))}, "CanarySize must be"),
        (two, {"BlueGreenUpdatePolicy": policy("CANARY")}, "CanarySize is required"),
        (two, {"BlueGreenUpdatePolicy": {**policy(), "MaximumExecutionTimeoutInSeconds": 1200}}, "must be larger"),
        (other, {"BlueGreenUpdatePolicy": policy()}, "variant names"),
        (
            two,
            {"BlueGreenUpdatePolicy": policy(), "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "none"}]}},
            "alarm",
        ),
        (two, {"BlueGreenUpdatePolicy": policy(wait=4000)}, "less than or equal to 3600"),
    ):
        with pytest.raises(ClientError, match=words) as caught:
            aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config, DeploymentConfig=deployment)
        assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert aws.describe(name)["EndpointStatus"] == "InService"


def test_a_scaled_variant_keeps_its_instance_type(aws: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    name = aws.endpoint("scaled", aws.config("scaled-old"))
    monkeypatch.setattr(aws.platform.endpoints, "is_scaled", lambda endpoint, variant: endpoint == name)
    other, same = aws.config("scaled-type", type_="ml.m5.xlarge"), aws.config("scaled-model")
    with pytest.raises(ClientError, match="instance type"):
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=other)
    aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=same)
    assert aws.settled(name)["EndpointConfigName"] == same


def test_counts_and_weights_are_kept_when_asked(aws: Account) -> None:
    name = aws.endpoint("kept", aws.config("kept-old", 1))
    aws.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name,
        DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 2, "DesiredWeight": 3}],
    )
    told = aws.settled(name)["ProductionVariants"][0]
    assert (told["CurrentInstanceCount"], told["DesiredInstanceCount"], told["CurrentWeight"]) == (2, 2, 3.0)
    new = aws.config("kept-new", 1)
    aws.sagemaker.update_endpoint(
        EndpointName=name, EndpointConfigName=new, RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
    )  # fmt: skip
    told = aws.settled(name)
    assert told["EndpointConfigName"] == new
    assert (told["ProductionVariants"][0]["CurrentInstanceCount"], told["ProductionVariants"][0]["CurrentWeight"]) == (
        2,
        1.0,
    )
    assert aws.platform.endpoints.set_desired(name, "AllTraffic", 1)
    assert aws.settled(name)["ProductionVariants"][0]["CurrentInstanceCount"] == 1


def test_the_deployment_config_of_before_is_used_when_asked(aws: Account) -> None:
    deployment = {"BlueGreenUpdatePolicy": policy("CANARY", CanarySize=("INSTANCE_COUNT", 1))}
    name = aws.endpoint("retained", aws.config("retained-old", 2), DeploymentConfig=deployment)  # no blue/green now
    new = aws.config("retained-new", 2)
    aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=new, RetainDeploymentConfig=True)
    assert "canary" in noted(aws, name, "Baking")
    aws.tick(600)
    noted(aws, name, "Baking")
    aws.tick(600)
    assert aws.settled(name)["EndpointConfigName"] == new


def test_no_call_is_lost_while_fleets_change(aws: Account) -> None:
    name, configs = "steady", [aws.config(f"steady-{number}", 1) for number in range(3)]
    aws.endpoint(name, configs[0])
    stop, failed, n_calls = threading.Event(), [], [0]

    def call() -> None:
        while not stop.is_set():
            try:
                aws.ask(name, body=b"brief")
                n_calls[0] += 1
            except (ClientError, BotoCoreError) as error:
                failed.append(error)
                return

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for config in configs[1:]:
        aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)
        assert aws.settled(name)["EndpointConfigName"] == config
    stop.set()
    for caller in callers:
        caller.join()
    assert not failed, failed
    assert n_calls[0] > 10
