"""The README's pictures: the demo's houses called while models load, seen on the real status page.

    python -m benchmarks.pictures [--seconds 180] [--models 100]

The demo's cities in districts, each with a model of its own, in the demo's S3; calls by boto3, few at first and then more,
until all models are in memory. Meanwhile every exporter is on, and at the end each must have counted what the client did.
Writes pictures/status-*.png, which are in the repository. Needs Chromium (Debian: apt-get install chromium).
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.rig import exporters, record, segments
from benchmarks.rig.cloudwatch_server import LocalCloudWatch
from benchmarks.rig.endpoints import Ours
from benchmarks.rig.verdicts import Verdict, exit_status
from container.operate.demo import houses
from container.operate.demo.bucket import EmbeddedBucket
from container.operate.endpoint.calling import Endpoint
from tests.rig.browser import Browser, Page

PICTURES = Path(__file__).with_name("pictures")
BUCKET, PREFIX = "house-prices", "models/"
FIRST_PER_S, LAST_PER_S = 1.0, 25.0
EXPONENT = 0.6  # of Zipf's law: districts differ less than cities do
MAX_BYTES = 150_000
N_COLOURS = 128  # the page has a handful, and the edges of its letters some more
HEIGHT = 724  # on a desktop, to the end of the second row of charts
PHONE_HEIGHT = 900
SETTLE_S = 6.0  # a point of the history is 5 s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=180.0, help="of calls")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--to", type=Path, default=PICTURES, help="directory of the pictures")
    chosen = parser.parse_args()
    chosen.to.mkdir(parents=True, exist_ok=True)
    figures = _run(chosen.seconds, chosen.models, chosen.to)
    exporters.print_counts(figures["counts"])
    ratios = [ratio for ratio in figures["timeline"]["hit_ratio"] if ratio is not None]
    verdicts = [
        *exporters.verdicts(figures["counts"]),
        Verdict("lines of EMF that CloudWatch would not take", figures["n_problems"], "at most", 0, "{:.0f}"),
        Verdict("hit ratio in the first five seconds", ratios[0], "at most", 0.5),
        Verdict("hit ratio in the last five seconds", ratios[-1], "at least", 1.0),
    ]
    record.save("pictures", {**figures, "verdicts": [one.facts() for one in verdicts]})
    return exit_status(verdicts)


def _run(seconds: float, n_models: int, to: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch, EmbeddedBucket(BUCKET) as bucket, LocalCloudWatch() as cloudwatch:
        lines_at = Path(scratch) / "stdout"
        bucket.start()
        targets = _fill(bucket, n_models)
        flags = ("--s3-endpoint-url", bucket.url, "--memory", "64MiB", *exporters.flags(cloudwatch, 10.0))
        serving = Ours(f"s3://{BUCKET}/{PREFIX}", *flags, environment=exporters.SWITCHES, output=lines_at)
        with serving as ours:
            seen = _call(ours, targets, seconds)
            _photograph(ours, Path(scratch), to)
            time.sleep(SETTLE_S)
            prometheus = exporters.of_prometheus(ours)
            timeline = json.loads(ours.admin("/status.json"))["history"]
        log = exporters.EmfLog(lines_at)
        counts = {
            "client": seen,
            "EMF": log.counts(),
            "CloudWatch": exporters.of_cloudwatch(cloudwatch),
            "Prometheus": prometheus,
        }
    return {"models": n_models, "counts": counts, "n_problems": len(log.problems), "timeline": timeline}


def _fill(bucket: EmbeddedBucket, n_models: int) -> list[str]:
    """A model for each district of each city."""
    cities = itertools.cycle(houses.CITIES.items())
    targets = []
    for number, (city, price) in zip(range(n_models), cities, strict=False):
        district = f"{city}/{number // len(houses.CITIES) + 1:02}"
        targets.append(houses.target_of(district))
        bucket.put(PREFIX + targets[-1], houses.train_city(district, price).archive)
    print(f"trained {n_models} models", file=sys.stderr)
    return targets


def _call(ours: Ours, targets: list[str], seconds: float) -> dict[str, int]:
    """Houses priced, more of them every second; what the client counted."""
    endpoint = Endpoint(f"http://127.0.0.1:{ours.port}")
    random = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    named = set()
    draws = segments.zipf(len(targets), round((FIRST_PER_S + LAST_PER_S) / 2 * seconds), EXPONENT)
    start_s = time.monotonic()
    for number in [*draws.tolist(), *range(len(targets))]:  # at the end whoever was never called
        target = targets[number]
        answered = endpoint.call(target, houses.draw_house(random).csv.encode())
        seen["calls"] += 1
        seen["hits"] += answered.is_hit is True
        named.add(target)
        share = min(1.0, (time.monotonic() - start_s) / seconds)
        time.sleep(1 / (FIRST_PER_S + (LAST_PER_S - FIRST_PER_S) * share))
    return {"calls": seen["calls"], "found": seen["calls"], "hits": seen["hits"], "refused": 0, "loads": len(named)}


def _photograph(ours: Ours, scratch: Path, to: Path) -> None:
    browser = Browser(scratch / "chromium")
    try:
        for name, width, height, scheme in (
            ("light", 1280, HEIGHT, "light"),
            ("dark", 1280, HEIGHT, "dark"),
            ("phone", 390, PHONE_HEIGHT, "light"),
        ):
            page = Page(browser, f"http://127.0.0.1:{ours.admin_port}/", width=width, scheme=scheme)
            _save(page.screenshot(scratch / "picture.png", height=height), to / f"status-{name}.png")
            page.close()
    finally:
        browser.close()


def _save(png: bytes, path: Path) -> None:
    """Smaller by a palette, which nobody can tell from the original."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(N_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"written  {path.name}, {size / 1e3:.0f} KB", file=sys.stderr)
    if size > MAX_BYTES:
        raise SystemExit(f"{path.name} has {size} bytes, more than a README's picture should")


if __name__ == "__main__":
    sys.exit(main())
