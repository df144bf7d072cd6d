"""Requests held against botocore's descriptions, in the words that SageMaker has for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from container.platform.service.descriptions import OURS, operation_model, routed, service_model, targeted
from container.platform.service.faults import SerializationException, ValidationException
from container.platform.service.reading import read
from container.platform.service.writing import AnswerWrong, written


def shape(operation: str, service: str = "sagemaker") -> Any:
    model = operation_model(service, operation)
    assert model is not None
    return model.input_shape


def test_all_that_is_wrong_is_told_at_once_with_where_it_is() -> None:
    variant = {"VariantName": "v", "InitialInstanceCount": 0, "InstanceType": "ml.none"}
    with pytest.raises(ValidationException) as caught:
        read(shape("CreateEndpointConfig"), {"EndpointConfigName": "a_b", "ProductionVariants": [variant]})
    text = caught.value.message
    assert text.startswith(
        "3 validation errors detected: Value 'a_b' at 'endpointConfigName' failed to satisfy constraint: "
    )
    assert (
        "Value '0' at 'productionVariants.1.member.initialInstanceCount' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1" in text
    )
    assert "at 'productionVariants.1.member.instanceType'" in text
    assert "Member must satisfy enum value set: [ml.t2.medium, " in text


def test_a_missing_member_is_null() -> None:
    with pytest.raises(ValidationException, match="1 validation error detected: Value null at 'modelName' failed"):
        read(shape("CreateModel"), {})


def test_a_member_that_aws_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationException, match='Unknown parameter in primaryContainer: "Imgae"'):
        read(shape("CreateModel"), {"ModelName": "m", "PrimaryContainer": {"Imgae": "x"}})


@pytest.mark.parametrize("value", [1, True, [], {}])
def test_a_member_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(SerializationException, match="modelName: "):
        read(shape("CreateModel"), {"ModelName": value})


def test_times_are_read_from_seconds_and_from_text() -> None:
    for value in (1767225600, "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:00", "2026-01-01"):
        found = read(shape("ListModels"), {"CreationTimeAfter": value})
        assert found["CreationTimeAfter"] == datetime(2026, 1, 1, tzinfo=UTC)
    for value in ("soon", 1e30, True, []):
        with pytest.raises(SerializationException):
            read(shape("ListModels"), {"CreationTimeAfter": value})


def test_no_pattern_of_our_services_is_one_that_python_cannot_read() -> None:
    """But for one, which is of no use in Java either: `${1,128}`."""
    import re

    from container.platform.service import reading

    unread = set()
    for service in OURS:
        model = service_model(service)
        for name in model.shape_names:
            pattern = model.shape_for(name).metadata.get("pattern")
            if (
                pattern
                and reading._compiled(pattern).pattern == ".*"
                and not re.fullmatch(r"(\^?\.\*\$?|\.\*)", pattern)
            ):
                unread.add(pattern)
    assert all("${1," in pattern for pattern in unread), unread


@pytest.mark.parametrize(
    ("text", "is_good"),
    [("a.tar.gz", True), ("us/Houston TX.tar.gz", True), (" a", False), ("a\u00e4", False)],
)
def test_a_target_is_printable_ascii(text: str, is_good: bool) -> None:
    model = operation_model("sagemaker-runtime", "InvokeEndpoint")
    assert model is not None
    value = {"EndpointName": "e", "Body": b"", "TargetModel": text}
    if is_good:
        assert read(model.input_shape, value)["TargetModel"] == text
    else:
        with pytest.raises(ValidationException):
            read(model.input_shape, value)


NAMES = st.text("ab-1_", max_size=5) | st.integers(-2, 3) | st.none() | st.lists(st.text("a", max_size=2), max_size=2)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("EndpointName", "EndpointConfigName", "Tags", "X"), NAMES)))
def test_what_botocore_refuses_is_refused_here(value: dict[str, Any]) -> None:
    """botocore looks at kinds, names and lower limits; the service at more."""
    try:
        read(shape("CreateEndpoint"), value)
    except (ValidationException, SerializationException):
        return
    there = {name: one for name, one in value.items() if one is not None}  # null is absent on the wire
    assert not ParamValidator().validate(there, shape("CreateEndpoint")).has_errors()


def test_an_answer_with_a_member_too_many_or_too_few_is_ours_to_mend() -> None:
    model = operation_model("sagemaker", "CreateModel")
    assert model is not None
    assert written(model.output_shape, {"ModelArn": "arn"}) == {"ModelArn": "arn"}
    for answer in ({}, {"ModelArn": "arn", "More": 1}):
        with pytest.raises(AnswerWrong):
            written(model.output_shape, answer)
    status = operation_model("sagemaker", "ListEndpoints")
    assert status is not None
    now = datetime.now(UTC)
    with pytest.raises(AnswerWrong):
        written(status.output_shape, {"Endpoints": [{
            "EndpointName": "e", "EndpointArn": "a", "CreationTime": now, "LastModifiedTime": now,
            "EndpointStatus": "Fine"}]})  # fmt: skip


def test_a_request_finds_its_service_by_its_target_or_its_path() -> None:
    assert targeted("SageMaker.CreateModel") == ("sagemaker", "CreateModel")
    assert targeted("AnyScaleFrontendService.PutScalingPolicy") == ("application-autoscaling", "PutScalingPolicy")
    assert targeted("AWSEvents.PutRule") is None
    found = routed("POST", "/endpoints/e/invocations")
    assert found is not None
    assert (found[0].name, found[1]) == ("InvokeEndpoint", {"EndpointName": "e"})
    for method, path in (
        ("GET", "/endpoints/e/invocations"),
        ("POST", "/bucket/key"),
        ("POST", "/endpoints/e/f/invocations"),
    ):
        assert routed(method, path) is None
