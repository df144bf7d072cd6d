"""A local S3 over one directory, as a process of its own: `python -m benchmarks.s3_server DIRECTORY`.

Prints its address. Of the objects below the directory, each is `segments/NAME` in the bucket `models`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.faulty_s3 import FaultyS3

BUCKET = "models"
PREFIX = "segments/"


class LocalS3:
    """That process. `url` is what boto3 takes as endpoint_url, `location` what `--models` takes."""

    location = f"s3://{BUCKET}/{PREFIX}"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "benchmarks.s3_server", str(self._directory)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with FaultyS3(BUCKET) as s3:
        for path in Path(sys.argv[1]).iterdir():
            s3.put(PREFIX + path.name, path.read_bytes())
        print(s3.url, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
