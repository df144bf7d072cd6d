"""The loop as an operator goes through it: publish, approve, hold a running endpoint against it, take back."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.release.live import settled
from container.operate.release.place import place_at
from container.operate.release.verify import verify
from tests.rig import boosters
from tests.rig.endpoint import Endpoint
from tests.rig.faulty_s3 import ENVIRONMENT

HOUSTON, DALLAS = "us/Houston.tar.gz", "us/Dallas.tar.gz"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str, is_publish: bool = False) -> tuple[int, Any]:
        capsys.readouterr()
        place = ["--to" if is_publish else "--of", str(tmp_path / "live"), "--json"]
        status = main(["publish" if is_publish else "release", *words, *place])
        return status, json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def two_releases(tmp_path: Path, run: Any) -> tuple[str, str]:
    """The first is live, with Houston and Dallas; the second has another Houston."""
    source = tmp_path / "models/us"
    source.mkdir(parents=True)
    (source / "Houston.ubj").write_bytes(boosters.document(boosters.segment(0)))
    (source / "Dallas.ubj").write_bytes(boosters.document(boosters.segment(1)))
    first = run(str(tmp_path / "models"), is_publish=True)[1]["release"]
    (source / "Houston.ubj").write_bytes(boosters.document(boosters.segment(2)))
    second = run(str(tmp_path / "models"), is_publish=True)[1]["release"]
    assert run("approve", first)[0] == Exit.OK
    return first, second


@pytest.fixture
def serve(tmp_path: Path, two_releases: tuple[str, str], request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    scratch = Path("/tmp") / f"rel-{tmp_path.name[-12:]}"
    scratch.mkdir()
    with Endpoint(tmp_path / "live", scratch, "--max-age", request.param) as endpoint:
        yield endpoint
    scratch.rmdir()


def kinds(found: Any) -> dict[str, str]:
    return {one["key"]: one["kind"] for one in found["segments"]}


@pytest.mark.parametrize("serve", ["3600"], indirect=True)
def test_an_endpoint_that_has_not_noticed_is_said_to_answer_with_the_old_model(
    run: Any, two_releases: tuple[str, str], serve: Endpoint, tmp_path: Path
) -> None:
    first, second = two_releases
    url = f"http://127.0.0.1:{serve.port}"
    status, found = run("verify", "--url", url)
    assert (status, found["is_right"], kinds(found)) == (Exit.OK, True, {HOUSTON: "right", DALLAS: "right"})
    change = run("approve", second)[1]["change"]
    status, found = run("verify", "--url", url)
    assert (status, kinds(found)) == (Exit.FAILED, {HOUSTON: "old", DALLAS: "right"})
    (old,) = [one for one in found["segments"] if one["kind"] == "old"]
    assert (old["release"], old["since"]) == (first, change["at"])
    assert run("rollback")[0] == Exit.OK
    assert run("verify", "--url", url)[0] == Exit.OK
    assert run("verify", "--url", url, "--only", "us/D*")[0] == Exit.OK
    status, found = run("verify", "--url", url, "--url", f"{url}/", "--only", "us/D*")  # as two replicas
    assert status == Exit.OK
    assert {one["url"] for one in found["segments"]} == {url}
    assert len(found["segments"]) == 2


@pytest.mark.parametrize("serve", ["0.5"], indirect=True)
def test_after_each_approve_and_rollback_every_answer_is_right_within_the_max_age(
    run: Any, two_releases: tuple[str, str], serve: Endpoint, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{serve.port}"
    assert run("verify", "--url", url)[0] == Exit.OK
    for words in (("approve", two_releases[1]), ("rollback",)):
        assert run(*words)[0] == Exit.OK
        assert run("verify", "--url", url, "--wait", "30")[0] == Exit.OK
    (tmp_path / "live/us/Dallas.tar.gz").write_bytes(boosters.segment_archive(5))
    status, found = run("verify", "--url", url, "--wait", "1")
    while kinds(found)[DALLAS] == "right":
        status, found = run("verify", "--url", url)
    assert (status, kinds(found)) == (Exit.FAILED, {HOUSTON: "right", DALLAS: "wrong"})


@pytest.mark.parametrize("serve", ["3600"], indirect=True)
def test_an_endpoint_may_be_named_as_sagemaker_knows_it(
    run: Any, serve: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    url = f"http://127.0.0.1:{serve.port}/predictions/segments"
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
    assert run("verify", "--endpoint", "prices")[0] == Exit.OK


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (lambda n_asked: n_asked >= 1, "right"),  # the new model's from the second question on
        (lambda n_asked: n_asked % 2, "old"),  # a balancer hands calls to two replicas in turns, one has not noticed
        (lambda n_asked: 1 - n_asked % 2, "right"),
        (lambda _: 2, "wrong"),
    ],
)
def test_who_notices_while_it_is_asked_is_not_said_to_be_wrong(
    run: Any, two_releases: tuple[str, str], tmp_path: Path, answers: Callable[[int], int], kind: str
) -> None:
    assert run("approve", two_releases[1])[0] == Exit.OK
    old, new, neither = (boosters.segment(number) for number in (0, 2, 3))
    n_asked = itertools.count()

    def ask(_: str, body: bytes) -> bytes:
        model = (old, new, neither)[answers(next(n_asked))]
        rows = xgboost.DMatrix(np.genfromtxt(io.BytesIO(body), delimiter=",", ndmin=2))
        return "\n".join(repr(float(score)) for score in model.predict(rows)).encode()

    place = place_at(str(tmp_path / "live"))
    (found,) = verify(place, *settled(place), ask, lambda key: key == HOUSTON)
    assert found.kind == kind


def test_nobody_at_the_address_is_said(run: Any, two_releases: tuple[str, str]) -> None:
    assert run("verify", "--url", "http://127.0.0.1:1")[0] == Exit.UNREACHABLE
