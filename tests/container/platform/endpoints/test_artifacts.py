"""A single model's data, fetched and unpacked."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from container.platform.endpoints.artifacts import DataMissing, unpack
from tests.rig import boosters
from tests.rig.platform import BUCKET, Account, client

# Letters by chance, which gzip writes by their frequency: damaged, they are read as other letters that only a checksum tells.
WHOLE = boosters.archive({"xgboost-model": bytes(random.Random(1).choices(b"abcdefgh", k=100_000))})
MIDDLE = len(WHOLE) // 2


@pytest.mark.parametrize(
    "data",
    [b"nonsense", WHOLE[:MIDDLE], WHOLE[:-8], WHOLE[:MIDDLE] + b"\xff" * 9 + WHOLE[MIDDLE + 9 :]],
    ids=["no gzip", "half", "without its end", "damaged"],
)
def test_what_is_no_whole_archive_is_told_with_its_url(aws: Account, tmp_path: Path, data: bytes) -> None:
    s3 = client(aws.url, "s3")
    s3.put_object(Bucket=BUCKET, Key="single.tar.gz", Body=data)
    s3.close()
    url = f"s3://{BUCKET}/single.tar.gz"
    with pytest.raises(DataMissing, match=f"Could not access model data at {url}"):
        unpack(url, tmp_path / "model", aws.url, "us-east-1")
