"""`mme train --job` on the platform: two hosts share the segments, and one candidate release comes of it."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from container.operate.exits import Exit
from container.operate.main import main
from container.operate.train import starting
from tests.rig.faulty_s3 import ENVIRONMENT
from tests.rig.platform import client, platform

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROLE = "arn:aws:iam::123456789012:role/jobs"
CITIES = [f"{number}.tar.gz" for number in range(4)]


def rows_of(seed: int) -> bytes:
    random = np.random.default_rng(seed)
    x = random.random((200, 3)).astype(np.float32)
    columns = {"city": random.integers(0, len(CITIES), 200).astype(str), "y": x.sum(axis=1)}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns | {f"f{at}": x[:, at] for at in range(3)}), buffer)
    return buffer.getvalue()


def test_a_job_on_two_hosts_makes_one_release(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(starting.follow, "__defaults__", (0.1,))  # how often it looks
    with platform() as one:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": one.url}.items():
            monkeypatch.setenv(name, value)
        s3 = client(one.url, "s3")
        s3.create_bucket(Bucket="shop")
        for number in range(2):
            s3.put_object(Bucket="shop", Key=f"rows/{number}.parquet", Body=rows_of(number))
        words = ["--data", "s3://shop/rows/", "--segment-column", "city", "--label", "y", "--to", "s3://shop/live/"]
        as_job = ["--job", "--instances", "2", "--image", "image", "--role", ROLE]
        assert main(["train", *words, "--set", "num_round=3", *as_job]) == Exit.OK
        assert "Completed" in capsys.readouterr().out
        found = s3.list_objects_v2(Bucket="shop", Prefix="live.releases/releases/")["Contents"]
        (release,) = (s3.get_object(Bucket="shop", Key=one["Key"])["Body"].read() for one in found)
        assert sorted(json.loads(release)["segments"]) == CITIES
