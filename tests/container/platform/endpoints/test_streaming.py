"""InvokeEndpointWithResponseStream: what a container sends reaches boto3 as it comes, and what breaks off says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EventStreamError

from tests.container.platform.jobs.conftest import until
from tests.rig.platform import Account, platform


@pytest.fixture(scope="module")
def flag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream") / "go on"


@pytest.fixture(scope="module")
def account(flag: Path) -> Iterator[Account]:
    """With an endpoint `single` of one model, and `several` of many."""
    with platform() as played:
        made = Account(played)
        made.endpoint("single", made.config("single", is_multi=False, WAITS_FOR=str(flag)))
        made.endpoint("several", made.config("several"))
        yield made
        made.close()


def stream(account: Account, body: str, endpoint: str = "single", **more: Any) -> Any:
    return account.runtime.invoke_endpoint_with_response_stream(EndpointName=endpoint, Body=body, **more)


def figure(account: Account, name: str, statistic: str = "SampleCount") -> float:
    clock = account.platform.clock
    now = clock.now()
    dimensions = {"EndpointName": "single", "VariantName": "AllTraffic"}
    start, end = now.replace(hour=0, minute=0, second=0), now.replace(hour=23, minute=59, second=59)
    found = account.platform.metrics.query("AWS/SageMaker", name, dimensions, start, end, 86400, statistic)
    return sum(value for _, value in found)


def test_parts_come_as_the_container_sends_them(account: Account, flag: Path) -> None:
    answer = stream(account, "stream one wait two", Accept="text/lines", CustomAttributes="a")
    parts = iter(answer["Body"])
    assert [next(parts)["PayloadPart"]["Bytes"] for _ in range(2)] == [
        b"stream",
        b"one",
    ]  # and it still has to say more
    assert (answer["ContentType"], answer["InvokedProductionVariant"]) == ("text/lines", "AllTraffic")
    variant = account.platform.endpoints.find("single").side().variants["AllTraffic"]  # type: ignore[union-attr]
    assert [one.serving.n_outstanding for one in variant.instances if one.serving] == [1]
    flag.touch()
    assert b"".join(one["PayloadPart"]["Bytes"] for one in parts) == b"waittwo"
    until(lambda: figure(account, "Invocations") == 1)
    assert figure(account, "FirstChunkLatency") == 1
    assert 0 < figure(account, "FirstChunkModelLatency", "Average") <= figure(account, "ModelLatency", "Average")
    assert [one.serving.n_outstanding for one in variant.instances if one.serving] == [0]


def test_an_answer_that_is_whole_is_a_stream_too(account: Account) -> None:
    said = b"".join(one["PayloadPart"]["Bytes"] for one in stream(account, "x" * 200_000)["Body"])
    assert b'"body": "' + b"x" * 200_000 in said


def test_a_container_that_breaks_off_is_an_error_in_the_stream(account: Account) -> None:
    parts = iter(stream(account, "stream break")["Body"])
    assert next(parts)["PayloadPart"]["Bytes"] == b"stream"
    with pytest.raises(EventStreamError) as error:
        next(parts)
    assert error.value.response["Error"]["Code"] == "ModelStreamError"
    assert error.value.response["Error"]["Message"].startswith("The connection was closed by the container")
    assert figure(account, "MidStreamErrors", "Sum") == 1


def test_a_caller_who_leaves_lets_the_container_go(account: Account, flag: Path) -> None:
    flag.unlink(missing_ok=True)
    answer = stream(account, "stream wait " + "more " * 5000)
    assert next(iter(answer["Body"]))["PayloadPart"]["Bytes"] == b"stream"
    answer["Body"].close()
    flag.touch()
    variant = account.platform.endpoints.find("single").side().variants["AllTraffic"]  # type: ignore[union-attr]
    until(lambda: all(one.serving is None or not one.serving.n_outstanding for one in variant.instances))


def test_what_is_wrong_before_the_first_byte_is_an_error_of_the_call(account: Account) -> None:
    with pytest.raises(ClientError, match="requires target model header") as error:  # which this operation has not
        stream(account, "x", "several")
    assert error.value.response["Error"]["Code"] == "ValidationError"
    with pytest.raises(ClientError, match="not found"):
        stream(account, "x", "nobody")


def test_a_model_that_refuses_is_a_model_error(account: Account) -> None:
    account.endpoint("wrong", account.config("wrong", is_multi=False, HOW="wrong"))
    with pytest.raises(ClientError, match="wrong on purpose") as error:
        stream(account, "x", "wrong")
    assert error.value.response["Error"]["Code"] == "ModelError"
    assert error.value.response["OriginalStatusCode"] == 500
