"""`mme drift`: which segments' calls look unlike what their models were trained on."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from container.operate.exits import CommandFailed, Exit
from container.operate.printing import fact
from container.operate.release import place
from container.operate.troubles import Misused, NotNow

if TYPE_CHECKING:
    from container.operate.drift.captured import Reader, Window
    from container.operate.drift.judge import Judged
    from handler.stores import Store

MAX_ROWS = 5_000
LEAST_ROWS = 100
MOVED = 0.25  # from which on a segment's world is another one, see train/profiles.py
METRIC = "SegmentDrift"
N_PER_REQUEST = 150  # CloudWatch: 1,000 metrics a request, in 1 MB
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(min|h|d)")
_SECONDS = {"min": 60, "h": 3600, "d": 86400}


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "drift",
        help="say which segments' captured calls look unlike what their models were trained on",
        description="Hold what an endpoint captured (mme serve --capture) against what the live release's models were "
        "trained on: for each segment the population stability index of each feature, what is missing, and how its scores "
        "have moved.",
        epilog="exit codes: 0 told; 1 a segment has moved by more than --most; 2 misused; 5 the store is away",
    )
    parser.add_argument("--capture", required=True, metavar="LOC", help="as mme serve was told")
    place.add_arguments(parser, "--of")
    parser.add_argument("--since", default="24h", metavar="SPAN", help="such as 30min, 24h or 7d; default %(default)s")
    parser.add_argument("--worst", type=int, default=20, metavar="N", help="segments shown; default %(default)s")
    parser.add_argument(
        "--least-rows",
        type=int,
        default=LEAST_ROWS,
        metavar="N",
        help="of a segment that is judged; default %(default)s",
    )
    parser.add_argument(
        "--most", type=float, metavar="INDEX", help="more than this in one segment makes the exit code 1"
    )
    parser.add_argument(
        "--cloudwatch", action="store_true", help=f"put {METRIC} of the worst segments, one metric each"
    )
    parser.add_argument("--endpoint-name", default="local", help="its dimension; default %(default)s")
    parser.add_argument("--metrics-namespace", default="MultiModelEndpoint", help="default %(default)s")
    parser.add_argument("--cloudwatch-endpoint-url", metavar="URL", help="another CloudWatch than Amazon's")
    parser.add_argument("--json", action="store_true", help="print all segments as JSON")
    parser.set_defaults(run=lambda chosen: guarded("drift", _run, chosen))


def guarded(name: str, do: Callable[[argparse.Namespace], int], chosen: argparse.Namespace) -> int:
    """What it comes to, or why not, in one line."""
    from handler.errors import ArtifactError
    from handler.stores import LocationInvalid

    try:
        return do(chosen)
    except (ArtifactError, LocationInvalid) as error:
        is_away = isinstance(error, ArtifactError)
        trouble: CommandFailed = NotNow(str(error)) if is_away else Misused(str(error))
    except CommandFailed as error:
        trouble = error
    except OSError as error:
        trouble = Misused(f"{error.filename}: {error.strerror}")
    print(f"mme {name}: {trouble}", file=sys.stderr)
    return trouble.exit


@contextmanager
def opened_store(chosen: argparse.Namespace, where: str) -> Iterator[Store]:
    """Raises LocationInvalid."""
    from handler.stores import open_store

    store = open_store(where, s3=_s3(chosen, where))
    try:
        yield store
    finally:
        store.close()


def _run(chosen: argparse.Namespace) -> int:
    from container.operate.drift.captured import Reader

    window = _window(chosen.since)
    opened = place.open_place(chosen)
    try:
        live = Live(opened)
        reader = Reader(live.features, window, MAX_ROWS)
        with opened_store(chosen, chosen.capture) as store:
            reader.read(store)
        judged = live.judge(reader, chosen.least_rows)
    finally:
        opened.close()
    ranked = sorted((one for one in judged if one.index is not None), key=lambda one: -(one.index or 0.0))
    if chosen.cloudwatch:
        _put(chosen, ranked[: chosen.worst])
    if chosen.json:
        print(json.dumps(_facts(judged, reader), allow_nan=False))
    else:
        _tell(judged, ranked[: chosen.worst], reader, chosen.least_rows)
    has_moved = chosen.most is not None and any((one.index or 0.0) > chosen.most for one in ranked)
    return Exit.FAILED if has_moved else Exit.OK


class Live:
    """What is live: each segment's features, and what it was trained on."""

    def __init__(self, opened: place.Place) -> None:
        from container.operate.release import live
        from container.operate.release.shelf import Manifests
        from container.operate.train import profiles

        _, state = live.settled(opened)
        if not state.entries:
            raise Misused(f"nothing is live at {opened.location}")
        manifests = Manifests(opened.shelf)
        releases = {entry.release for entry in state.entries.values() if entry.release}
        self._profiles = {release: profiles.read(opened.shelf, release) for release in releases}
        self._release: dict[str, str] = {}
        self.features = {}
        for key, entry in state.entries.items():
            manifest = manifests.get(entry.release)
            segment = manifest.segments.get(key) if manifest is not None else None
            if segment is not None and segment.digest == entry.digest:
                self.features[key] = segment.features
                self._release[key] = entry.release

    def judge(self, reader: Reader, least_rows: int) -> list[Judged]:
        from container.operate.drift.judge import judge
        from container.operate.train.rows import Columns

        found = []
        for key, seen in sorted(reader.seen.items()):
            features = self.features[key]
            known = self._profiles[self._release[key]]
            profile = known.get(key) if known is not None else None
            places = known.places(Columns(features.n, features.names)) if known is not None else {}
            found.append(judge(key, seen, features, profile, places, least_rows))
        return found


