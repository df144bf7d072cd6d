"""A serverless endpoint: compute that comes with a call and goes when nobody calls."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError

from container.platform.clock import ManualClock
from container.platform.endpoints.serverless import Serverless
from container.platform.endpoints.variants import Played
from container.platform.hosting.contract import Reply
from container.platform.hosting.instance import SingleModel
from container.platform.metrics import Metrics
from tests.rig.endpoint import until
from tests.rig.platform import Account


def config(aws: Account, name: str, most: int = 2, *, is_multi: bool = False, gib: int = 2, **environment: str) -> str:
    aws.model(name, is_multi=is_multi, **environment)
    serverless = {"MemorySizeInMB": gib * 1024, "MaxConcurrency": most}
    variant = {"VariantName": "AllTraffic", "ModelName": name, "ServerlessConfig": serverless}
    aws.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    return name


def n_running(aws: Account, name: str) -> int:
    return len(aws.platform.endpoints.instances(name, "AllTraffic"))


def test_it_sleeps_after_idle_minutes_and_a_caller_waits_for_the_wake(aws: Account) -> None:
    name = aws.endpoint("sleeper", config(aws, "sleeper-config"))
    told = aws.describe(name)["ProductionVariants"][0]
    assert told["CurrentServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 2}
    assert "CurrentInstanceCount" not in told
    first = aws.ask(name, None)["pid"]
    aws.tick(240)
    assert aws.ask(name, None)["pid"] == first
    for _ in range(10):
        aws.tick(60)
    until(lambda: n_running(aws, name) == 0, 30)
    assert aws.describe(name)["EndpointStatus"] == "InService"
    assert aws.ask(name, None)["pid"] != first


def test_calls_at_once_get_compute_of_their_own_up_to_the_limit_and_then_are_throttled(aws: Account) -> None:
    name = aws.endpoint("burst", config(aws, "burst-config", 2))

    def call(_: int) -> Any:
        try:
            return aws.ask(name, None, body=b"slow")["pid"]
        except ClientError as error:
            return error.response["Error"]["Code"]

    with ThreadPoolExecutor(2) as callers:
        assert len(set(callers.map(call, range(2)))) == 2
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(call, range(8)))
    assert "ThrottlingException" in answers
    assert n_running(aws, name) == 2


def test_its_bill_is_memory_times_the_time_of_calls_and_outlives_it(aws: Account) -> None:
    name = aws.endpoint("billed", config(aws, "billed-config", gib=4))
    for _ in range(3):
        aws.ask(name, None, body=b"slow")  # two tenths of a second each

    def line() -> Any:
        (found,) = [one for one in aws.platform.bill().lines if one.what == "billed/AllTraffic"]
        return found

    before = line()
    assert before.instance_type == "serverless, 4 GB"
    assert before.seconds >= 0.6
    assert before.usd == pytest.approx(before.seconds * 4 * 0.00002)
    aws.sagemaker.delete_endpoint(EndpointName=name)
    aws.until_gone(name)
    assert line().usd == pytest.approx(before.usd)


def test_a_container_that_does_not_come_up_rolls_an_update_back(aws: Account) -> None:
    name, bad = aws.endpoint("undone", config(aws, "undone-config")), config(aws, "undone-bad", HOW="lists-nothing")
    aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=bad)
    assert aws.settled(name)["EndpointConfigName"] == bad  # a single model's container lists nothing, and need not
    worse = config(aws, "undone-worse", HOW="dies")
    aws.sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=worse)
    told = aws.until(name, lambda told: aws.tick(30) or told["EndpointStatus"] == "InService")
    assert told["EndpointConfigName"] == bad
    assert aws.ask(name, None)["who"] == "undone-bad"


@pytest.mark.parametrize(
    ("is_multi", "gib", "words"), [(True, 2, "MultiModel"), (False, 7, "less than or equal to 6144")]
)
def test_what_serverless_cannot_be_is_refused(aws: Account, is_multi: bool, gib: int, words: str) -> None:
    with pytest.raises(ClientError, match=words):
        config(aws, f"never-{gib}", is_multi=is_multi, gib=gib)


class Compute:
    """A container that says how many calls it had at once, and answers when it may."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.n_calls = self.most = 0

    def invoke_single(self, body: bytes, headers: Mapping[str, str], timeout_s: float, **_: Any) -> Reply:
        self.n_calls += 1
        self.most = max(self.most, self.n_calls)
        assert self.may_answer.wait(30)
        self.n_calls -= 1
        return Reply(200, {}, body)


def test_compute_that_another_call_came_upon_first_is_not_shared_with_it() -> None:
    clock, made = ManualClock(), [Compute(), Compute()]
    others = ThreadPoolExecutor(1)
    calls: list[Future[Reply]] = []
    instances: list[Played] = []

    def start_one() -> Played:
        compute = made[len(instances)]
        unit = Played(str(len(instances)), "", clock.now(), serving=SingleModel("unit", cast("Any", compute)))
        instances.append(unit)
        if compute is made[0]:  # before whoever had it started can take it
            calls.append(others.submit(serverless.invoke, b"quick", {}))
            until(lambda: compute.n_calls == 1, 30)
        return unit

    around = SimpleNamespace(metrics=Metrics(clock), ground=SimpleNamespace(clock=clock))
    variant = SimpleNamespace(
        config={"ServerlessConfig": {"MaxConcurrency": 2}}, instances=instances, start_one=start_one,
        around=around, dimensions={},
    )  # fmt: skip
    serverless = Serverless(cast("Any", variant))
    made[1].may_answer.set()
    assert serverless.invoke(b"slow", {}).body == b"slow"
    made[0].may_answer.set()
    assert calls[0].result(30).body == b"quick"
    assert [one.most for one in made] == [1, 1]
    others.shutdown()
