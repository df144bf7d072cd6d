"""Metric math: what an expression comes to, what of it is missing, and what is refused."""

from __future__ import annotations

import pytest

from container.platform.metrics import MetricName
from container.platform.scaling.formulas import MAX_CHARACTERS, Formula, FormulaInvalid, Part

PART = Part(MetricName("n", "m", ()), "Sum")
VALUES = {"m1": 6.0, "m2": 4.0, "m3": None, "zero": 0.0}


def worked_out(text: str, **more: str) -> float | None:
    return Formula(dict.fromkeys(VALUES, PART), {"e1": text, **more}, "e1").worked_out(VALUES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("m1 / m2", 1.5),
        ("100 * m1 / (m1 + m2)", 60),
        ("m1 - m2 - 1", 1),
        ("2 ^ 3 ^ 2", 512),
        ("-m1 ^ 2", -36),
        ("-m1 + m2", -2),
        ("m1+m2*2", 14),
        (".5 * 2.", 1),
        ("m3 + m1", None),
        ("m1 / zero", None),
        ("zero / zero", None),
        ("(-8) ^ .5", None),
        ("10 ^ 400", None),
        ("FILL(m3, 0) + m1", 6),
        ("FILL(m1, 0)", 6),
        ("IF(m1 > m2, m1, m2)", 6),
        ("IF(m1 < m2, 1)", None),
        ("IF(m3, 1, 2)", None),
        ("IF(m1 > 100 OR m2 == 4 AND m1 != 6, 1, 0)", 0),
        ("m1 >= 6 && m2 <= 4 || zero", 1),
        ("ABS(m2 - m1) + CEIL(1.2) + FLOOR(1.8)", 5),
        ("SUM([m1, m2, m3])", 10),
        ("AVG([m1, m2])", 5),
        ("MIN([m1, m2]) + MAX([m1, 7])", 11),
        ("SUM(METRICS())", 10),
    ],
)
def test_an_expression_comes_to(text: str, value: float | None) -> None:
    assert worked_out(text) == value


def test_expressions_name_one_another_in_any_order() -> None:
    assert worked_out("e2 * 2", e2="e3 + 1", e3="m1") == 14


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m1 +",
        "m1 m2",
        "(m1",
        "m1)",
        "other",
        "m1 ; m2",
        "SEARCH(m1)",
        "SUM(m1)",
        "FILL(m1)",
        "IF(m1)",
        "SUM([])",
        "m1 + 'a'",
        "(" * 400 + "m1" + ")" * 400,
        "-" * 600 + "m1",
        "1" * (MAX_CHARACTERS + 1),
        "e1",
    ],
)
def test_what_cannot_be_worked_out_is_refused(text: str) -> None:
    with pytest.raises(FormulaInvalid):
        worked_out(text)


def test_expressions_in_a_ring_are_refused() -> None:
    with pytest.raises(FormulaInvalid, match="e1, e2 name one another"):
        worked_out("e2", e2="e1 + m1")
