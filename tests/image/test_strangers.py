"""Strangers who mean no good, at the doors of the built image: the same attacks as `benchmarks.hostile`, one after the other,
with a container's memory limit, its read-only root and its small scratch."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hostile import Attackers
from benchmarks.rig.attacks import ATTACKS, Mark
from tests.image.box import CGROUPS, Box, Image
from tests.rig import boosters
from tests.rig.endpoint import free_port, until

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], np.float32)
LIMIT_BYTES = 1 << 30
BESIDE_S = 5.0  # the attackers' process begins within the first two
PAUSE_S = 0.02


@pytest.mark.skipif(not os.access(CGROUPS, os.W_OK), reason="needs control groups of version 1")
@pytest.mark.timeout(400)
def test_each_attack_on_the_image_harms_no_honest_caller(image: Image, segments: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for path in segments.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    classes = boosters.train(n_features=1, n_rounds=2, max_depth=2, objective="multi:softprob", num_class=10)
    (tmp_path / "many.tar.gz").write_bytes(boosters.archive({"xgboost-model": boosters.document(classes)}))
    expected = [float(boosters.expected(boosters.segment(number), X)[0, 0]) for number in range(4)]
    environment = {"MME_MODELS": "/mnt", "MME_ADMIN_PORT": str(free_port())}
    with Box(image, tmp_path, environment=environment, memory_bytes=LIMIT_BYTES) as box:
        mark = Mark(box.port, int(environment["MME_ADMIN_PORT"]), "0.tar.gz", "many.tar.gz")
        statuses: Counter[int] = Counter()

        def call(number: int) -> None:
            reply = box.post(f"{number}.tar.gz", ROW)
            statuses[reply.status] += 1
            assert reply.status != 200 or abs(float(reply.body) - expected[number]) < 1e-4

        for number in range(4):
            call(number)
        assert box.post("many.tar.gz", "1").status == 200
        members = {box.init, box.runtime, box.jvm}
        for name in sorted(ATTACKS):
            before = statuses.copy()
            with Attackers(mark, [name]):
                ends = time.monotonic() + BESIDE_S
                while time.monotonic() < ends:
                    call(sum(statuses.values()) % 4)
                    time.sleep(PAUSE_S)
            assert set(statuses - before) <= {200, 429, 503}, (name, statuses - before)
            until(lambda: box.ping() == 200 and box.post("0.tar.gz", ROW).status == 200, patience_s=60)
        assert {box.init, box.runtime, box.jvm} == members
        assert statuses[200] > 10 * (statuses[429] + statuses[503])
        assert int(box.group_figure("memory.max_usage_in_bytes")) < LIMIT_BYTES
