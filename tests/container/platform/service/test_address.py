"""One address for everything: ours, moto's, and what nobody plays."""

from __future__ import annotations

import http.client
import io
import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from container.platform.clock import ManualClock
from tests.rig.platform import Account, client, platform


@pytest.fixture(scope="module")
def aws() -> Iterator[Account]:
    with platform(clock=ManualClock()) as played:
        account = Account(played)
        yield account
        account.close()


def post(aws: Account, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", int(aws.url.rpartition(":")[2]), timeout=30)
    connection.request("POST", "/", body, headers)
    response = connection.getresponse()
    told = response.status, {name.lower(): value for name, value in response.getheaders()}, json.loads(response.read())
    connection.close()
    return told


def test_neighbours_answer_at_the_same_address_for_the_same_account(aws: Account) -> None:
    assert client(aws.url, "sts").get_caller_identity()["Account"] == aws.platform.account
    s3 = client(aws.url, "s3")
    s3.put_object(Bucket="models", Key="a b/\u00e4+?", Body=b"x" * 100_000)
    assert s3.get_object(Bucket="models", Key="a b/\u00e4+?")["Body"].read() == b"x" * 100_000
    s3.upload_fileobj(io.BytesIO(b"y" * 9_000_000), "models", "parts")  # several parts
    assert s3.head_object(Bucket="models", Key="parts")["ContentLength"] == 9_000_000
    queue = client(aws.url, "sqs").create_queue(QueueName="q")["QueueUrl"]
    client(aws.url, "sqs").send_message(QueueUrl=queue, MessageBody="m")
    assert client(aws.url, "sqs").receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "m"
    for service, call, member in (
        ("events", "list_rules", "Rules"), ("iam", "list_roles", "Roles"), ("logs", "describe_log_groups", "logGroups"),
        ("ecr", "describe_repositories", "repositories"), ("scheduler", "list_schedules", "Schedules"),
        ("cloudwatch", "describe_alarms", "MetricAlarms"), ("sagemaker", "list_model_package_groups",
                                                             "ModelPackageGroupSummaryList"),
    ):  # fmt: skip
        assert getattr(client(aws.url, service), call)()[member] == [], service


def test_two_platforms_of_one_process_know_nothing_of_each_other(aws: Account) -> None:
    client(aws.url, "sqs").create_queue(QueueName="mine")
    with platform(clock=ManualClock()) as other:
        assert "QueueUrls" not in client(other.url, "sqs").list_queues()


def test_what_is_not_played_says_so_to_the_caller_and_in_the_log(
    aws: Account, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ClientError) as caught:
        aws.sagemaker.create_hub(HubName="h", HubDescription="d")
    assert caught.value.response["Error"]["Code"] == "NotImplemented"
    assert "does not play CreateHub of sagemaker" in caplog.text
    with pytest.raises(ClientError, match="does not play InvokeEndpointAsync"):
        aws.runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://b/k")


def test_tags_are_added_listed_and_taken_off(aws: Account) -> None:
    aws.model("tagged")
    arn = aws.sagemaker.describe_model(ModelName="tagged")["ModelArn"]
    aws.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["a"])
    assert aws.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
    many = [{"Key": f"k{n}", "Value": ""} for n in range(50)]
    with pytest.raises(aws.sagemaker.exceptions.ClientError, match="at most 50"):
        aws.sagemaker.add_tags(ResourceArn=arn, Tags=many)


def test_a_page_of_another_site_is_refused_whatever_it_asks(aws: Account) -> None:
    port = int(aws.url.rpartition(":")[2])
    for method, origin, status in (
        ("POST", "http://evil.example", 403), ("OPTIONS", "null", 403), ("GET", f"http://evil.example:{port}", 403),
        ("POST", aws.url, 200), ("POST", f"http://localhost:{port}", 200),
    ):  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, "/", b"{}", {"Origin": origin, "X-Amz-Target": "SageMaker.ListModels"})
        assert connection.getresponse().status == status, (method, origin)
        connection.close()


def test_bodies_that_are_no_request_are_refused(aws: Account) -> None:
    target = {"X-Amz-Target": "SageMaker.CreateModel"}
    assert post(aws, target, b"{nonsense")[2]["__type"] == "SerializationException"
    assert post(aws, target, b"[]")[2]["__type"] == "SerializationException"
    status, headers, told = post(aws, {"X-Amz-Target": "SageMaker.Nonsense"}, b"{}")
    assert (status, told["__type"]) == (400, "UnknownOperationException")
    assert headers["x-amzn-errortype"] == "UnknownOperationException"


def test_a_body_in_chunks_is_read_whole(aws: Account) -> None:
    status, _, told = post(aws, {"X-Amz-Target": "SageMaker.ListModels"}, iter([b'{"MaxRes', b'ults": 1}']))
    assert (status, len(told["Models"])) == (200, min(1, len(told["Models"])))


@pytest.mark.parametrize("head", ["Content-Length: x", "Content-Length: -1", "Transfer-Encoding: chunked"])
def test_a_body_without_a_sane_length_ends_the_connection(aws: Account, head: str) -> None:
    with socket.create_connection(("127.0.0.1", int(aws.url.rpartition(":")[2])), 30) as raw:
        raw.sendall(f"POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\nzz\r\n".encode())
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")


def test_an_object_whose_sender_went_half_way_is_not_kept(aws: Account) -> None:
    with socket.create_connection(("127.0.0.1", int(aws.url.rpartition(":")[2])), 30) as raw:
        raw.sendall(b"PUT /models/half HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        raw.shutdown(socket.SHUT_WR)
        answer = raw.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400")
    assert "Contents" not in client(aws.url, "s3").list_objects_v2(Bucket="models", Prefix="half")


def test_a_call_signed_for_another_region_is_told_which_one_is_played(aws: Account) -> None:
    other = boto3.client(
        "sagemaker", endpoint_url=aws.url, region_name="eu-west-3", aws_access_key_id="a", aws_secret_access_key="b"
    )
    with pytest.raises(ClientError, match="this platform plays region us-east-1"):
        other.list_models()


def test_boto3_bears_throttling() -> None:
    with platform(clock=ManualClock(), traps=["throttling"]) as played:
        patient = client(played.url, "sagemaker", retries={"mode": "standard", "total_max_attempts": 3})
        assert patient.list_models()["ResponseMetadata"]["RetryAttempts"] == 1
        with pytest.raises(ClientError, match="Rate exceeded") as caught:
            client(played.url, "sagemaker").list_models()
        assert caught.value.response["Error"]["Code"] == "ThrottlingException"