def _s3(chosen: argparse.Namespace, where: str) -> Any:
    if not where.startswith("s3://"):
        return None
    from container import settings
    from handler.stores.s3 import S3Settings

    return S3Settings(endpoint_url=settings.read_one("endpoint_url", chosen.endpoint_url), max_connections=1)


def _window(text: str) -> Window:
    """Raises Misused."""
    from container.operate.drift.captured import Window

    match = _SPAN.fullmatch(text)
    if match is None:
        raise Misused(f"{text!r} is no span: write 30min, 24h or 7d")
    try:
        span = timedelta(seconds=float(match[1]) * _SECONDS[match[2]])
        since = datetime.now(UTC) - span
        return Window(since - span, since)
    except OverflowError as error:
        raise Misused(f"{text!r} is too long a span: there are no such dates") from error


def _tell(judged: Sequence[Judged], worst: Sequence[Judged], reader: Reader, least_rows: int) -> None:
    few = sum(not one.is_enough for one in judged)
    unknown = sum(one.is_enough and not one.features for one in judged)
    n_moved = sum((one.index or 0.0) >= MOVED for one in judged)
    print(fact("calls", f"{sum(one.n_calls for one in judged):,}", f"of {len(judged):,} segments"))
    print(fact("moved", f"{n_moved:,} segments by {MOVED} or more"))
    for n, words in (
        (few, f"segments with fewer than {least_rows} rows, which say nothing"),
        (unknown, "segments whose release does not say what they were trained on (mme train does)"),
        (sum(one.n_unread for one in judged), "calls whose rows or scores could not be read"),
        (sum(one.n_failed for one in judged), "calls that failed"),
        (reader.n_unknown, "calls of models that are not live"),
        (reader.n_broken, "lines that are no captured calls"),
    ):
        if n:
            print(fact("left out", f"{n:,} {words}"))
    if not worst:
        return
    width = max(len(one.key) for one in worst)
    names = max(len(one.features[0].name) for one in worst)
    print(
        f"\n{'segment':{width}}  {'rows':>6}  {'feature':{names}}  {'index':>6}  {'missing':>15}  {'values':>21}  scores"
    )
    for one in worst:
        feature = one.features[0]
        missing = f"{feature.missing:.1%}, was {feature.missing_then:.1%}"
        values = "none" if math.isnan(feature.low) else f"{feature.low:.4g} to {feature.high:.4g}"
        scores = "" if one.score_mean is None else f"mean {one.score_mean:.4g}"
        scores += "" if one.score_index is None else f", index {one.score_index:.3f}"
        print(
            f"{one.key:{width}}  {one.n_rows:>6,}  {feature.name:{names}}  {feature.index:>6.3f}  {missing:>15}  "
            f"{values:>21}  {scores}".rstrip()
        )


def _facts(judged: Sequence[Judged], reader: Reader) -> dict[str, Any]:
    segments = []
    for one in judged:
        features = [_as_json(asdict(feature)) for feature in one.features]
        segments.append(_as_json(asdict(one)) | {"features": features, "index": one.index})
    counts = {"lines": reader.n_lines, "broken": reader.n_broken, "of_other_models": reader.n_unknown}
    return {"segments": segments, **counts}


def _as_json(facts: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN, and no number that is too large."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in facts.items()
    }


def _put(chosen: argparse.Namespace, worst: Sequence[Judged]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    from handler.aws import cloudwatch

    data: list[Any] = [
        {
            "MetricName": METRIC,
            "Dimensions": [
                {"Name": "EndpointName", "Value": chosen.endpoint_name},
                {"Name": "Model", "Value": one.key[:1024]},
            ],
            "Value": one.index,
            "Unit": "None",
        }
        for one in worst
    ]
    try:
        client = cloudwatch(endpoint_url=chosen.cloudwatch_endpoint_url)
        for at in range(0, len(data), N_PER_REQUEST):
            client.put_metric_data(Namespace=chosen.metrics_namespace, MetricData=data[at : at + N_PER_REQUEST])
    except (BotoCoreError, ClientError) as error:
        raise NotNow(f"CloudWatch does not take the metrics: {error}") from error
