"""Calls of a running endpoint, captured: as many as were answered, each with its own model's answer."""

from __future__ import annotations

import http.client
from collections import Counter
from pathlib import Path

from container.capture import layout
from container.capture.lines import parse
from handler.stores import open_store
from tests.rig.endpoint import Endpoint

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"


def test_each_call_is_captured_once_warm_or_cold_or_failed(segments: Path, scratch: Path, tmp_path: Path) -> None:
    flags = ["--capture", str(tmp_path), "--capture-errors", "--workers", "4", "--endpoint-name", "acme"]
    answers: Counter[tuple[str, str]] = Counter()
    with Endpoint(segments, scratch, *flags) as endpoint:
        connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
        for number in range(60):
            headers = {
                "Content-Type": "text/csv",
                "X-Amzn-SageMaker-Target-Model": f"us/{number % 3}.tar.gz",
                "X-Amzn-SageMaker-Inference-Id": f"call-{number}",
            }
            connection.request("POST", "/invocations", ROW, headers)
            answers[f"us/{number % 3}.tar.gz", connection.getresponse().read().decode()] += 1
        assert endpoint.post("us/0.tar.gz", "1,2").status == 424
    store = open_store(str(tmp_path))
    found = [parse(line) for one in layout.files(store) for line in store.fetch(one.target).data.splitlines()]
    right = [one for one in found if one.status == 200]
    assert Counter((one.target, one.output.decode()) for one in right) == answers
    assert sorted(one.inference_id for one in right) == sorted(f"call-{number}" for number in range(60))
    assert len({one.event_id for one in found}) == len(found) == 61
    assert Counter(one.cache for one in right) == {"hit": 57, "miss": 3}
    assert all(one.input == ROW.encode() and one.version and one.stages_us["predict"] >= 0 for one in right)
    (failed,) = [one for one in found if one.status != 200]
    assert (failed.target, failed.status) == ("us/0.tar.gz", 424)
