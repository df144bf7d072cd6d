"""A component that sleeps and wakes, against SageMaker played on this machine, whose clock runs fast."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from botocore.exceptions import ClientError

from container.operate.deploy import reservation
from container.operate.deploy.apply import Carrier, Pace, apply
from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.back import delete, rollback_steps
from container.operate.deploy.doctor import diagnose, preflight, safe_steps
from container.operate.deploy.health import examine
from container.operate.deploy.look import look
from container.operate.deploy.plan import Step
from container.operate.deploy.policies import execution_policy, trust_policy
from container.operate.deploy.trouble import NotAsAsked
from container.operate.endpoint import waking
from container.operate.troubles import NotNow, Refused
from container.platform.platform import Platform
from tests.container.operate.deploy.files import IMAGE, ROLE, wanted
from tests.container.operate.deploy.test_apply import NEXT, Asked, cut_to_pieces, shared, state
from tests.rig.endpoint import until
from tests.rig.fakes import FakeClock
from tests.rig.platform import client, platform

TINY = Path(__file__).parents[3] / "rig/tiny_container.py"
COMMAND = [sys.executable, "-S", str(TINY), "{port}"]
PACE = Pace(poll_s=0.05)
ZERO = wanted("zero", "[zero]\ncopies = 2", name="ranking")
SPEED = 600.0  # half an hour takes three seconds


def play(**options: Any) -> Platform:
    return platform(speed=SPEED, images={IMAGE: COMMAND, NEXT: COMMAND}, **options)


def prepare(url: str) -> None:
    client(url, "iam").create_role(RoleName=ROLE.rsplit("/", 1)[-1], AssumeRolePolicyDocument="{}")
    with contextlib.suppress(ClientError):  # moto's S3 is one for all accounts of this process
        client(url, "s3").create_bucket(Bucket="acme")


@pytest.fixture(scope="module")
def played() -> Iterator[Platform]:
    with play() as one:
        prepare(one.url)
        yield one


def copies(url: str) -> tuple[int, int]:
    told = shared(url, "sagemaker").describe_inference_component(InferenceComponentName="ranking")
    machines = shared(url, "sagemaker").describe_endpoint(EndpointName="ranking")["ProductionVariants"][0]
    return told["RuntimeConfig"]["CurrentCopyCount"], machines["CurrentInstanceCount"]


def call(url: str) -> bytes:
    answer = shared(url, "sagemaker-runtime").invoke_endpoint(
        EndpointName="ranking",
        InferenceComponentName="ranking",
        CustomAttributes="TargetModel=group/7.tar.gz",
        Body=b"1.0",
    )
    body: bytes = answer["Body"].read()
    return body


def test_it_comes_answers_sleeps_wakes_and_goes(played: Platform) -> None:
    said: list[str] = []
    aws = Asked(played.url)
    apply(aws, ZERO, tell=said.append, pace=PACE)
    assert aws.changes.index("CreateInferenceComponent") < aws.changes.index("RegisterScalableTarget")

    def answers() -> bool:
        try:
            return call(played.url) == b"1.0"
        except ClientError as error:
            told = error.response["Error"]
            assert waking.is_asleep(told["Code"], told["Message"]), told
            return False

    until(answers, 60)  # on a busy machine it is asleep before it is called
    assert apply(Asked(played.url), ZERO, tell=said.append, pace=PACE).n_calls == 0

    until(lambda: copies(played.url) == (0, 0), 60)
    with pytest.raises(ClientError) as refused:
        call(played.url)
    error = refused.value.response["Error"]
    assert waking.is_asleep(error["Code"], error["Message"])
    until(answers, 60)


def test_a_new_image_is_an_update_of_the_component_alone(played: Platform) -> None:
    later = wanted("zero", "[zero]\ncopies = 2", name="ranking", image=NEXT)
    apply(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE)
    aws = Asked(played.url)
    apply(aws, later, tell=lambda _: None, pace=PACE)
    assert aws.changes == ["CreateModel", "UpdateInferenceComponent"]

    back = rollback_steps(later, look(Asked(played.url), later))
    assert [step.operation for step in back] == ["UpdateInferenceComponent"]
    Carrier(aws, later, lambda _: None, PACE).carry_out(back)
    assert apply(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE).n_calls == 0
    with pytest.raises(Refused, match="there is no model before"):
        rollback_steps(ZERO, look(Asked(played.url), ZERO))


def test_the_doctor_finds_each_hand_in_it_and_mends_what_is_safe(played: Platform) -> None:
    apply(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE)
    there = look(Asked(played.url), ZERO)
    assert there.target is not None
    scaling, watch = shared(played.url, "application-autoscaling"), shared(played.url, "cloudwatch")
    of = {key: there.target[key] for key in ("ServiceNamespace", "ResourceId", "ScalableDimension")}
    scaling.register_scalable_target(
        **of, MinCapacity=1, MaxCapacity=9, SuspendedState={"DynamicScalingInSuspended": True}
    )
    scaling.delete_scaling_policy(**of, PolicyName=next(name for name in there.policies if "-track-" in name))
    watch.delete_alarms(AlarmNames=[next(name for name in there.alarms if "/wake-" in name)])
    found = {one.check for one in diagnose(ZERO, examine(Asked(played.url), ZERO))}
    assert {"suspended", "upper-bound", "lower-bound", "tracking-missing", "wake-alarm-missing"} <= found

    aws = Asked(played.url)
    Carrier(aws, ZERO, lambda _: None, PACE).carry_out(safe_steps(ZERO, examine(aws, ZERO)))
    found = {one.check for one in diagnose(ZERO, examine(Asked(played.url), ZERO))}
    assert not found & {"suspended", "upper-bound", "lower-bound", "tracking-missing", "wake-alarm-missing"}


def test_nothing_is_left_of_it_and_deleting_twice_is_as_once(played: Platform) -> None:
    apply(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE)
    aws = Asked(played.url)
    assert delete(aws, ZERO, tell=lambda _: None, pace=PACE) > 0
    order = [one for one in aws.changes if one in ("DeleteAlarms", "DeregisterScalableTarget", "DeleteInferenceComponent",
             "DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel")]  # fmt: skip
    assert list(dict.fromkeys(order)) == [
        *("DeleteAlarms", "DeregisterScalableTarget", "DeleteInferenceComponent", "DeleteEndpoint"),
        *("DeleteEndpointConfig", "DeleteModel"),
    ]
    there = look(Asked(played.url), ZERO)
    assert (there.endpoint, there.components, there.configs, there.models, there.alarms) == (None, (), {}, {}, {})
    assert delete(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE) == 0


def test_what_the_autoscaler_begins_between_a_look_and_a_call_is_waited_out(played: Platform) -> None:
    words = 'Inference component "ranking" is in state UPDATE_RC_IN_PROGRESS; try again when it is over.'
    refused: list[str] = []

    def scaling(operation: str, _: int) -> str:
        if operation == "DeleteInferenceComponent" and len(refused) < 2:
            refused.append(operation)
            raise AwsRefused(operation, "ValidationException", words, 400)
        return ""

    apply(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE)
    take_down = Step("", "sagemaker", "DeleteInferenceComponent", {"InferenceComponentName": "ranking"})
    with pytest.raises(NotNow, match=r"UPDATE_RC_IN_PROGRESS; .* call again when that is over"):
        Carrier(Asked(played.url, scaling), ZERO, lambda _: None, PACE).carry_out((take_down,))
    said: list[str] = []
    delete(Asked(played.url, scaling), ZERO, tell=said.append, pace=PACE)
    assert said.count("take component ranking down") == 2
    assert delete(Asked(played.url), ZERO, tell=said.append, pace=PACE) == 0


def test_too_large_a_reservation_goes_down_step_by_step_until_there_is_room(
    played: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservation, "BASE_MIB", 2048)  # a quarter of the machine, twice what is to be had here
    said: list[str] = []
    aws = Asked(played.url)
    apply(aws, ZERO, tell=said.append, pace=PACE)
    asked = [line.split()[3] for line in said if line.startswith("make the component")]
    assert asked == ["2,048", "1,536", "1,152", "832"]
    assert apply(Asked(played.url), ZERO, tell=said.append, pace=PACE).n_calls == 0
    delete(aws, ZERO, tell=lambda _: None, pace=PACE)
    by_hand = wanted("zero", "[zero]\nmemory = 4096", name="ranking")
    with pytest.raises(NotAsAsked, match=r"not enough hardware .* ask for less: \[zero\] memory"):
        apply(aws, by_hand, tell=lambda _: None, pace=PACE)
    delete(aws, by_hand, tell=lambda _: None, pace=PACE)


def test_cut_off_at_each_change_in_turn_it_ends_as_one_that_was_not(played: Platform) -> None:
    changes = cut_to_pieces(played.url, ZERO)
    assert changes.count("CreateInferenceComponent") == 1
    pieces = state(played.url, ZERO)
    delete(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE)
    apply(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE)
    whole = state(played.url, ZERO)
    # The wake alarm's action is an ARN with a number of AWS's in it.
    for one in (pieces, whole):
        one["alarms"] = {name: len(actions) for name, actions in one["alarms"].items()}
    assert pieces == whole
    delete(Asked(played.url), ZERO, tell=lambda _: None, pace=PACE)


def leaping() -> Pace:
    """Hours pass in a moment, for whoever waits."""
    clock = FakeClock()

    def sleep(_: float) -> None:
        time.sleep(0.02)
        clock.advance(300)

    return Pace(sleep=sleep, monotonic=clock)


def test_what_stays_in_creating_is_given_up_and_found_by_the_doctor() -> None:
    with play(traps=["creating-forever"]) as one:
        prepare(one.url)
        with pytest.raises(NotNow, match="the endpoint is Creating for longer than it may"):
            apply(Asked(one.url), ZERO, tell=lambda _: None, pace=leaping())
        health = examine(Asked(one.url), ZERO)
        later = replace(health, at=health.at + timedelta(hours=30))
        assert "endpoint-stuck" in {found.check for found in diagnose(ZERO, later)}


def test_no_capacity_is_told_with_awss_words() -> None:
    with play(traps=["no-capacity"]) as one:
        prepare(one.url)
        with pytest.raises(NotAsAsked, match="capacity"):
            apply(Asked(one.url), ZERO, tell=lambda _: None, pace=PACE)
        found = {one.check for one in diagnose(ZERO, examine(Asked(one.url), ZERO))}
        assert found & {"endpoint-failed", "component-failed"}


def test_throttled_a_call_is_made_again_and_at_last_told() -> None:
    with play(traps=["throttling"]) as one:  # each call's first attempt
        patient = Aws(client=lambda service: client(one.url, service, retries={"total_max_attempts": 3}))
        assert patient.call("sagemaker", "ListModels") == {"Models": [], "ResponseMetadata": ANY}
        with pytest.raises(NotNow, match=r"AWS is busy .*; call again, it goes on"):
            Asked(one.url).call("sagemaker", "ListEndpointConfigs")


def test_a_region_that_takes_no_zero_is_told_before_anything_costs() -> None:
    with play(traps=["zero-refused"]) as one:
        prepare(one.url)
        aws = Asked(one.url)
        with pytest.raises(Refused, match="this region takes no endpoint that scales to zero"):
            apply(aws, ZERO, tell=lambda _: None, pace=PACE)
        assert aws.changes == ["CreateModel"]
        delete(aws, ZERO, tell=lambda _: None, pace=PACE)


def test_the_least_rights_that_are_printed_are_enough_and_one_less_is_told_in_awss_words() -> None:
    def role(url: str, name: str, policy: dict[str, Any]) -> str:
        iam = client(url, "iam")
        made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust_policy()))
        iam.put_role_policy(RoleName=name, PolicyName="endpoint", PolicyDocument=json.dumps(policy))
        arn: str = made["Role"]["Arn"]
        return arn

    with play(traps=["role-missing-rights"]) as one:
        prepare(one.url)
        multi = wanted(name="shop")
        needed = execution_policy(multi)
        less = {**needed, "Statement": [part for part in needed["Statement"] if part["Sid"] != "ReadImage"]}
        enough = replace(multi, role=role(one.url, "enough", needed))
        lacking = replace(multi, role=role(one.url, "lacking", less))
        health = examine(Asked(one.url), lacking)
        assert any("may not ecr:BatchCheckLayerAvailability" in notice for notice in preflight(lacking, health).notices)
        with pytest.raises(NotAsAsked, match="does not have BatchCheckLayerAvailability permission for the image"):
            apply(Asked(one.url), lacking, tell=lambda _: None, pace=PACE)
        apply(Asked(one.url), enough, tell=lambda _: None, pace=PACE)
        assert "role-lacks" not in {found.check for found in diagnose(enough, examine(Asked(one.url), enough))}
        delete(Asked(one.url), enough, tell=lambda _: None, pace=PACE)
