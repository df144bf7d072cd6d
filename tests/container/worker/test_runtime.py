"""What the runtime says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from container.link.channel import Channel
from container.worker import runtime as runtime_module
from container.worker.notes import Notes
from container.worker.runtime import Runtime
from handler.messages import Answer
from handler.telemetry.recorder import Silent


def test_a_pool_whose_threads_are_all_busy_for_long_is_no_place_to_send_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(runtime_module.time, "monotonic", lambda: now_s[0])
    ours, theirs = Channel.pair()
    runtime = Runtime(
        ours,
        answer=lambda _: Answer(200, "", b""),
        notes=Notes(Silent(), None),
        n_threads=2,
        io_dir=tmp_path,
        max_frame_bytes=1,
    )
    runtime._n_loaded = 2
    runtime._count_in_pool(1)
    now_s[0] = 100.0
    assert runtime.reasons_not_ready() == []
    runtime._count_in_pool(1)
    now_s[0] = 104.0
    assert runtime.reasons_not_ready() == []
    now_s[0] = 106.0
    assert runtime.reasons_not_ready() == ["every worker has been busy for 6 s"]
    runtime._count_in_pool(-1)
    runtime._count_in_pool(1)  # the next, who waited for this thread
    assert runtime.reasons_not_ready() == []
    ours.close()
    theirs.close()
