"""How many models fit, and which limit says so."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from container.limits import capacity as capacity
from container.limits.capacity import BASE_DESCRIPTORS, BASE_HEAP_BYTES, BASE_TASKS, Capacity, Cost, model_capacity

COST = Cost(descriptors=5, tasks=4, heap_bytes=1000, worker_bytes=0)
MUCH = 1 << 50


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Of this process, by resource; more than anybody needs unless a test says otherwise."""
    table = {resource.RLIMIT_NOFILE: MUCH, resource.RLIMIT_NPROC: resource.RLIM_INFINITY}
    monkeypatch.setattr(capacity.resource, "getrlimit", lambda which: (table[which], table[which]))
    return table


def test_descriptors_say_how_many_when_there_are_least_of_them(limits: dict[int, int], tmp_path: Path) -> None:
    limits[resource.RLIMIT_NOFILE] = BASE_DESCRIPTORS + 5 * 7 + 4
    assert model_capacity(COST, MUCH, tmp_path) == Capacity(7, "as many as fit in 439 descriptors (ulimit -n)")


def test_the_java_heap_says_how_many_when_it_is_small(tmp_path: Path) -> None:
    found = model_capacity(COST, BASE_HEAP_BYTES + 9_999, tmp_path)
    assert (found.n_models, "Java heap" in found.source) == (9, True)


@pytest.mark.parametrize(
    "name", ["sys/fs/cgroup/pids.max", "sys/fs/cgroup/pids/pids.max", "proc/sys/kernel/threads-max"]
)
def test_tasks_of_the_container_or_the_machine_say_how_many(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(f"{BASE_TASKS + 4 * 11}\n")
    found = model_capacity(COST, MUCH, tmp_path)
    assert (found.n_models, name.rpartition("/")[2] in found.source) == (11, True)


def test_a_users_own_limit_on_tasks_counts(limits: dict[int, int], tmp_path: Path) -> None:
    limits[resource.RLIMIT_NPROC] = BASE_TASKS + 4 * 3
    assert model_capacity(COST, MUCH, tmp_path) == Capacity(3, "as many as fit in 162 tasks (ulimit -u)")


def test_no_limit_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "sys/fs/cgroup/pids.max"
    path.parent.mkdir(parents=True)
    path.write_text("max\n")
    assert "tasks" not in model_capacity(COST, MUCH, tmp_path).source


def test_one_model_may_always_try(limits: dict[int, int], tmp_path: Path) -> None:
    limits[resource.RLIMIT_NOFILE] = 64
    assert model_capacity(COST, MUCH, tmp_path).n_models == 1
