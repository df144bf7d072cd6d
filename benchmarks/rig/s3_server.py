"""A local S3 over one directory, as a process of its own: `python -m benchmarks.rig.s3_server DIRECTORY [--latency SECONDS]`.

Prints its address. Of the objects below the directory, each is `segments/NAME` in the bucket `models`.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from benchmarks.rig.strangers import stand_aside
from tests.rig.faulty_s3 import ANY_KEY, ENVIRONMENT, FaultyS3, paced

BUCKET = "models"
PREFIX = "segments/"
# About what one connection to S3 brings; AWS counts with 85 to 90 MB/s (S3 User Guide, Performance design patterns).
BYTES_PER_S = 90e6


class LocalS3:
    """That process. `url` is what boto3 takes as endpoint_url, `location` what `--models` takes.

    module      the program
    latency_s   how long each answer takes
    """

    module = "benchmarks.rig.s3_server"
    location = f"s3://{BUCKET}/{PREFIX}"
    environment = ENVIRONMENT

    def __init__(self, directory: Path, latency_s: float = 0.0) -> None:
        self._directory = directory
        self._latency_s = latency_s
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", self.module, str(self._directory)]
        command += ["--latency", str(self._latency_s)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--latency", type=float, default=0.0)
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stand_aside()
    with FaultyS3(BUCKET) as s3:
        s3.faults[ANY_KEY] = paced(chosen.latency, BYTES_PER_S)
        for path in chosen.directory.iterdir():
            s3.put(PREFIX + path.name, path.read_bytes())
        print(s3.url, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
