"""Metrics sent to CloudWatch with PutMetricData, where no log is read for them.

Rule: the collector hands a report over and goes on. One sender thread, owned by the sink, talks to AWS; what it cannot
deliver waits in a bounded backlog, the oldest dropped and counted. Delivery is at least once: an answer lost on the way
back makes CloudWatch see a batch twice, which its API cannot prevent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from container.metrics.datapoints import (
    MODEL_DIMENSION,
    Datapoint,
    datapoints,
    dimension_value,
    dimension_values,
    model_datapoints,
)
from handler.telemetry.recorder import REPORTS_DROPPED, Recorder, Totals

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient

log = logging.getLogger(__name__)

# CloudWatch API reference, PutMetricData: 150 values a datum, 1000 data and 1 MB a call.
MAX_VALUES = 150
MAX_DATA = 1_000
MAX_VALUES_PER_CALL = 5_000  # a value and its count take at most 100 bytes in a call: half of 1 MB
MAX_BACKLOG_CALLS = 60  # an hour of reports
RETRY_AFTER_S = 15.0


class CloudWatchSink:
    """Sends reports through `client`. Started by making it, ended by `close`."""

    def __init__(
        self,
        client: CloudWatchClient,
        *,
        recorder: Recorder,
        namespace: str,
        dimensions: Mapping[str, str],
        per_model: bool = False,
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._namespace = namespace
        self._dimensions = dimension_values(dimensions)
        self._per_model = per_model
        self._changed = threading.Condition()  # guards the two lines below
        self._waiting: deque[list[dict[str, Any]]] = deque()
        self._last_try_s: float | None = None  # monotonic; set by close
        self._sender = threading.Thread(target=self._send_all, name="cloudwatch-sender", daemon=True)
        self._sender.start()

    def report(self, now: Totals, before: Totals) -> None:
        points = datapoints(now.since(before))
        if self._per_model:
            points += model_datapoints(now, before)
        data = put_metric_data(points, at_s=now.at_s, dimensions=self._dimensions)
        with self._changed:
            self._waiting.extend(_calls(data))
            while len(self._waiting) > MAX_BACKLOG_CALLS:
                self._waiting.popleft()
                self._recorder.count(REPORTS_DROPPED)
            self._changed.notify()

    def close(self, deadline_s: float) -> None:
        """Send what waits, for at most `deadline_s`; what is left then is dropped and counted."""
        with self._changed:
            self._last_try_s = time.monotonic() + deadline_s
            self._changed.notify()
        self._sender.join(deadline_s)
        with self._changed:
            if self._waiting:
                log.error("%d metric reports could not be delivered before the end", len(self._waiting))
                self._recorder.count(REPORTS_DROPPED, len(self._waiting))
                self._waiting.clear()

    def _send_all(self) -> None:
        while (call := self._next_call()) is not None:
            if self._is_done_with(call):
                with self._changed:
                    if self._waiting and self._waiting[0] is call:  # the backlog may have pushed it out meanwhile
                        self._waiting.popleft()
            else:
                self._rest()

    def _next_call(self) -> list[dict[str, Any]] | None:
        with self._changed:
            while not self._waiting and self._last_try_s is None:
                self._changed.wait()
            if not self._waiting or (self._last_try_s is not None and time.monotonic() >= self._last_try_s):
                return None
            return self._waiting[0]

    def _is_done_with(self, call: list[dict[str, Any]]) -> bool:
        try:
            self._client.put_metric_data(Namespace=self._namespace, MetricData=call)  # type: ignore[arg-type]
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            code = error.response.get("Error", {}).get("Code", "")
            log.warning("CloudWatch refused %d metrics: %s", len(call), error)
            if status >= 500 or "Throttl" in code:
                return False
            self._recorder.count(REPORTS_DROPPED)  # the same call would be refused again
        except (BotoCoreError, OSError) as error:
            log.warning("CloudWatch could not be reached: %s", error)
            return False
        return True

    def _rest(self) -> None:
        """Wait before the next try; shorter when the end is near."""
        with self._changed:
            if self._last_try_s is None:
                self._changed.wait(RETRY_AFTER_S)
            else:
                self._changed.wait(min(0.2, max(0.0, self._last_try_s - time.monotonic())))


def put_metric_data(points: Sequence[Datapoint], *, at_s: float, dimensions: Mapping[str, str]) -> list[dict[str, Any]]:
    """The datapoints as MetricDatum members, each within CloudWatch's limit of values."""
    shared = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    at = datetime.fromtimestamp(at_s, UTC)
    data = []
    for point in points:
        own = [{"Name": MODEL_DIMENSION, "Value": dimension_value(point.model)}] if point.model is not None else []
        data += [
            {
                "MetricName": piece.name,
                "Dimensions": shared + own,
                "Timestamp": at,
                "Unit": piece.unit,
                "Values": list(map(float, piece.values)),
                "Counts": list(map(float, piece.counts)),
            }
            for piece in point.split(MAX_VALUES)
        ]
    return data


def _calls(data: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    call: list[dict[str, Any]] = []
    n_values = 0
    for datum in data:
        if call and (len(call) == MAX_DATA or n_values + len(datum["Values"]) > MAX_VALUES_PER_CALL):
            yield call
            call, n_values = [], 0
        call.append(datum)
        n_values += len(datum["Values"])
    if call:
        yield call
