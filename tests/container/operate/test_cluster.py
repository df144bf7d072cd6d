"""Which Ray cluster, and what joining one leaves behind. With Ray itself: batch/test_on_ray.py, train/test_on_ray.py."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from container.operate.cluster import Cluster, Machine, machines_of
from container.operate.troubles import Misused


@pytest.mark.parametrize("text", ["spark", "ray:", "ray://", "http://x:1"])
def test_a_cluster_is_named_as_ray_names_it(text: str) -> None:
    with pytest.raises(Misused, match="ray://HOST:PORT"):
        Cluster.parse(text)
    assert Cluster.parse("ray") == Cluster(None)
    assert Cluster.parse("ray://h:10001") == Cluster("ray://h:10001")


class FakeRay:
    """Takes SIGTERM for itself, as Ray does (ray/_private/worker.py, init)."""

    def __init__(self, fails: bool = False) -> None:
        self.module = SimpleNamespace(init=self._init, shutdown=self._shutdown)
        self._fails = fails
        self.n_joined = 0

    def _init(self, *_: Any, **__: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        if self._fails:
            raise ConnectionError("nobody there")
        self.n_joined += 1

    def _shutdown(self) -> None:
        self.n_joined -= 1


def test_whoever_joins_keeps_its_signals_and_leaves_again(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, before = FakeRay(), signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "ray", ray.module)
    with Cluster().joined():
        assert ray.n_joined == 1
        assert signal.getsignal(signal.SIGTERM) is before
    assert ray.n_joined == 0
    with pytest.raises(ZeroDivisionError), Cluster().joined():
        raise ZeroDivisionError
    assert ray.n_joined == 0


def test_a_cluster_that_nobody_reaches_is_told_and_takes_no_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "ray", FakeRay(fails=True).module)
    with pytest.raises(Misused, match="--on ray://h:1: nobody there"), Cluster("ray://h:1").joined():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_machines_are_those_that_are_alive_and_have_a_core() -> None:
    def node(id: str, n_cores: float, *, is_alive: bool = True) -> dict[str, Any]:
        return {"NodeID": id, "Alive": is_alive, "Resources": {"CPU": n_cores} if n_cores else {}}

    nodes = [node("a", 4.0), node("gone", 4.0, is_alive=False), node("head", 0), node("b", 1.0)]
    assert machines_of(SimpleNamespace(nodes=lambda: nodes)) == [Machine("a", 4), Machine("b", 1)]
