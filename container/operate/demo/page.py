"""What `mme demo` shows: facts as aligned lines on 100 columns, and calls to paste.

Rule: nothing here measures or calls anything; it is given facts and gives text.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from container.environments import DEMO_KEY, DEMO_REGION

if TYPE_CHECKING:
    from container.operate.demo.houses import House

HEADING = f"  {'city':<17} {'built':>5}  {'sq ft':>6}  {'beds':>4}  {'baths':>5}  {'acres':>5}  {'garage':>6}  " + (
    f"{'predicted USD':>13}  {'ms':>7}  model"
)


@dataclass(frozen=True, slots=True)
class Call:
    """One answered call. `ms` is what the client waited, `load_ms` the part of it that went into loading the model."""

    city: str
    house: House
    usd: float
    ms: float
    is_hit: bool
    load_ms: int | None

    @property
    def row(self) -> str:
        house = self.house
        return (
            f"  {self.city:<17} {house.built:>5}  {house.square_feet:>6,}  {house.bedrooms:>4}  {house.bathrooms:>5.1f}  "
            f"{house.acres:>5.2f}  {house.garage:>6}  {self.usd:>13,.0f}  {self.ms:>7.1f}  "
            f"{'warm' if self.is_hit else 'cold'}"
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """Some durations in milliseconds: their middle and their worst. Both None when there are none."""

    median: float | None
    slowest: float | None

    @classmethod
    def of(cls, durations: Sequence[float]) -> Spread:
        return cls(round(median(durations), 1), round(max(durations), 1)) if durations else cls(None, None)

    def __str__(self) -> str:
        return "none" if self.median is None else f"median {self.median:6.1f} ms   slowest {self.slowest:6.1f} ms"


@dataclass(frozen=True, slots=True)
class Metrics:
    """The cache as a client sees it: a call that was no hit loaded its model."""

    n_calls: int
    n_hits: int
    n_loads: int
    load_ms: Spread
    cold_ms: Spread
    warm_ms: Spread

    @classmethod
    def of(cls, calls: Sequence[Call]) -> Metrics:
        # From the answers' CustomAttributes, as any caller could tell; the endpoint's own count is on its status port.
        hits = [call.ms for call in calls if call.is_hit]
        misses = [call for call in calls if not call.is_hit]
        return cls(
            n_calls=len(calls),
            n_hits=len(hits),
            n_loads=len(misses),
            load_ms=Spread.of([call.load_ms for call in misses if call.load_ms is not None]),
            cold_ms=Spread.of([call.ms for call in misses]),
            warm_ms=Spread.of(hits),
        )

    @property
    def lines(self) -> tuple[str, ...]:
        return (
            f"{self.n_calls} calls   {self.n_hits} hits   {self.n_loads} loads",
            f"load        {self.load_ms}   from S3 into memory",
            f"cold call   {self.cold_ms}   the load included",
            f"warm call   {self.warm_ms}",
        )


@dataclass(frozen=True, slots=True)
class Snippets:
    """The same call from four places, each to be pasted as it is. None needs credentials that exist."""

    boto3: str
    aws: str
    curl: str
    mme: str

    @classmethod
    def of(cls, url: str, path: str, target: str, body: str, program: str) -> Snippets:
        return cls(
            boto3=(
                "import boto3\n"
                f'runtime = boto3.client("sagemaker-runtime", endpoint_url="{url}{path}",\n'
                f'    region_name="{DEMO_REGION}", aws_access_key_id="{DEMO_KEY}", aws_secret_access_key="{DEMO_KEY}")\n'
                f'answer = runtime.invoke_endpoint(EndpointName="any", TargetModel="{target}",\n'
                f'    ContentType="text/csv", Body="{body}")\n'
                'print(answer["Body"].read().decode(), answer["CustomAttributes"])'
            ),
            # The body comes through fileb:// because version 1 knows no --cli-binary-format, and version 2 takes a plain
            # --body for base64 without it.
            aws=(
                f"echo {body} | AWS_ACCESS_KEY_ID={DEMO_KEY} AWS_SECRET_ACCESS_KEY={DEMO_KEY} \\\n"
                f"aws sagemaker-runtime invoke-endpoint --region {DEMO_REGION} \\\n"
                f"  --endpoint-url {url}{path} --endpoint-name any \\\n"
                f"  --target-model {target} --content-type text/csv \\\n"
                "  --body fileb:///dev/stdin /dev/stdout"
            ),
            curl=(
                f"curl {url}/invocations -H 'Content-Type: text/csv' \\\n"
                f"  -H 'X-Amzn-SageMaker-Target-Model: {target}' -d {body}"
            ),
            mme=f"{program} invoke --url {url} --target {target} {body}",
        )

    @property
    def text(self) -> str:
        return (
            f"from Python\n\n{self.boto3}\n\n"
            f"from the AWS CLI, version 1 or 2\n\n{self.aws}\n\n"
            f"with curl, or with mme\n\n{self.curl}\n\n{self.mme}"
        )


class Progress:
    """The one line that says what is being waited for, on a terminal's stderr; gone when the next fact is printed."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()

    def wait_for(self, what: str) -> None:
        if self._is_shown:
            print(f"\r\x1b[K{what} ...", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class Printer:
    """Facts to stdout as they come; with `--json` nothing until the one document at the end."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        self.progress = Progress()

    def say(self, text: str = "") -> None:
        if not self._is_json:
            self.progress.clear()
            print(text, flush=True)

    def document(self, facts: Any) -> None:
        import json

        if self._is_json:
            self.progress.clear()
            print(json.dumps(facts), flush=True)
