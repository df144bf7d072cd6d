"""`mme train --on ray`: what one machine makes, from two that are processes here. Needs the `ray` extra."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from container.operate.cluster import Cluster
from container.operate.exits import Exit
from container.operate.main import main
from container.operate.train import on_ray
from container.operate.train.rows import BUDGET_BYTES
from container.operate.train.run import Share, Sources
from container.operate.troubles import Misused, Stopped
from tests.container.operate.train.test_run import N_SEGMENTS, asked, outcome_of, shelf_of, table, train, write


def task(data: Path, live: Path) -> on_ray.Task:
    return on_ray.Task(str(live), None, None, asked(), Sources((str(data),)), "me", "", BUDGET_BYTES)


def test_machines_share_the_segments_by_their_cores() -> None:
    shares = on_ray.shares_of([1, 3])
    assert shares == [Share(0, 4), Share(1, 4, width=3)]
    keys = [f"us/{number}.tar.gz" for number in range(400)]
    assert all(sum(share.has(key) for share in shares) == 1 for key in keys)
    assert 60 < sum(shares[0].has(key) for key in keys) < 140


def test_without_ray_it_says_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(Misused, match=r"multi-model-endpoint\[ray\]"):
        on_ray.train(Cluster(), task(tmp_path, tmp_path / "live"), threading.Event())


def test_the_command_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(table(), tmp_path / "data/a.parquet")
    words = [
        "train",
        "--data",
        str(tmp_path / "data"),
        "--segment-column",
        "city",
        "--label",
        "y",
        "--to",
        str(tmp_path / "live"),
    ]
    assert main([*words, "--on", "spark"]) == Exit.USAGE
    assert "ray://HOST:PORT" in capsys.readouterr().err


@pytest.mark.timeout(300)
def test_two_machines_of_a_cluster_make_the_same_models_as_one_without(two_machines: Any, tmp_path: Path) -> None:
    data = write(table(), tmp_path / "data/a.parquet")
    train(data, tmp_path / "alone")
    assert on_ray.train(Cluster(), task(data, tmp_path / "together"), threading.Event()) == N_SEGMENTS
    alone, together = (
        {name: one for name, one in shelf_of(tmp_path / place).items() if name.startswith("artifacts/")}
        for place in ("alone", "together")
    )
    assert alone == together
    assert outcome_of(data, tmp_path / "together").manifest is not None


@pytest.mark.timeout(300)
def test_a_signal_ends_the_work_on_all_machines(two_machines: Any, tmp_path: Path) -> None:
    data = write(table(), tmp_path / "data/a.parquet")
    stop = threading.Event()
    stop.set()
    many = on_ray.Task(
        str(tmp_path / "live"), None, None, asked("num_round=20000"), Sources((str(data),)), "me", "", BUDGET_BYTES
    )
    with pytest.raises(Stopped):
        on_ray.train(Cluster(), many, stop)
