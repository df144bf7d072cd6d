"""`mme score --on ray`: the same bytes as without, from two machines that are processes here. Needs the `ray` extra."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from container.operate.batch import on_ray
from container.operate.batch.on_ray import shared_out
from container.operate.cluster import Cluster, machines_of
from container.operate.tables.files import DataFile
from container.operate.troubles import Misused, Stopped
from tests.container.operate.batch.test_run import files_below, models, score, table, write

__all__ = ["models"]

pytest.importorskip("pyarrow")


def file_of(name: str, size: int) -> DataFile:
    return DataFile(name, size, "1", "data", "parquet")


def test_files_go_to_machines_by_their_size_and_cores() -> None:
    files = [file_of(str(number), size) for number, size in enumerate((9, 1, 4, 4, 1, 8))]
    large, small = shared_out(files, [2, 1])
    assert sorted(file.name for file in [*large, *small]) == [file.name for file in files]
    assert (sum(file.size for file in large), sum(file.size for file in small)) == (18, 9)
    assert shared_out([], [4, 4]) == [[], []]


def test_without_ray_it_says_how_to_have_it(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    write(table(20, 1), tmp_path / "data/a.parquet")
    with pytest.raises(Misused, match=r"multi-model-endpoint\[ray\]"):
        score(models, tmp_path / "data", tmp_path / "out", cluster=Cluster())


# -- with Ray --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_two_machines_of_a_cluster_make_the_same_bytes_as_one_without(
    two_machines: Any, models: Path, tmp_path: Path
) -> None:
    for number in range(5):
        write(table(204, number, ["0", "3", "nowhere", "broken"] * 51), tmp_path / f"data/{number}.parquet")
    alone = score(models, tmp_path / "data", tmp_path / "alone")
    together = score(models, tmp_path / "data", tmp_path / "together", cluster=Cluster())
    assert files_below(tmp_path / "alone") == files_below(tmp_path / "together")
    assert together.summary is not None
    assert alone.summary is not None
    assert together.summary["errors"] == alone.summary["errors"] > 0
    again = score(models, tmp_path / "data", tmp_path / "together", cluster=Cluster())
    assert again.n_done_before == 5


@pytest.mark.timeout(300)
def test_ray_does_not_keep_the_signal_that_ends_a_run(two_machines: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Cluster().joined() as ray:
        assert len(machines_of(ray)) == 2
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.timeout(300)
def test_a_run_that_was_stopped_goes_on_without_the_cluster(two_machines: Any, models: Path, tmp_path: Path) -> None:
    for number in range(4):
        write(table(200, number), tmp_path / f"data/{number}.parquet")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        score(models, tmp_path / "data", tmp_path / "out", cluster=Cluster(), stop=stop)
    score(models, tmp_path / "data", tmp_path / "out")
    score(models, tmp_path / "data", tmp_path / "whole")
    assert files_below(tmp_path / "out") == files_below(tmp_path / "whole")


@pytest.mark.timeout(300)
def test_a_machine_that_sees_other_files_says_so(
    two_machines: Any, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(table(20, 1), tmp_path / "data/a.parquet")
    true = on_ray.Task

    def blind(*values: Any) -> Any:
        task = true(*values)
        write(table(20, 2), tmp_path / "data/b.parquet")
        return task

    monkeypatch.setattr(on_ray, "Task", blind)
    with pytest.raises(Misused, match="sees other files"):
        score(models, tmp_path / "data", tmp_path / "out", cluster=Cluster())
