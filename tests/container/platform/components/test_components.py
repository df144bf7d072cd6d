"""Inference components one by one: where their copies go, what is refused, what fails and why."""

from __future__ import annotations

from typing import Any

import pytest

from container.platform.components.pool import NOT_ENOUGH
from container.platform.hosting.errors import ValidationError
from container.platform.metrics import MetricName
from container.platform.service.faults import NotPlayed, ServiceFault, ValidationException
from tests.container.platform.components.conftest import ROLE, Shop

# An ml.m5.large has 1024 MiB for components here.


def test_a_component_is_creating_until_its_copy_is_healthy(shop: Shop) -> None:
    shop.create()
    shop.clock.advance(59)
    assert shop.seen() == ("Creating", 0, 1)
    with pytest.raises(ValidationError, match="no capacity"):
        shop.invoke()
    shop.clock.advance(2)
    assert shop.seen() == ("InService", 1, 1)
    assert shop.invoke().status == 200


def test_copies_that_do_not_fit_bring_instances_all_at_once(shop: Shop) -> None:
    """600 MiB: one on each instance. Both come in the time of one."""
    shop.create(memory_mib=600, copies=2)
    shop.clock.advance(105 + 60 + 1)
    assert shop.seen() == ("InService", 2, 2)


def test_two_components_share_an_instance_until_it_is_full(shop: Shop) -> None:
    shop.create("a", memory_mib=500)
    shop.create("b", memory_mib=500)
    shop.clock.advance(61)
    assert (shop.seen("a"), shop.seen("b")) == (("InService", 1, 1), ("InService", 1, 1))
    shop.create("c", memory_mib=500)
    shop.clock.advance(105 + 61)
    assert shop.seen("c") == ("InService", 1, 2)


@pytest.mark.parametrize(
    ("memory_mib", "copies"), [(2000, 1), (600, 3)], ids=["larger than any instance", "more than may come"]
)
def test_what_cannot_be_had_fails_in_awss_words(shop: Shop, memory_mib: int, copies: int) -> None:
    shop.create(memory_mib=memory_mib, copies=copies)
    shop.clock.advance(3600)
    assert shop.described()["InferenceComponentStatus"] == "Failed"
    assert shop.described()["FailureReason"] == NOT_ENOUGH
    assert len(shop.served) == sum(one.is_stopped for one in shop.served)


def test_a_container_that_does_not_come_up_fails_a_new_component_and_leaves_an_old_one_as_it_was(shop: Shop) -> None:
    shop.create()
    shop.clock.advance(61)
    shop.broken = "The container for inference component churn did not pass the ping health check."
    shop.set_copies(2)
    shop.clock.advance(61)
    assert shop.seen() == ("InService", 1, 1)
    assert shop.described()["FailureReason"] == shop.broken
    shop.create("second")
    shop.clock.advance(61)
    assert shop.described("second")["InferenceComponentStatus"] == "Failed"


def test_an_instance_that_cannot_be_had_is_the_reason(shop: Shop) -> None:
    shop.variant.refuses = "Unable to provision requested ML compute capacity"
    shop.create(memory_mib=600, copies=2)
    shop.clock.advance(105)
    assert shop.described()["FailureReason"] == "Unable to provision requested ML compute capacity"


def test_a_failed_activity_says_why_the_copies_did_not_come(shop: Shop) -> None:
    shop.create(memory_mib=600)
    shop.clock.advance(61)
    shop.variant.refuses = "Unable to provision requested ML compute capacity"
    shop.scale("RegisterScalableTarget", MinCapacity=2, MaxCapacity=2)
    shop.clock.advance(300)
    (activity,) = shop.scale("DescribeScalingActivities")["ScalingActivities"]
    assert activity["StatusCode"] == "Failed"
    assert activity["StatusMessage"].endswith("Reason: Unable to provision requested ML compute capacity")


def test_instances_go_when_they_have_been_empty_for_ten_minutes_and_never_below_the_minimum() -> None:
    shop = Shop(MinInstanceCount=1)
    shop.create(memory_mib=600, copies=2)
    shop.clock.advance(200)
    shop.set_copies(0)
    shop.clock.advance(599)
    assert shop.seen() == ("InService", 0, 2)
    shop.clock.advance(2)
    assert shop.seen() == ("InService", 0, 1)
    shop.clock.advance(86_400)
    assert shop.seen() == ("InService", 0, 1)


def test_all_components_must_be_at_zero_for_the_last_instance_to_go(shop: Shop) -> None:
    shop.create("a")
    shop.create("b")
    shop.clock.advance(61)
    shop.set_copies(0, "a")
    shop.clock.advance(3600)
    assert shop.seen("a") == ("InService", 0, 1)
    shop.set_copies(0, "b")
    shop.clock.advance(601)
    assert shop.seen("b") == ("InService", 0, 0)


