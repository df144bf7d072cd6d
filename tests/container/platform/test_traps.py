"""Each trap as a client meets it, and that nothing is wrong without it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.clock import ManualClock
from container.platform.traps import Traps, TrapUnknown
from tests.rig.platform import BUCKET, FAKE, Account, client, platform

Make = Callable[..., Account]
VERSION = "2012-10-17"


@pytest.fixture
def with_traps() -> Iterator[Make]:
    with ExitStack() as open_:

        def make(*names: str) -> Account:
            account = Account(open_.enter_context(platform(clock=ManualClock(), traps=names)))
            open_.callback(account.close)
            return account

        yield make


def create(aws: Account, name: str = "e") -> str:
    aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=aws.config(f"{name}-config"))
    return name


def test_a_name_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(TrapUnknown, match="no trap 'zero'; there are zero-refused, "):
        Traps(["zero"])
    assert not Traps().is_on("no-capacity")
    with pytest.raises(TrapUnknown):
        Traps().is_on("typo")


def test_no_capacity_fails_a_new_endpoint_in_the_services_words(with_traps: Make) -> None:
    aws = with_traps("no-capacity")
    told = aws.settled(create(aws))
    assert told["EndpointStatus"] == "Failed"
    assert "InsufficientInstanceCapacity" in told["FailureReason"]


def test_slow_start_takes_ten_platform_minutes_more(with_traps: Make) -> None:
    aws = with_traps("slow-start")
    name = create(aws)
    for _ in range(59):
        aws.tick(10)
    assert aws.describe(name)["EndpointStatus"] == "Creating"
    aws.until(name, lambda told: aws.tick(10) or told["EndpointStatus"] == "InService")


def test_creating_forever_cannot_even_be_deleted(with_traps: Make) -> None:
    aws = with_traps("creating-forever")
    name = create(aws)
    aws.tick(7 * 24 * 3600)
    assert aws.describe(name)["EndpointStatus"] == "Creating"
    with pytest.raises(ClientError, match="in-progress"):
        aws.sagemaker.delete_endpoint(EndpointName=name)


def test_every_event_comes_twice(with_traps: Make) -> None:
    aws = with_traps("double-events")
    aws.settled(create(aws))
    sent = aws.platform.bus.sent
    assert sent
    assert sent[::2] == sent[1::2]


def role(aws: Account, name: str, *actions: str, principal: str = "sagemaker.amazonaws.com") -> str:
    iam = client(aws.url, "iam")
    trust = {
        "Version": VERSION,
        "Statement": [{"Effect": "Allow", "Principal": {"Service": principal}, "Action": "sts:AssumeRole"}],
    }
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    if actions:
        allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        iam.put_role_policy(
            RoleName=name, PolicyName="p", PolicyDocument=json.dumps({"Version": VERSION, "Statement": allowed})
        )
    iam.close()
    return arn


def multi(aws: Account, name: str, role_arn: str, image: str = FAKE) -> Any:
    container = {"Image": image, "Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/live/"}
    aws.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=role_arn)
    variant = {"VariantName": "v", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    aws.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    return aws.settled(name)


def test_a_role_is_held_against_what_it_needs(with_traps: Make) -> None:
    aws = with_traps("role-missing-rights")
    ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mme:1"
    for arn in ("arn:aws:iam::123456789012:role/none", role(aws, "stranger", "*", principal="ec2.amazonaws.com")):
        with pytest.raises(ClientError, match="Could not assume role"):
            multi(aws, "never", arn)
    single = {"Image": FAKE, "ModelDataUrl": f"s3://{BUCKET}/live/a.tar.gz"}
    with pytest.raises(ClientError, match="Could not access model data"):
        aws.sagemaker.create_model(ModelName="one", PrimaryContainer=single, ExecutionRoleArn=role(aws, "bare"))
    told = multi(aws, "image", role(aws, "no-image", "s3:*", "ecr:BatchCheckLayerAvailability"), ecr)
    assert told["EndpointStatus"] == "Failed"
    assert f'does not have BatchGetImage permission for the image: "{ecr}"' in told["FailureReason"]
    assert multi(aws, "data", role(aws, "no-data", "logs:*"))["EndpointStatus"] == "InService"
    with pytest.raises(aws.runtime.exceptions.ValidationError, match="Failed to download model data"):
        aws.ask("data")
    multi(aws, "good", role(aws, "good", "s3:Get*"))
    assert aws.ask("good")["body"] == "1,2"


def test_a_managed_policy_and_a_denial_count(with_traps: Make) -> None:
    aws = with_traps("role-missing-rights")
    iam = client(aws.url, "iam")
    arn = role(aws, "managed")
    iam.attach_role_policy(RoleName="managed", PolicyArn="arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    rights = aws.platform.rights
    assert rights.may(arn, "s3:GetObject", "arn:aws:s3:::b/k")
    assert not rights.may(arn, "s3:PutObject", "arn:aws:s3:::b/k")
    denied = {
        "Version": VERSION,
        "Statement": [{"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/secret/*"}],
    }
    iam.put_role_policy(RoleName="managed", PolicyName="d", PolicyDocument=json.dumps(denied))
    assert not rights.may(arn, "s3:getobject", "arn:aws:s3:::b/secret/k")
    assert rights.may(arn, "s3:getobject", "arn:aws:s3:::b/other/k")
