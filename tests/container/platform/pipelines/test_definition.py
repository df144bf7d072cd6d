"""A definition is read, and what can be seen to be wrong with it is said before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from container.platform.pipelines.definition import Parameter, parse
from container.platform.service.faults import ValidationException

GET_A = {"Get": "Steps.A.ProcessingJobArn"}


def step(name: str, kind: str = "Processing", **more: Any) -> dict[str, Any]:
    return {"Name": name, "Type": kind, **more}


def text(*steps: Any, **more: Any) -> str:
    return json.dumps({"Version": "2020-12-01", "Steps": list(steps), **more})


def test_a_step_needs_what_it_depends_on_what_it_names_and_the_condition_it_stands_under() -> None:
    inner = step("D", Arguments={"Environment": {"a": {"Std:Join": {"On": "", "Values": [GET_A]}}}})
    decide = step("C", "Condition", Arguments={"Conditions": [], "IfSteps": [inner], "ElseSteps": [step("E")]})
    found = parse(text(step("A"), step("B", DependsOn=["A"]), decide)).steps
    assert {name: (set(one.needs), one.within) for name, one in found.items()} == {
        "A": (set(), None),
        "B": ({"A"}, None),
        "C": (set(), None),
        "D": ({"A", "C"}, ("C", True)),
        "E": ({"C"}, ("C", False)),
    }


def test_parameters_have_types_defaults_and_words() -> None:
    one = {"Name": "N", "Type": "Integer", "DefaultValue": 3, "EnumValues": [3, 4]}
    definition = parse(text(Parameters=[one, {"Name": "F", "Type": "Float"}, {"Name": "B", "Type": "Boolean"}]))
    assert definition.parameters["N"] == Parameter("N", "Integer", 3, (3, 4))
    assert definition.given({"F": "1.5", "B": "true"}) == {"N": 3, "F": 1.5, "B": True}
    assert definition.given({"F": "1", "B": "false", "N": "4"}) == {"N": 4, "F": 1.0, "B": False}


@pytest.mark.parametrize("value", ["1_000", " 1", "nan", "Infinity", "0x1", "\u0661"])
def test_a_number_is_one_as_json_has_it(value: str) -> None:
    definition = parse(text(Parameters=[{"Name": "F", "Type": "Float"}]))
    with pytest.raises(ValidationException, match="is no Float"):
        definition.given({"F": value})


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        (text(step("A"), step("A")), "used more than once"),
        (text(step("A", DependsOn=["B"])), "refers to step B, which is not there"),
        (text(step("A", Arguments={"x": {"Get": "Parameters.P"}})), "refers to parameter P, which is not there"),
        (text(step("A", DependsOn=["B"]), step("B", DependsOn=["A"])), "steps A, B wait for one another"),
        (text(step("A", DependsOn=["A"])), "steps A wait for one another"),
        (text(step("F", "Fail"), step("A", DependsOn=["F"])), "A can not depends on F"),
        (text(step("A", Arguments={"x": {"Get": "Steps"}})), "begins with none of"),
        (text(step("A", Arguments={"x": {"Get": "Steps.A..b"}})), "is no path"),
        (text(step("A", Arguments={"x": {"Std:Split": {}}})), "Std:Split is not played"),
        (text(step("A", DependsOn=[3])), "has what is no name"),
        (text(step("A", Arguments=[])), "are no object"),
        (text(step("A" * 65)), "at most 64 letters"),
        (text(step("A b")), "at most 64 letters"),
        (text(step("")), "at most 64 letters"),
        (text(Parameters=[{"Name": "N.a", "Type": "Integer"}]), "a Type of String"),
        (text(Parameters=[{"Name": "N", "Type": ["Integer"]}]), "a Type of String"),
        (text(step("A", PropertyFiles=[{"OutputName": "a"}])), "needs PropertyFileName"),
        (text("A"), "a step is no object"),
        (text(Parameters=[{"Name": "N", "Type": "List"}]), "a Type of String"),
        (text(Parameters=[{"Name": "N", "Type": "Integer", "DefaultValue": "3"}]), "is no Integer"),
        (text(Parameters=[{"Name": "N", "Type": "Integer", "DefaultValue": True}]), "is no Integer"),
        (text(Parameters=[{"Name": "N", "Type": "String", "DefaultValue": "a", "EnumValues": ["b"]}]), "none of its"),
        (text(Parameters={}), "Parameters is no list"),
        ("[" * 100_000, "Unable to parse"),
        (text(step("A", Arguments={"x": json.loads("[" * 98 + "]" * 98)})), "nested too deep"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
    ],
)
def test_what_is_wrong_is_refused_with_its_reason(definition: str, why: str) -> None:
    with pytest.raises(ValidationException, match=why):
        parse(definition)