def test_without_managed_scaling_instances_neither_come_nor_go() -> None:
    shop = Shop(Status="DISABLED")
    shop.create(memory_mib=600, copies=2)
    shop.clock.advance(86_400)
    assert shop.described()["FailureReason"] == NOT_ENOUGH
    assert len(shop.variant.there) == 1


def test_a_new_specification_brings_new_copies_before_the_former_go(shop: Shop) -> None:
    shop.create(Environment={"ANSWER": "old"})
    shop.clock.advance(61)
    changed = {
        "Container": {"Image": "mme", "Environment": {"ANSWER": "new"}},
        "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512},
    }
    shop.call("UpdateInferenceComponent", InferenceComponentName="churn", Specification=changed)
    shop.clock.advance(30)
    assert (shop.seen(), shop.invoke().body) == (("Updating", 1, 1), b"old")
    shop.clock.advance(31)
    assert (shop.seen(), shop.invoke().body) == (("InService", 1, 1), b"new")
    assert [one.is_stopped for one in shop.served] == [True, False]


def test_where_there_is_no_room_for_both_the_former_copy_makes_it() -> None:
    shop = Shop(MaxInstanceCount=1)
    shop.create(memory_mib=1000, Environment={"ANSWER": "old"})
    shop.clock.advance(61)
    changed = {
        "Container": {"Image": "mme", "Environment": {"ANSWER": "new"}},
        "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1000},
    }
    shop.call("UpdateInferenceComponent", InferenceComponentName="churn", Specification=changed)
    shop.clock.advance(61)
    assert (shop.seen(), shop.invoke().body) == (("InService", 1, 1), b"new")


def test_copies_of_an_instance_that_is_gone_come_again_on_another(shop: Shop) -> None:
    shop.create()
    shop.clock.advance(61)
    shop.variant.stop_one(shop.variant.there[0])
    shop.variant.start_one()
    shop.components.instances_changed("shop")
    shop.clock.advance(1)
    assert shop.seen() == ("Updating", 0, 1)
    shop.clock.advance(61)
    assert shop.seen() == ("InService", 1, 1)
    assert [one.is_stopped for one in shop.served] == [True, False]


def test_while_the_endpoint_is_being_deleted_nothing_is_started(shop: Shop) -> None:
    shop.create()
    shop.clock.advance(61)
    shop.variant.is_serving = False
    shop.variant.stop_one(shop.variant.there[0])
    shop.components.instances_changed("shop")
    shop.clock.advance(3600)
    assert len(shop.served) == 1
    assert shop.variant.there == []


def test_deleting_stops_the_copies_and_frees_the_name(shop: Shop) -> None:
    shop.create()
    shop.clock.advance(61)
    shop.call("DeleteInferenceComponent", InferenceComponentName="churn")
    shop.clock.advance(1)
    with pytest.raises(ValidationException, match="Could not find inference component"):
        shop.described()
    assert shop.served[0].is_stopped
    shop.create()
    shop.clock.advance(61)
    assert shop.seen() == ("InService", 1, 1)


def test_while_something_is_under_way_nothing_else_may_be_asked(shop: Shop) -> None:
    shop.create()
    for operation in ("DeleteInferenceComponent", "UpdateInferenceComponent"):
        with pytest.raises(ValidationException, match="CREATE_IN_PROGRESS"):
            shop.call(operation, InferenceComponentName="churn")
    shop.clock.advance(61)
    shop.set_copies(2)
    with pytest.raises(ValidationException, match="UPDATE_RC_IN_PROGRESS"):
        shop.set_copies(0)


