"""What moto was told, from one run to the next."""

from __future__ import annotations

from pathlib import Path

from container.platform.service.call import Request, Response
from container.platform.service.journal import NAME, Journal

DONE = Response(200, (), b"")


def put(key: str) -> Request:
    return Request("PUT", f"/bucket/{key}", {}, b"data of " + key.encode())


def told(journal: Journal) -> list[Request]:
    requests: list[Request] = []

    def tell(request: Request) -> Response:
        requests.append(request)
        return DONE

    journal.tell_again(tell)
    return requests


def test_what_changed_something_is_told_again_in_its_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for request, response in (
        (put("a"), DONE), (Request("GET", "/bucket/a", {}, b""), DONE), (put("no"), Response(403, (), b"")), (put("b"), DONE),
    ):  # fmt: skip
        journal.write(request, response)
    assert told(Journal(tmp_path)) == [put("a"), put("b")]


def test_a_line_that_was_cut_off_takes_none_of_the_next_run_along(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(put("a"), DONE)
    journal.write(put("cut"), DONE)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-9])
    second = Journal(tmp_path)
    assert told(second) == [put("a")]
    second.write(put("b"), DONE)
    assert told(Journal(tmp_path)) == [put("a"), put("b")]
