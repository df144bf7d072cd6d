"""The machine's clock jumps, as a suspended laptop's or a badly set host's does: nothing that waits or ages goes by it.

The clock is moved for one endpoint's processes alone, by a few lines of C that stand in front of libc.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint, free_port, until
from tests.rig.faulty_s3 import FaultyS3

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = boosters.rows(1, 6)
X[:] = [float(cell) for cell in ROW.split(",")]
YEAR_S = 365 * 86_400
MAX_AGE_S = 0.3

MOVED = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long moved(void) {
    char text[24] = {0};
    int file = open(getenv("MOVED_BY"), O_RDONLY);
    if (file < 0) return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    return size > 0 ? atol(text) : 0;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (!status && clock == CLOCK_REALTIME) now->tv_sec += moved();
    return status;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec, out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of who lives by the clock that MOVED_BY moves."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "moved.c").write_text(MOVED)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", folder / "moved.so", folder / "moved.c", "-ldl"], check=True
    )
    (folder / "by").write_text("0")
    return {"LD_PRELOAD": str(folder / "moved.so"), "MOVED_BY": str(folder / "by")}


@pytest.fixture
def s3() -> Iterator[FaultyS3]:
    with FaultyS3() as one:
        yield one


def answers(endpoint: Endpoint, target: str, number: int) -> bool:
    reply = endpoint.post(target, ROW)
    expected = float(boosters.expected(boosters.segment(number), X)[0, 0])
    return reply.status == 200 and abs(float(reply.body) - expected) < 1e-4


def says_ready(admin_port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=30)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def last_logged_at(endpoint: Endpoint) -> float:
    return float(next(json.loads(line)["at"] for line in reversed(endpoint.log) if line.startswith("{")))


def test_a_clock_that_jumps_changes_no_answer_no_wait_and_no_age(
    s3: FaultyS3, scratch: Path, moved: dict[str, str]
) -> None:
    for number in range(4):
        s3.put(f"{number}.tar.gz", boosters.segment_archive(number))
    admin_port = free_port()
    flags = [
        *("--s3-endpoint-url", s3.url, "--max-age", str(MAX_AGE_S), "--workers", "4", "--loaders", "2"),
        *("--admin-port", str(admin_port), "--access-log", "1"),
    ]
    by = Path(moved["MOVED_BY"])
    with Endpoint(f"s3://{s3.bucket}/", scratch, *flags, environment=moved) as endpoint:
        assert answers(endpoint, "0.tar.gz", 0)
        began = time.monotonic()
        for cold, jump_s in enumerate((YEAR_S, -10 * YEAR_S, -3600, 0), start=1):
            by.write_text(str(jump_s))
            assert answers(endpoint, "0.tar.gz", 0)  # a warm one
            until(lambda jump_s=jump_s: abs(last_logged_at(endpoint) - time.time() - jump_s) < 600, patience_s=30)
            if cold < 4:
                assert answers(endpoint, f"{cold}.tar.gz", cold)  # one that is loaded under this clock
            assert endpoint.post("none.tar.gz", ROW).status == 400
            s3.put("0.tar.gz", boosters.segment_archive(cold % 4))
            until(lambda cold=cold: answers(endpoint, "0.tar.gz", cold % 4), patience_s=30)
            s3.put("0.tar.gz", boosters.segment_archive(0))
            until(lambda: answers(endpoint, "0.tar.gz", 0), patience_s=30)
            assert endpoint.ping() == 200
            assert says_ready(admin_port)
        assert time.monotonic() - began < 120  # no wait was a year
        assert endpoint.stop() == 0
