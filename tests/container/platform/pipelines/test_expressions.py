"""What stands for a value comes to that value, or says that it finds none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from container.platform.pipelines.conditions import ConditionInvalid, holds
from container.platform.pipelines.expressions import NotFound, PathInvalid, Scope, resolved, words_of

DESCRIBED = {
    "TrainingJobStatus": "Completed",
    "FinalMetricDataList": [{"MetricName": "auc", "Value": 0.75}],
    "ProcessingOutputConfig": {"Outputs": [{"OutputName": "a.b", "S3Output": {"S3Uri": "s3://b/a"}}]},
    "List": [{"x": 1}, {"x": 2}],
}
SCOPE = Scope(
    {"N": 3, "Word": "w", "Yes": True},
    {"PipelineExecutionId": "p4jn9xou8a8s"},
    {"Train": DESCRIBED},
    lambda uri: json.dumps({"uri": uri, "a": {"b-c": [1, 2.5]}, "is": False}).encode(),
    lambda step, file: f"s3://b/{step}/{file}.json",
)


def got(path: str) -> dict[str, str]:
    return {"Get": path}


@pytest.mark.parametrize(
    ("value", "comes_to"),
    [
        (got("Parameters.N"), 3),
        (got("Execution.PipelineExecutionId"), "p4jn9xou8a8s"),
        (got("Steps.Train.TrainingJobStatus"), "Completed"),
        (got("Steps.Train.FinalMetricDataList['auc'].Value"), 0.75),
        (got('Steps.Train.ProcessingOutputConfig.Outputs["a.b"].S3Output.S3Uri'), "s3://b/a"),
        (got("Steps.Train.List[1].x"), 2),
        (
            {"Std:Join": {"On": "-", "Values": [got("Parameters.Word"), got("Parameters.N"), got("Parameters.Yes")]}},
            "w-3-true",
        ),
        ({"Std:JsonGet": {"PropertyFile": got("Steps.Train.PropertyFiles.F"), "Path": "a['b-c'][1]"}}, 2.5),
        ({"Std:JsonGet": {"PropertyFile": got("Steps.Train.PropertyFiles.F"), "Path": "$.uri"}}, "s3://b/Train/F.json"),
        ({"Std:JsonGet": {"S3Uri": {"Std:Join": {"Values": ["s3://x/", "y"]}}, "Path": "uri"}}, "s3://x/y"),
        ({"a": [got("Parameters.Word")], "b": {"c": 1, "d": None}}, {"a": ["w"], "b": {"c": 1, "d": None}}),
    ],
)
def test_a_value_comes_to(value: Any, comes_to: Any) -> None:
    assert resolved(value, SCOPE) == comes_to


@pytest.mark.parametrize(
    "value",
    [
        got("Parameters.Other"),
        got("Execution.Weather"),
        got("Steps.Other.Arn"),
        got("Steps.Train.List[7]"),
        got("Steps.Train.TrainingJobStatus.more"),
        got("Steps.Train.FinalMetricDataList['loss'].Value"),
        {"Std:Join": {"On": "", "Values": [got("Steps.Train.List")]}},
        {"Std:JsonGet": {"S3Uri": "s3://b/k", "Path": "a"}},
    ],
)
def test_what_finds_nothing_says_so(value: Any) -> None:
    with pytest.raises(NotFound):
        resolved(value, SCOPE)


@pytest.mark.parametrize("path", ["", "$", "a..b", "a.", "a[", "a[b]", "a['']", "a[-1]", "a.*", "a[0]b", "[0", 3, None])
def test_a_path_that_is_none_is_refused(path: Any) -> None:
    with pytest.raises(PathInvalid):
        words_of(path)


def test_a_file_that_is_no_json_says_so() -> None:
    broken = Scope({}, {}, {}, lambda _: b"nothing", lambda *_: "")
    with pytest.raises(NotFound, match="is no JSON"):
        resolved({"Std:JsonGet": {"S3Uri": "s3://b/k", "Path": "a"}}, broken)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"Outputs": [1, null, []]}'])
def test_a_file_of_anything_at_all_has_no_such_value(text: bytes) -> None:
    odd = Scope({}, {}, {}, lambda _: text, lambda *_: "")
    with pytest.raises(NotFound):
        resolved({"Std:JsonGet": {"S3Uri": "s3://b/k", "Path": "Outputs['a'].x"}}, odd)


def compare(kind: str, left: Any, right: Any) -> dict[str, Any]:
    return {"Type": kind, "LeftValue": left, "RightValue": right}


@pytest.mark.parametrize(
    ("condition", "is_so"),
    [
        (compare("Equals", got("Parameters.N"), 3.0), True),
        (compare("Equals", "3", 3), False),
        (compare("Equals", True, 1), False),
        (compare("GreaterThan", 3, 3), False),
        (compare("GreaterThanOrEqualTo", 3, 3), True),
        (compare("LessThan", 2, got("Parameters.N")), True),
        (compare("LessThanOrEqualTo", "a", "b"), True),
        ({"Type": "In", "QueryValue": got("Parameters.Word"), "Values": ["v", "w"]}, True),
        ({"Type": "In", "QueryValue": 1, "Values": []}, False),
        ({"Type": "Not", "Expression": compare("Equals", 1, 1)}, False),
        ({"Type": "Or", "Conditions": [compare("Equals", 1, 2), compare("Equals", 1, 1)]}, True),
    ],
)
def test_a_condition_holds_or_does_not(condition: Any, is_so: bool) -> None:
    assert holds(condition, SCOPE) is is_so


@pytest.mark.parametrize(
    "condition",
    [
        "Equals",
        {"Type": "Like", "LeftValue": 1, "RightValue": 1},
        {"Type": ["Equals"], "LeftValue": 1, "RightValue": 1},
        compare("LessThan", "3", 4),
        compare("LessThan", True, 4),
        {"Type": "Equals", "LeftValue": 1},
        {"Type": "Or", "Conditions": 3},
        {"Type": "Not"},
    ],
)
def test_what_cannot_be_decided_is_neither(condition: Any) -> None:
    with pytest.raises(ConditionInvalid):
        holds(condition, SCOPE)
