"""AWS's own pages run against `mme platform` with our real container: the multi-model guide, deployment guardrails, the CLI.

Each test does what a page's examples do, with names of its own, and expects what the page says.
Source: awsdocs/amazon-sagemaker-developer-guide a869fa5, create-multi-model-endpoint, invoke-multi-model-endpoint,
add-models-to-endpoint, deployment-guardrails-*.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from tests.rig import boosters
from tests.rig.endpoint import needs_classes
from tests.rig.faulty_s3 import ENVIRONMENT
from tests.rig.platform import IMAGES, ROLE, Account, client, platform

pytestmark = needs_classes
ROWS = boosters.rows(2, 6)
CSV = "\n".join(",".join(map(str, row)) for row in ROWS.tolist())
OURS = "123456789012.dkr.ecr.us-east-1.amazonaws.com/multi-model-endpoint:latest"
BUCKET, PREFIX = "my-bucket", "path/to/artifacts"
SPEED = 600


@pytest.fixture(scope="module")
def aws() -> Iterator[Account]:
    """The platform at --speed 600, and a bucket with two segments' artifacts."""
    scratch = Path(tempfile.mkdtemp(prefix="mt-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MME_SCRATCH", str(scratch))
        with platform(speed=SPEED, images=IMAGES) as played:
            account = Account(played)
            s3 = client(account.url, "s3")
            s3.create_bucket(Bucket=BUCKET)
            for number in (0, 1):
                put(account, number)
            yield account
            account.close()
    assert list(scratch.iterdir()) == []
    scratch.rmdir()


def put(aws: Account, number: int) -> str:
    target = f"segment-{number}.tar.gz"
    s3 = client(aws.url, "s3")
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{target}", Body=boosters.segment_archive(number))
    s3.close()
    return target


def expected(number: int) -> np.ndarray:
    return boosters.expected(boosters.segment(number), ROWS).ravel()


def ask(aws: Account, name: str, target: str | None, **more: Any) -> np.ndarray:
    where = {"TargetModel": target} if target else {}
    answer = aws.runtime.invoke_endpoint(
        EndpointName=name, ContentType="text/csv", Accept="text/csv", Body=CSV, **where, **more
    )
    return np.array([float(line) for line in answer["Body"].read().split()])


def in_service(aws: Account, name: str) -> Any:
    aws.sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=name, WaiterConfig={"Delay": 0.2, "MaxAttempts": 300}
    )
    return aws.sagemaker.describe_endpoint(EndpointName=name)


def config(aws: Account, name: str, **environment: str) -> str:
    """Model and config as create-multi-model-endpoint makes them."""
    container = {
        "Image": OURS, "ModelDataUrl": f"s3://{BUCKET}/{PREFIX}/", "Mode": "MultiModel", "Environment": environment,
        "MultiModelConfig": {"ModelCacheSetting": "Enabled"},
    }  # fmt: skip
    aws.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
    aws.sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[{
            "InstanceType": "ml.m4.xlarge", "InitialInstanceCount": 1, "InitialVariantWeight": 1, "ModelName": name,
            "VariantName": "AllTraffic"}],
    )  # fmt: skip
    return name


@pytest.fixture(scope="module")
def endpoint(aws: Account) -> str:
    aws.sagemaker.create_endpoint(EndpointName="guide", EndpointConfigName=config(aws, "guide-1"))
    assert in_service(aws, "guide")["EndpointStatus"] == "InService"
    return "guide"


def test_a_model_is_named_by_its_path_and_answers_as_xgboost_does(aws: Account, endpoint: str) -> None:
    for number in (0, 1, 0):
        np.testing.assert_allclose(ask(aws, endpoint, f"segment-{number}.tar.gz"), expected(number), rtol=1e-6)


def test_a_model_added_to_the_prefix_is_served_at_once_and_a_removed_one_is_no_more(
    aws: Account, endpoint: str
) -> None:
    with pytest.raises(ClientError) as caught:
        ask(aws, endpoint, "segment-7.tar.gz")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
    target = put(aws, 7)
    np.testing.assert_allclose(ask(aws, endpoint, target), expected(7), rtol=1e-6)
    client(aws.url, "s3").delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{target}")
    np.testing.assert_allclose(ask(aws, endpoint, target), expected(7), rtol=1e-6)  # loaded, it goes on answering


