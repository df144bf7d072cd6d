"""Custom attributes: what is ours is found, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.attributes import OUTPUT, TARGET, TIMING, parse_attributes
from handler.errors import TargetInvalid


@pytest.mark.parametrize(
    ("attributes", "target"),
    [
        ("TargetModel=eu/a.tar.gz", "eu/a.tar.gz"),
        ("trace=1,TargetModel=a.tar.gz", "a.tar.gz"),
        ("trace=1;TargetModel=a.tar.gz;x=y", "a.tar.gz"),
        (" trace = 1 , TargetModel = a b.tar.gz , x", "a b.tar.gz"),
        ("TargetModel=a=b.tar.gz", "a=b.tar.gz"),
        ("TargetModel=%2e.tar.gz", "%2e.tar.gz"),
        ("TargetModel=a,TargetModel=a", "a"),
        ("TargetModel=", ""),
        ("", None),
        ("trace=1", None),
        ("targetmodel=a", None),
        ("XTargetModel=a", None),
        ("note=TargetModel", None),
        ("note=TargetModel=a", None),
        ("TargetModel", None),
        ('{"TargetModel": "a"}', None),
        (",;,=;==", None),
    ],
)
def test_a_target_is_found_by_its_exact_key(attributes: str, target: str | None) -> None:
    assert parse_attributes(attributes).get(TARGET) == target


def test_two_different_targets_are_refused() -> None:
    with pytest.raises(TargetInvalid, match="also name 'a'"):
        parse_attributes("TargetModel=a;TargetModel=b")


@pytest.mark.parametrize("separator", ["|", "+", " ", " | "])
def test_several_outputs_are_separated_by_what_is_no_separator_of_pairs(separator: str) -> None:
    found = parse_attributes(f"Output=predicted_label{separator}probability,Timing=1")
    assert found == {OUTPUT: "predicted_label,probability", TIMING: "1"}


@pytest.mark.parametrize(
    ("attributes", "outputs"),
    [
        ("Output=predicted_label,probability", "predicted_label,probability"),
        ("Output=predicted_label, probability ,leaf;Timing=1", "predicted_label,probability,leaf"),
        ("Output=predicted_label,probability,Timing=1,margin", "predicted_label,probability"),
        ("trace,Output=predicted_label;margin", "predicted_label"),
        ("x=1,margin,Output=score", "score"),
    ],
)
def test_commas_between_outputs_are_what_amazons_variable_has(attributes: str, outputs: str) -> None:
    """public report f18: what stood behind the comma was dropped"""
    assert parse_attributes(attributes)[OUTPUT] == outputs


@given(st.text(alphabet=st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_any_visible_ascii_has_a_target_or_none(attributes: str) -> None:
    found = parse_attributes(attributes).get(TARGET)
    assert found is None or f"TargetModel={found}" in attributes
