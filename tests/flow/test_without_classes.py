"""Our code where MMS's plugin has not been compiled: what still serves, and what says that it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our code without the compiled classes, which are what tells the two apart."""
    root = tmp_path_factory.mktemp("code")
    for package in ("container", "handler"):
        shutil.copytree(REPOSITORY / package, root / package, ignore=shutil.ignore_patterns("classes", "__pycache__"))
    return root


def test_hosted_mode_refuses_to_start_in_one_line_that_says_what_to_do(root: Path, scratch: Path) -> None:
    """Stock MMS unpacks any zip it is pointed at, wherever the entries say, so it is not what serves instead."""
    endpoint = Endpoint(None, scratch, root=root)
    assert endpoint.wait() == 1
    (line,) = endpoint.log
    assert "hosted mode needs our Java classes" in line
    assert "javac, 17 or later" in line
    assert list(scratch.iterdir()) == []


def test_standalone_serves_on_stock_mms_and_says_once_what_is_lost(root: Path, segments: Path, scratch: Path) -> None:
    with Endpoint(segments, scratch, root=root) as endpoint:
        rows = boosters.rows(1, 6)
        reply = endpoint.post("us/1.tar.gz", ",".join(map(str, rows[0].tolist())))
        assert (reply.status, float(reply.body)) == (
            200,
            pytest.approx(float(boosters.expected(boosters.segment(1), rows)[0, 0])),
        )
        said = [line for line in endpoint.log if "Java classes" in line]
        assert (len(said), "/ping is MMS's own" in said[0]) == (1, True)


def test_a_caller_of_stock_mms_can_name_no_file_either(root: Path, segments: Path, scratch: Path) -> None:
    """There are no files then: nobody takes such words out of a request, and nobody may listen to them."""
    with Endpoint(segments, scratch, root=root) as endpoint:
        row = ",".join(map(str, boosters.rows(1, 6)[0].tolist()))
        alone = endpoint.post("us/1.tar.gz", row)
        reply = endpoint.post("us/1.tar.gz", row, x_mme_call="1", x_mme_body="9")
        assert (reply.status, reply.body) == (alone.status, alone.body) == (200, alone.body)
