"""Which answer an Accept header asks for."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.errors import AcceptUnsupported
from handler.payload import ACCEPTED, choose_media_type

CSV, JSON, LINES, NPY, RECORDIO = ACCEPTED


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, CSV),
        ("", CSV),
        ("*/*", CSV),
        ("*", CSV),
        ("text/csv", CSV),
        ("csv", CSV),
        ("json", JSON),
        ("Application/JSON", JSON),
        ("application/json; charset=utf-8", JSON),
        ("application/jsonlines", LINES),
        ("application/x-jsonlines", LINES),
        ("application/x-npy", NPY),
        ("application/x-recordio-protobuf", RECORDIO),
        ("application/*", JSON),
        ("text/*", CSV),
        ("application/json, text/csv", JSON),
        ("application/json, */*", JSON),
        ("*/*, application/json", JSON),
        ("application/json;q=0.5, text/csv", CSV),
        ("application/json;q=0.5, */*;q=0.1", JSON),
        ("application/json;q=0.5, */*", CSV),
        ("application/xml, application/json;q=0.2", JSON),
        ("text/csv;q=0, */*", JSON),
        ("text/csv; q=nonsense, application/json", JSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", CSV),
    ],
)
def test_the_favourite_that_we_write_wins(accept: str | None, media_type: str) -> None:
    assert choose_media_type(accept) == media_type


@pytest.mark.parametrize("accept", ["application/xml", "text/html", "text/csv;q=0", "*/*;q=0", "image/*", "nonsense"])
def test_what_we_do_not_write_is_refused_with_what_we_do(accept: str) -> None:
    with pytest.raises(AcceptUnsupported) as refusal:
        choose_media_type(accept)
    assert all(media_type in str(refusal.value) for media_type in ACCEPTED)


@given(st.text(alphabet="*/,;=q01.jsoncv ", max_size=40) | st.text(max_size=40))
def test_any_header_is_a_choice_or_a_refusal(accept: str) -> None:
    with contextlib.suppress(AcceptUnsupported):
        assert choose_media_type(accept) in ACCEPTED