def test_a_component_that_is_stuck_in_creating_cannot_be_deleted_and_costs() -> None:
    """The trap: two days of it, as somebody had."""
    shop = Shop(traps=("creating-forever",))
    shop.create()
    shop.clock.advance(2 * 86_400)
    assert shop.seen() == ("Creating", 0, 1)
    with pytest.raises(ValidationException, match="CREATE_IN_PROGRESS"):
        shop.call("DeleteInferenceComponent", InferenceComponentName="churn")
    assert shop.ledger.bill().usd == pytest.approx(48 * 0.115)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RuntimeConfig": {"CopyCount": 0}}, "copy count an integer larger than 0"),
        ({"EndpointName": "none"}, 'Could not find endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint/none"'),
        (
            {"Specification": {"ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}}},
            "Exactly one of ModelName",
        ),
        ({"Specification": {"ModelName": "no"}}, "ComputeResourceRequirements"),
        (
            {"Specification": {"ModelName": "no", "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}}},
            "Could not find model",
        ),
        (
            {
                "Specification": {
                    "Container": {"Image": "mme"},
                    "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512, "MaxMemoryRequiredInMb": 128},
                }
            },
            "MaxMemoryRequiredInMb",
        ),
    ],
)
def test_what_cannot_be_created_is_refused(shop: Shop, change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {
        "InferenceComponentName": "churn",
        "EndpointName": "shop",
        "VariantName": "AllTraffic",
        "Specification": {
            "Container": {"Image": "mme"},
            "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512},
        },
        "RuntimeConfig": {"CopyCount": 1},
    }
    with pytest.raises(ServiceFault) as raised:
        shop.call("CreateInferenceComponent", **{**given, **change})
    assert words in raised.value.message


def test_a_name_is_taken_once(shop: Shop) -> None:
    shop.create()
    with pytest.raises(ValidationException, match="already existing inference component"):
        shop.create()


@pytest.mark.parametrize(
    "member",
    ["BaseInferenceComponentName", "Specifications", "MultiModel", "DeploymentConfig", "ContainerMetricsConfig"],
)
def test_what_is_not_played_says_so(shop: Shop, member: str) -> None:
    needs = {"ComputeResourceRequirements": {"MinMemoryRequiredInMb": 128}}
    container = {"Image": "mme", "Mode": "MultiModel", "ModelDataUrl": "s3://b/p/"}
    shop.call("CreateModel", ModelName="many", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    shop.create("there")
    given = {"InferenceComponentName": "c", "EndpointName": "shop", "RuntimeConfig": {"CopyCount": 1}}
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "BaseInferenceComponentName": (
            "CreateInferenceComponent",
            {**given, "Specification": {member: "base", **needs}},
        ),
        "Specifications": ("CreateInferenceComponent", {**given, "Specifications": [needs]}),
        "MultiModel": ("CreateInferenceComponent", {**given, "Specification": {"ModelName": "many", **needs}}),
        "ContainerMetricsConfig": (
            "CreateInferenceComponent",
            {**given, "Specification": {"Container": {member: {}}, **needs}},
        ),
        "DeploymentConfig": ("UpdateInferenceComponent", {"InferenceComponentName": "there", "DeploymentConfig": {}}),
    }
    operation, parameters = calls[member]
    with pytest.raises(NotPlayed):
        shop.call(operation, **parameters)


def test_a_model_of_ones_own_is_what_runs(shop: Shop) -> None:
    container = {"Image": "mme", "Environment": {"ANSWER": "modelled"}}
    shop.call("CreateModel", ModelName="one", PrimaryContainer=container, ExecutionRoleArn=ROLE)
    shop.call(
        "CreateInferenceComponent",
        InferenceComponentName="churn",
        EndpointName="shop",
        VariantName="AllTraffic",
        Specification={"ModelName": "one", "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 512}},
        RuntimeConfig={"CopyCount": 1},
    )
    shop.clock.advance(61)
    assert shop.invoke().body == b"modelled"
    assert shop.described()["Specification"]["ModelName"] == "one"


def test_figures_are_of_copies_and_an_idle_minute_is_a_zero_while_one_at_no_copies_is_nothing(shop: Shop) -> None:
    shop.create(copies=2)
    shop.clock.advance(120)
    for _ in range(6):
        shop.invoke()
    shop.clock.advance(120)
    metric = MetricName.of("AWS/SageMaker", "InvocationsPerCopy", {"InferenceComponentName": "churn"})

    def minute(n: int) -> float | None:
        start = int(shop.clock.now().timestamp()) // 86_400 * 86_400 + n * 60
        return shop.metrics.value(metric, start, start + 60, "Sum")

    assert (minute(2), minute(3)) == (3, 0)  # six calls on two copies; then nobody
    shop.set_copies(0)
    shop.clock.advance(120)
    assert minute(5) is None
    with pytest.raises(ValidationError):
        shop.invoke()
    assert minute(6) is None


def test_calls_go_to_the_copy_that_has_fewest_and_how_many_at_once_is_a_figure(shop: Shop) -> None:
    shop.create(copies=2)
    shop.clock.advance(61)
    asked: list[int] = []

    def during() -> None:
        if len(asked) < 3:
            asked.append(len(asked))
            shop.invoke()

    for one in shop.served:
        one.during = during
    shop.invoke()
    shop.clock.advance(10)
    metric = MetricName.of("AWS/SageMaker", "ConcurrentRequestsPerCopy", {"InferenceComponentName": "churn"})
    now = int(shop.clock.now().timestamp())
    assert shop.metrics.value(metric, now - 70, now, "Maximum") == 2


def test_listing_filters_by_endpoint_status_and_name(shop: Shop) -> None:
    for name in ("a1", "a2", "b1"):
        shop.create(name, memory_mib=128)
    shop.clock.advance(61)
    shop.set_copies(2, "a2")

    def listed(**filters: Any) -> list[str]:
        found = shop.call("ListInferenceComponents", SortBy="Name", SortOrder="Ascending", **filters)
        return [one["InferenceComponentName"] for one in found["InferenceComponents"]]

    assert listed() == ["a1", "a2", "b1"]
    assert listed(NameContains="a") == ["a1", "a2"]
    assert listed(StatusEquals="Updating") == ["a2"]
    assert listed(EndpointNameEquals="other") == []
    first = shop.call("ListInferenceComponents", SortBy="Name", SortOrder="Ascending", MaxResults=2)
    assert listed(MaxResults=2, NextToken=first["NextToken"]) == ["b1"]
