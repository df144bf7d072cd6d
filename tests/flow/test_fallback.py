"""A segment without a model, asked of a whole endpoint: the default answers, and the segment's own as soon as it is there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint, Reply, until

X = boosters.rows(2, 6)
BODY = "\n".join(",".join(map(repr, row)) for row in X.tolist())


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))  # short: sockets lie in it
    (tmp_path / "models/us").mkdir(parents=True)
    (tmp_path / "models/us/_default.tar.gz").write_bytes(boosters.segment_archive(1))
    with Endpoint(tmp_path / "models", scratch, "--fallback", "_default.tar.gz") as endpoint:
        yield endpoint
    scratch.rmdir()


def is_by(reply: Reply, seed: int) -> bool:
    scores = np.array([float(line) for line in reply.body.split()], np.float32)
    return bool(np.array_equal(scores, boosters.expected(boosters.segment(seed), X).reshape(-1)))


def test_the_default_answers_until_there_is_a_model(tmp_path: Path, endpoint: Endpoint) -> None:
    reply = endpoint.post("us/tx/Houston.tar.gz", BODY)
    assert (reply.status, is_by(reply, 1)) == (200, True)
    told = "x-amzn-sagemaker-custom-attributes"
    assert reply.headers[told].endswith(",model=us/_default.tar.gz")
    assert endpoint.post("eu/Hull.tar.gz", BODY).status == 400
    own = boosters.segment_archive(2)
    (tmp_path / "models/us/tx").mkdir()
    (tmp_path / "models/us/tx/Houston.tar.gz").write_bytes(own)
    until(lambda: "model=" not in endpoint.post("us/tx/Houston.tar.gz", BODY).headers[told], 60.0)
    assert is_by(endpoint.post("us/tx/Houston.tar.gz", BODY), 2)
