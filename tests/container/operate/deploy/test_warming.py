"""Targets called on a new fleet: what fails is told, and stops nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from container.operate.deploy import warming
from container.operate.deploy.aws import Aws
from container.operate.main import main
from handler.payload.decode import decode
from tests.container.operate.deploy.files import wanted
from tests.rig import boosters


def test_an_answer_that_breaks_off_is_told_and_the_others_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def invoked(TargetModel: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        def read() -> bytes:
            if TargetModel == "a":
                raise ReadTimeoutError(endpoint_url="x")
            return b"1.0"

        return {"Body": SimpleNamespace(read=read)}

    monkeypatch.setattr(warming, "golden_rows", lambda _, targets: dict.fromkeys(targets, "1,2"))
    said: list[str] = []
    aws = Aws(client=lambda _: SimpleNamespace(invoke_endpoint=invoked))
    warm = warming.warmer(aws, wanted(more="[update]\nwarm = ['a', 'b']"), said.append)
    assert warm is not None
    warm()
    assert said == [
        "  a is not warmed: InvokeEndpoint: the answer broke off (ReadTimeoutError)",
        "  1 of 2 targets warmed",
    ]


def test_bodies_are_golden_rows_of_what_is_live_and_of_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.ubj").write_bytes(boosters.document(boosters.train(n_features=5, seed=3)))
    live = str(tmp_path / "live")
    assert main(["publish", str(tmp_path / "a.ubj"), "--to", live]) == 0
    assert warming.golden_rows(live, ("a.tar.gz",)) == {}  # published is not live
    assert main(["release", "approve", "--of", live]) == 0
    rows = warming.golden_rows(live, ("a.tar.gz", "b.tar.gz"))
    assert list(rows) == ["a.tar.gz"]
    assert decode(rows["a.tar.gz"].encode(), "text/csv", 5).values.shape[1] == 5
