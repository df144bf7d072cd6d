"""What the runtime hears of besides requests: callers who hang up, and what the front end refuses itself."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from tests.flow.test_hosted import load
from tests.rig import boosters
from tests.rig.endpoint import Endpoint, free_port, needs_classes, until

pytestmark = needs_classes
PATIENCE_S = 60.0
N_ROWS = 1000


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model whose SHAP values take some ten milliseconds a row."""
    rng = np.random.default_rng(1)
    rows = rng.random((3000, 6), dtype=np.float32)
    data = xgboost.DMatrix(rows, rng.random(3000, dtype=np.float32))
    booster = xgboost.train({"max_depth": 9, "eta": 0.01, "min_child_weight": 0, "nthread": 2}, data, 60)
    return boosters.archive({"xgboost-model": bytes(booster.save_raw("ubj"))})


def sent(endpoint: Endpoint, path: str, headers: str, body: str) -> socket.socket:
    stream = socket.create_connection(("127.0.0.1", endpoint.port), timeout=PATIENCE_S)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    stream.sendall((head + body).encode())
    return stream


def logged(endpoint: Endpoint, **wanted: Any) -> list[dict[str, Any]]:
    """Lines of the access log that have these values."""
    found = []
    for line in endpoint.log:
        at = line.find("{")
        if at < 0 or '"status"' not in line:
            continue
        record = json.loads(line[at:])
        if all(record.get(name) == value for name, value in wanted.items()):
            found.append(record)
    return found


@pytest.mark.parametrize("is_hosted", [False, True], ids=["standalone", "hosted"])
def test_work_for_a_caller_who_hangs_up_stops(heavy: bytes, tmp_path: Path, scratch: Path, is_hosted: bool) -> None:
    (tmp_path / "heavy.tar.gz").write_bytes(heavy)
    body = "\n".join(",".join(map(str, row)) for row in boosters.rows(N_ROWS, 6).tolist())
    asks = "X-Amzn-SageMaker-Custom-Attributes: Output=contribs\r\n"
    flags = ["--access-log", "1", *([] if is_hosted else ["--workers", "4"])]
    with Endpoint(None if is_hosted else tmp_path, scratch, *flags) as endpoint:
        if is_hosted:
            assert load(endpoint, "heavy", tmp_path / "heavy.tar.gz").status == 200
            path = "/models/heavy/invoke"
        else:
            path, asks = "/invocations", asks + "X-Amzn-SageMaker-Target-Model: heavy.tar.gz\r\n"
        with sent(endpoint, path, asks, "0.1,0.2,0.3,0.4,0.5,0.6") as stream:  # it is loaded, and there is a lane
            assert stream.recv(15) == b"HTTP/1.1 200 OK"
        until(lambda: logged(endpoint, status=200), PATIENCE_S)
        sent(endpoint, path, asks, body).close()
        until(lambda: logged(endpoint, status=503), PATIENCE_S)
        (record,) = logged(endpoint, status=503)
        assert "nobody waits" in record["error"]
        assert len(logged(endpoint, status=200)) == 1


def test_what_the_front_end_refuses_is_counted_and_written_down(segments: Path, scratch: Path) -> None:
    admin = free_port()
    flags = ["--workers", "2", "--access-log", "0", "--admin-port", str(admin), "--max-body", "1000"]
    with Endpoint(segments, scratch, *flags) as endpoint:
        with sent(endpoint, "/invocations", "", "x" * 2000) as stream:
            assert stream.recv(12) == b"HTTP/1.1 413"
        with sent(endpoint, "/invocations", "Host: y\r\n", "1") as stream:
            assert stream.recv(12) == b"HTTP/1.1 400"
        until(lambda: len(logged(endpoint, error="refused by the front end")) == 2, PATIENCE_S)
        assert sorted(one["status"] for one in logged(endpoint, error="refused by the front end")) == [400, 413]
        (line,) = [line for line in _metrics(admin).splitlines() if line.startswith("mme_front_end_refusals_total")]
        assert line.endswith(" 2.0")


def _metrics(admin: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics") as answer:
        text: str = answer.read().decode()
    return text