def test_what_the_model_refuses_is_a_model_error(aws: Account, endpoint: str) -> None:
    with pytest.raises(aws.runtime.exceptions.ModelError) as caught:
        aws.runtime.invoke_endpoint(
            EndpointName=endpoint, TargetModel="segment-0.tar.gz", ContentType="text/csv", Body="1,2"
        )
    assert caught.value.response["OriginalStatusCode"] == 400


def test_an_update_bakes_and_the_new_fleet_answers(aws: Account, endpoint: str) -> None:
    """deployment-guardrails-blue-green-all-at-once, in platform time: ten minutes are a second."""
    new = config(aws, "guide-2", SAGEMAKER_INFERENCE_OUTPUT="predicted_score")
    aws.sagemaker.update_endpoint(
        EndpointName=endpoint, EndpointConfigName=new,
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {
                "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0},
                "TerminationWaitInSeconds": 600, "MaximumExecutionTimeoutInSeconds": 1800,
            }
        },
    )  # fmt: skip
    while aws.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "Updating":
        np.testing.assert_allclose(ask(aws, endpoint, "segment-0.tar.gz"), expected(0), rtol=1e-6)
    assert aws.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"] == new


def test_a_container_with_a_setting_that_is_none_never_serves_and_the_update_is_undone(
    aws: Account, endpoint: str
) -> None:
    before = aws.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    bad = config(aws, "guide-bad", MME_LOADERS="many")
    aws.sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=bad)
    told = in_service(aws, endpoint)
    assert told["EndpointConfigName"] == before
    assert "FailureReason" not in told
    np.testing.assert_allclose(ask(aws, endpoint, "segment-1.tar.gz"), expected(1), rtol=1e-6)


def test_a_container_that_finds_its_models_itself_runs_as_a_single_model(aws: Account) -> None:
    container = {"Image": OURS, "Environment": {"MME_MODELS": f"s3://{BUCKET}/{PREFIX}/"}}
    aws.sagemaker.create_model(ModelName="itself", ExecutionRoleArn=ROLE, PrimaryContainer=container)
    variant = {
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": 1,
        "ModelName": "itself",
        "VariantName": "AllTraffic",
    }
    aws.sagemaker.create_endpoint_config(EndpointConfigName="itself", ProductionVariants=[variant])
    aws.sagemaker.create_endpoint(EndpointName="itself", EndpointConfigName="itself")
    in_service(aws, "itself")
    told = ask(aws, "itself", None, CustomAttributes="TargetModel=segment-1.tar.gz")
    np.testing.assert_allclose(told, expected(1), rtol=1e-6)
    aws.sagemaker.delete_endpoint(EndpointName="itself")


@pytest.mark.skipif(shutil.which("aws") is None, reason="there is no AWS CLI")
def test_the_aws_cli_makes_changes_asks_and_destroys_an_endpoint(aws: Account, tmp_path: Path) -> None:
    def cli(*arguments: str) -> Any:
        done = subprocess.run(
            ["aws", *arguments, "--output", "json"], capture_output=True, text=True, timeout=100,
            env={**os.environ, **ENVIRONMENT, "AWS_ENDPOINT_URL": aws.url, "AWS_PAGER": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    for name in ("cli-1", "cli-2"):
        aws.config(name, 2)
    cli("sagemaker", "create-endpoint", "--endpoint-name", "cli", "--endpoint-config-name", "cli-1")
    aws.settled("cli")
    canary = {"Type": "CANARY", "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 30}, "WaitIntervalInSeconds": 600}
    cli("sagemaker", "update-endpoint", "--endpoint-name", "cli", "--endpoint-config-name", "cli-2", "--deployment-config",
        json.dumps({"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": canary, "TerminationWaitInSeconds": 600,
                                              "MaximumExecutionTimeoutInSeconds": 1800}}))  # fmt: skip
    aws.settled("cli")
    body, out = tmp_path / "body", tmp_path / "out"
    body.write_text("1.0,2.0,5.0\n2.0,3.0,4.0")
    cli("sagemaker-runtime", "invoke-endpoint", "--endpoint-name", "cli", "--content-type", "text/csv",
        "--target-model", "a.tar.gz", "--body", f"fileb://{body}", str(out))  # fmt: skip
    assert json.loads(out.read_text())["who"] == "cli-2"
    cli("sagemaker", "delete-endpoint", "--endpoint-name", "cli")
    aws.until_gone("cli")
