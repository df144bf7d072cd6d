from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import TargetInvalid
from handler.targets import MAX_TARGET_CHARS, as_sent, parse_target


@pytest.mark.parametrize(
    "target",
    [
        "churn.tar.gz",
        "eu/Houston_TX.tar.gz",
        "a/b/c/d.tar.gz",
        "San José/model.tar.gz",
        "São Paulo.tar.gz",
        "東京/モデル.tar.gz",
        "%2e%2e/%2Fetc%00.tar.gz",
        "a..b/c...tar.gz",
        "..a/b..",
        "...",
        ".hidden/.b",
        "a b.tar.gz",
        "trailing ",
        "C:model",
        "s3:/bucket",
        "+&?#=@:,;'\"",
        "x" * MAX_TARGET_CHARS,
    ],
)
def test_a_key_below_the_prefix_is_kept_exactly_as_it_came(target: str) -> None:
    assert parse_target(target) == target


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("//a", "absolute"),
        ("a/", "ends with a slash"),
        ("a//b", "segment ''"),
        ("s3://bucket/a", "segment ''"),
        (".", "segment '.'"),
        ("./a", "segment '.'"),
        ("a/./b", "segment '.'"),
        ("a/.", "segment '.'"),
        ("..", "segment '..'"),
        ("../a", "segment '..'"),
        ("a/../../b", "segment '..'"),
        ("a/..", "segment '..'"),
        ("a\\b", "backslash"),
        ("..\\a", "backslash"),
        (" a", "starts with a space"),
        ("a\0b", "U+0000"),
        ("a\nb", "U+000A"),
        ("a\x7f", "U+007F"),
        ("a\x85", "U+0085"),
        ("a\u2028b", "U+2028"),
        ("a\u202eb", "U+202E"),
        ("a\udc80", "U+DC80"),
        ("x" * (MAX_TARGET_CHARS + 1), "1025 characters"),
    ],
)
def test_what_is_no_key_below_the_prefix_is_refused_and_the_reason_said(raw: str, why: str) -> None:
    with pytest.raises(TargetInvalid, match=re.escape(why)) as caught:
        parse_target(raw)
    assert len(str(caught.value)) < 7000


@given(st.text(alphabet=st.sampled_from(list("ab./\\ %\0\n\u00e9\u2028")), max_size=12) | st.text(max_size=30))
def test_a_target_is_accepted_exactly_when_every_rule_holds(raw: str) -> None:
    holds = (
        0 < len(raw) <= MAX_TARGET_CHARS
        and not raw.startswith(" ")
        and not any(segment in ("", ".", "..") for segment in raw.split("/"))
        and all(char.isprintable() and char != "\\" for char in raw)
    )
    try:
        accepted = parse_target(raw) == raw
    except TargetInvalid:
        accepted = False
    assert accepted == holds


@pytest.mark.parametrize("target", ["us/a.tar.gz", "us/é.tar.gz", "us/€.tar.gz", "東京.tar.gz"])
def test_a_header_that_was_sent_as_utf8_and_read_as_latin1_means_what_was_sent(target: str) -> None:
    assert as_sent(target.encode().decode("latin-1")) == target


def test_a_header_that_is_no_utf8_is_taken_as_it_is() -> None:
    assert as_sent("us/\xe9.tar.gz") == "us/é.tar.gz"
