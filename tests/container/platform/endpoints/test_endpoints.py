"""Endpoints made and deleted, what is refused, and what a caller of InvokeEndpoint gets."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.endpoints import containers
from tests.rig.endpoint import until
from tests.rig.platform import BUCKET, ROLE, Account, client


def refused(call: Any, **parameters: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def two(aws: Account) -> str:
    """An endpoint of two instances with several models."""
    return aws.endpoint("two", aws.config("two-config", 2))


def test_an_endpoint_is_creating_then_in_service_and_its_events_say_so(aws: Account) -> None:
    aws.sagemaker.create_endpoint(
        EndpointName="Made", EndpointConfigName=aws.config("made-config"), Tags=[{"Key": "team", "Value": "a"}]
    )
    assert aws.describe("Made")["EndpointStatus"] == "Creating"
    assert refused(aws.runtime.invoke_endpoint, EndpointName="Made", Body=b"")[0] == "ValidationError"
    told = aws.settled("Made")
    assert told["EndpointArn"].endswith(":endpoint/made")  # in lower case, as SageMaker has it
    assert told["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    sent = [event for event in aws.platform.bus.sent if event.detail["EndpointName"] == "Made"]
    assert sent[-1].detail_type == "SageMaker Endpoint State Change"
    assert (sent[-1].detail["EndpointStatus"], sent[-1].detail["Tags"]) == ("IN_SERVICE", {"team": "a"})
    assert sent[-1].resources == (told["EndpointArn"],)
    pid = aws.ask("Made")["pid"]
    aws.sagemaker.delete_endpoint(EndpointName="Made")
    aws.until_gone("Made")
    assert not is_running(pid)
    assert not aws.sagemaker.list_tags(ResourceArn=told["EndpointArn"])["Tags"]


def test_names_that_are_taken_or_missing_are_refused_in_the_services_words(aws: Account, two: str) -> None:
    for call, parameters, words in (
        (aws.sagemaker.create_endpoint, {"EndpointName": "TWO", "EndpointConfigName": "two-config"}, "existing endpoint"),
        (aws.sagemaker.create_endpoint, {"EndpointName": "x", "EndpointConfigName": "none"}, "Could not find endpoint con"),
        (aws.sagemaker.describe_endpoint, {"EndpointName": "none"}, 'Could not find endpoint "arn:aws:sagemaker:us-east-1'),
        (aws.sagemaker.delete_endpoint, {"EndpointName": "none"}, "Could not find endpoint"),
        (aws.sagemaker.delete_endpoint_config, {"EndpointConfigName": "none"}, "Could not find endpoint configuration"),
        (aws.sagemaker.describe_model, {"ModelName": "none"}, "Could not find model"),
        (aws.sagemaker.create_model, {"ModelName": "two-config", "PrimaryContainer": {"Image": "x"}}, "existing model"),
    ):  # fmt: skip
        code, message = refused(call, **parameters)
        assert (code, words in message) == ("ValidationException", True), message


def test_variants_that_cannot_be_are_refused(aws: Account, two: str) -> None:
    unchecked = client(aws.url, "sagemaker", parameter_validation=False)  # botocore would not send all of it
    good = {"VariantName": "v", "ModelName": "two-config", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    for variants, words in (
        ([good, good], "unique"),
        ([{**good, "ModelName": "none"}], "Could not find model"),
        ([{**good, "InstanceType": "ml.none.large"}], "Member must satisfy enum value set"),
        ([{**good, "InitialInstanceCount": 0}], "greater than or equal to 1"),
        ([{key: value for key, value in good.items() if key != "InitialInstanceCount"}], "InitialInstanceCount"),
        (
            [{**good, "ManagedInstanceScaling": {"Status": "ENABLED"}}],
            "only supported for inference component endpoints",
        ),
        ([{"VariantName": "v", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}], "ExecutionRoleArn"),
    ):
        code, message = refused(
            unchecked.create_endpoint_config, EndpointConfigName="never", ProductionVariants=variants
        )
        assert (code, words in message) == ("ValidationException", True), message


def test_a_model_is_loaded_where_it_is_asked_for_and_asked_there_again(aws: Account, two: str) -> None:
    pids = {aws.ask(two, "a.tar.gz")["pid"] for _ in range(10)}
    assert len(pids) == 1
    assert {aws.ask(two, "b.tar.gz")["pid"] for _ in range(10)}.isdisjoint(pids)  # where less is loaded


def test_environment_and_headers_reach_the_container_and_nothing_else_of_ours(aws: Account, two: str) -> None:
    told = aws.ask(two, CustomAttributes="a=1", SessionId="s-1")
    assert (told["body"], told["attributes"], told["session"], told["who"]) == ("1,2", "a=1", "s-1", "two-config")
    environment = told["environment"]
    assert environment["SAGEMAKER_MULTI_MODEL"] == "true"
    assert environment["AWS_ENDPOINT_URL"] == aws.url
    answer = aws.runtime.invoke_endpoint(EndpointName=two, TargetModel="a.tar.gz", Body=b"1", SessionId="NEW_SESSION")
    assert (answer["NewSessionId"][:5], answer["InvokedProductionVariant"]) == ("1234;", "AllTraffic")


def test_calls_that_name_what_is_not_there_are_refused(aws: Account, two: str) -> None:
    for parameters, words in (
        ({"EndpointName": "none"}, "Endpoint none of account"),
        ({"EndpointName": "Two", "TargetModel": "a.tar.gz"}, "not found"),  # a name is case-sensitive here
        ({"EndpointName": two}, "multi-model endpoint"),
        ({"EndpointName": two, "TargetModel": "none.tar.gz"}, "Failed to download model data"),
        ({"EndpointName": two, "TargetModel": "../a.tar.gz"}, ".."),
        ({"EndpointName": two, "TargetModel": "a.tar.gz", "TargetVariant": "none"}, "Variant none not found"),
        (
            {"EndpointName": two, "TargetModel": "a.tar.gz", "InferenceComponentName": "c"},
            "Component Name header is not",
        ),
        ({"EndpointName": two, "TargetModel": "a.tar.gz", "TargetContainerHostname": "c"}, "hostname"),
    ):
        code, message = refused(aws.runtime.invoke_endpoint, Body=b"1", **parameters)
        assert (code, words in message) == ("ValidationError", True), message


def test_an_error_of_the_container_is_a_model_error_with_its_status(aws: Account) -> None:
    name = aws.endpoint("wrong", aws.config("wrong-config", HOW="wrong"))
    with pytest.raises(aws.runtime.exceptions.ModelError) as caught:
        aws.ask(name)
    assert caught.value.response["OriginalStatusCode"] == 500
    assert "wrong on purpose" in caught.value.response["OriginalMessage"]
    assert f"/aws/sagemaker/Endpoints/{name}" in caught.value.response["LogStreamArn"]


def test_its_output_is_in_cloudwatch_logs(aws: Account, two: str) -> None:
    logs, group = client(aws.url, "logs"), f"/aws/sagemaker/Endpoints/{two}"
    names = {f"AllTraffic/{instance.id}" for instance in aws.platform.endpoints.instances(two, "AllTraffic")}

    def is_told() -> bool:
        try:
            told = [logs.get_log_events(logGroupName=group, logStreamName=name)["events"] for name in names]
        except ClientError:  # nothing was written yet
            return False
        return [[event["message"] for event in events] for events in told] == [["a line of its log"]] * 2

    until(is_told, 30)
    logs.close()


def test_a_single_model_endpoint_takes_no_target(aws: Account) -> None:
    name = aws.endpoint("single", aws.config("single-config", is_multi=False))
    assert aws.ask(name, None)["path"] == "/invocations"
    code, message = refused(aws.runtime.invoke_endpoint, EndpointName=name, Body=b"1", TargetModel="a.tar.gz")
    assert (code, message) == (
        "ValidationError",
        "Endpoint single is not a multi-model endpoint and does not support target model header.",
    )


def test_two_variants_share_calls_by_weight_and_one_can_be_named(aws: Account) -> None:
    name = aws.endpoint("ab", aws.config("ab-config", variants={"A": 3.0, "B": 1.0}))
    counts = aws.whose(name, 200)
    assert 100 < counts["ab-config-A"] < 195
    assert aws.ask(name, TargetVariant="B")["who"] == "ab-config-B"
    aws.sagemaker.update_endpoint_weights_and_capacities(
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "A", "DesiredWeight": 0}]
    )
    aws.settled(name)
    assert aws.whose(name, 10) == {"ab-config-B": 10}
    code, message = refused(
        aws.sagemaker.update_endpoint_weights_and_capacities,
        EndpointName=name, DesiredWeightsAndCapacities=[{"VariantName": "C", "DesiredWeight": 0}],
    )  # fmt: skip
    assert (code, '"C" is/are not present' in message) == ("ValidationException", True)


@pytest.mark.parametrize("how", ["never-healthy", "dies", "lists-nothing"])
def test_a_container_that_does_not_come_up_fails_the_endpoint(
    aws: Account, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "REAL_PATIENCE_S", 1.0)  # beside the platform's minute
    name, variant = f"bad-{how}", {"ContainerStartupHealthCheckTimeoutInSeconds": 60}
    aws.sagemaker.create_endpoint(
        EndpointName=name, EndpointConfigName=aws.config(f"{name}-config", HOW=how, variant=variant)
    )
    told = aws.until(name, lambda told: aws.tick(30) or told["EndpointStatus"] == "Failed")
    assert told["FailureReason"] == (
        "The primary container for production variant AllTraffic did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint."
    )
    code, message = refused(aws.sagemaker.update_endpoint, EndpointName=name, EndpointConfigName=f"{name}-config")
    assert (code, "failed endpoint" in message) == ("ValidationException", True)
    aws.sagemaker.delete_endpoint(EndpointName=name)
    aws.until_gone(name)


def test_a_container_that_dies_is_started_again_and_others_answer_meanwhile(aws: Account) -> None:
    name = aws.endpoint("dying", aws.config("dying-config", 1))
    pid = aws.ask(name)["pid"]
    os.kill(pid, signal.SIGKILL)

    def is_back(_: Any) -> bool:
        try:
            return bool(aws.ask(name)["pid"] != pid)
        except ClientError:
            return False

    aws.until(name, is_back)
    assert aws.describe(name)["EndpointStatus"] == "InService"


def test_what_calls_are_worth_is_written_to_cloudwatch_once_for_the_variant_and_once_for_the_config(
    aws: Account,
) -> None:
    name = aws.endpoint("measured", aws.config("measured-config", 2))
    for _ in range(4):
        aws.ask(name)
    now = aws.platform.clock.now()
    window = now - timedelta(minutes=1), now + timedelta(minutes=1)
    dimensions = {"EndpointName": name, "VariantName": "AllTraffic"}
    for more in ({}, {"EndpointConfigName": "measured-config"}):

        def total(metric: str, statistic: str = "Sum", more: dict[str, str] = more) -> float:
            found = aws.platform.metrics.query(
                "AWS/SageMaker", metric, {**dimensions, **more}, *window, 3600, statistic
            )
            return found[0][1]

        assert (total("Invocations"), total("InvocationsPerInstance"), total("Invocation5XXErrors")) == (4, 2, 0)
        assert total("ModelLatency", "SampleCount") == 4
    hits = aws.platform.metrics.query("AWS/SageMaker", "ModelCacheHit", dimensions, *window, 3600, "Average")
    assert hits[0][1] == 0.75


def test_many_calls_at_once_spill_to_the_other_instance(aws: Account) -> None:
    name = aws.endpoint("spill", aws.config("spill-config", 2))
    aws.ask(name)
    with ThreadPoolExecutor(16) as callers:
        told = list(callers.map(lambda _: aws.ask(name, body=b"slow"), range(24)))
    assert len({one["pid"] for one in told}) == 2


def test_the_instance_with_the_least_under_way_is_asked_where_the_config_says_so(aws: Account) -> None:
    routing = {"RoutingConfig": {"RoutingStrategy": "LEAST_OUTSTANDING_REQUESTS"}}
    name = aws.endpoint("least", aws.config("least-config", 2, is_multi=False, variant=routing))
    with ThreadPoolExecutor(2) as callers:
        told = list(callers.map(lambda _: aws.ask(name, None, body=b"slow"), range(2)))
    assert len({one["pid"] for one in told}) == 2


def test_a_body_of_more_than_25_megabytes_is_refused(aws: Account, two: str) -> None:
    limit = 25 * 1024 * 1024
    assert len(aws.ask(two, body=b"1" * limit)["body"]) == limit
    assert (
        refused(aws.runtime.invoke_endpoint, EndpointName=two, Body=b"1" * (limit + 1), TargetModel="a.tar.gz")[0]
        == "413"
    )


def test_models_and_configs_are_listed_a_page_at_a_time(aws: Account) -> None:
    for number in range(3):
        aws.model(f"page-{number}")
    first = aws.sagemaker.list_models(NameContains="PAGE-", MaxResults=2, SortBy="Name", SortOrder="Ascending")
    assert [one["ModelName"] for one in first["Models"]] == ["page-0", "page-1"]
    pages = aws.sagemaker.get_paginator("list_models").paginate(NameContains="page-", PaginationConfig={"PageSize": 2})
    assert sorted(one["ModelName"] for page in pages for one in page["Models"]) == ["page-0", "page-1", "page-2"]
    assert refused(aws.sagemaker.list_models, NextToken="nonsense")[0] == "ValidationException"


def test_a_config_or_model_in_use_may_be_deleted_and_the_endpoint_goes_on(aws: Account) -> None:
    name = aws.endpoint("orphan", aws.config("orphan-config"))
    aws.sagemaker.delete_endpoint_config(EndpointConfigName="orphan-config")
    aws.sagemaker.delete_model(ModelName="orphan-config")
    assert aws.ask(name)["who"] == "orphan-config"
    assert aws.describe(name)["EndpointConfigName"] == "orphan-config"


def test_a_model_that_cannot_be_is_refused(aws: Account) -> None:
    for container, words in (
        ({"Image": "x", "Mode": "MultiModel"}, "ModelDataUrl is required"),
        ({"Image": "x", "MultiModelConfig": {"ModelCacheSetting": "Enabled"}}, "for a container in MultiModel"),
        ({"Image": "x", "Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/", "ModelDataSource": {"S3DataSource": {
            "S3Uri": "s3://b/k", "S3DataType": "S3Object", "CompressionType": "Gzip"}}}, "ModelDataSource is not supported"),
        ({"Image": "x", "Environment": {f"K{n}": "v" * 1024 for n in range(40)}}, "bytes"),
        ({"ModelDataUrl": "s3://b/k"}, "needs an Image"),
    ):  # fmt: skip
        code, message = refused(
            aws.sagemaker.create_model, ModelName="never", PrimaryContainer=container, ExecutionRoleArn=ROLE
        )
        assert (code, words in message) == ("ValidationException", True), message
