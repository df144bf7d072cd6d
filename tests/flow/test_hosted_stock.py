"""Hosted mode where MMS's plugin has not been compiled: the stock server, a stub for each model, gates in its log."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.test_hosted import invoke, is_answer_of, load, names, unload
from tests.rig import boosters
from tests.rig.endpoint import Endpoint, command_line, until

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Our code without the compiled classes, which are what tells the two apart."""
    root = tmp_path_factory.mktemp("stock")
    for package in ("container", "handler"):
        shutil.copytree(REPOSITORY / package, root / package, ignore=shutil.ignore_patterns("classes", "__pycache__"))
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(None, scratch, "--loaders", "2", root=root) as one:
        yield one
    shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle")
    (path / "xgboost-model").write_bytes(boosters.document(boosters.segment(1)))
    return path


def stubs(endpoint: Endpoint) -> list[int]:
    return [pid for pid in endpoint.family() if command_line(pid).startswith("cat")]


def test_the_contract_holds_with_a_stub_for_each_model(stock: Endpoint, bundle: Path, tmp_path: Path) -> None:
    assert [load(stock, "one", bundle).status, load(stock, "two", bundle).status] == [200, 200]
    until(lambda: len(stubs(stock)) == 2)
    assert load(stock, "one", bundle).status == 409
    assert is_answer_of(1, invoke(stock, "one"))
    assert unload(stock, "one").status == 200
    assert (len(stubs(stock)), names(stock), invoke(stock, "one").status) == (1, ["two"], 404)
    (tmp_path / "xgboost-model").write_bytes(b"no booster")
    assert [load(stock, "broken", tmp_path).status for _ in range(3)] == [422] * 3
    assert load(stock, "none", tmp_path / "none").status == 404
    assert (unload(stock, "two").status, names(stock)) == (200, [])


def test_an_archive_is_read_where_it_lies(stock: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "model.tar.gz").write_bytes(boosters.segment_archive(3))
    assert load(stock, "tar", tmp_path / "model.tar.gz").status == 200
    assert is_answer_of(3, invoke(stock, "tar"))
    assert unload(stock, "tar").status == 200


def test_a_killed_stub_costs_nothing_not_even_at_the_runtimes_next_start(stock: Endpoint, bundle: Path) -> None:
    assert load(stock, "x", bundle).status == 200
    (stub,) = stubs(stock)
    os.kill(stub, signal.SIGKILL)
    until(lambda: any("was killed; its socket stays" in line for line in stock.log))
    assert is_answer_of(1, invoke(stock, "x"))
    os.kill(stock.runtime, signal.SIGKILL)
    until(lambda: (reply := invoke(stock, "x")).status == 200 and is_answer_of(1, reply), 30)
    assert (unload(stock, "x").status, names(stock)) == (200, [])
    until(lambda: not list(stock.scratch.glob("*/tmp/.mms.sock.*")))
    assert load(stock, "x", bundle).status == 200
    assert is_answer_of(1, invoke(stock, "x"))
    assert unload(stock, "x").status == 200
