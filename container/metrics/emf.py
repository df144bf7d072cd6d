"""Metrics as lines of CloudWatch Embedded Metric Format, for a log that CloudWatch reads.

Rule: a line is one bare JSON object, written with one write() and never longer than PIPE_BUF, so that processes which
share a pipe never cut into each other's lines. A report that does not fit is several lines.

Source: CloudWatch guide, "Specification: Embedded metric format": at most 100 metrics a directive, 100 values a metric.
The text of that page knows a number or a list of numbers as a metric's value. `{"Values": [...], "Counts": [...]}` is
what AWS's own exporter sends for histograms (OpenTelemetry collector, awsemfexporter, which splits at 100 values because
CloudWatch rejects more) and what keeps a line short however much traffic it stands for; `lists=True` falls back to
lists, whose length grows with the traffic.
"""

from __future__ import annotations

import logging
import os
import select
import time
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import chain, islice, repeat

import orjson

from container.metrics.datapoints import (
    MODEL_DIMENSION,
    Datapoint,
    datapoints,
    dimension_value,
    dimension_values,
    model_datapoints,
)
from handler.telemetry.recorder import REPORTS_DROPPED, Recorder, Totals

log = logging.getLogger(__name__)

MAX_LINE_BYTES = select.PIPE_BUF  # POSIX: a write of up to this many bytes to a pipe is not interleaved with others
MAX_VALUES = 100
MAX_METRICS = 100
MAX_BACKLOG_LINES = 500  # about an hour of a quiet endpoint's reports, at most 2 MB
WRITABLE_WAIT_S = 1.0


class EmfSink:
    """Writes a report as lines to a file descriptor, which it does not own.

    A line that cannot be written waits for the next report; when too many wait, the oldest is dropped and counted.
    """

    def __init__(
        self,
        fd: int,
        *,
        recorder: Recorder,
        namespace: str,
        dimensions: Mapping[str, str],
        per_model: bool = False,
        lists: bool = False,
    ) -> None:
        self._fd = fd
        self._recorder = recorder
        self._namespace = namespace
        self._dimensions = dimension_values(dimensions)
        self._per_model = per_model
        self._lists = lists
        self._waiting: deque[bytes] = deque()

    def report(self, now: Totals, before: Totals) -> None:
        self._waiting += emf_lines(
            datapoints(now.since(before)),
            at_s=now.at_s,
            namespace=self._namespace,
            dimensions=self._dimensions,
            lists=self._lists,
        )
        if self._per_model:
            for point in model_datapoints(now, before):
                self._waiting += emf_lines(
                    [point],
                    at_s=now.at_s,
                    namespace=self._namespace,
                    dimensions={**self._dimensions, MODEL_DIMENSION: dimension_value(point.model or "")},
                    lists=self._lists,
                )
        self._write_waiting()
        while len(self._waiting) > MAX_BACKLOG_LINES:
            self._waiting.popleft()
            self._recorder.count(REPORTS_DROPPED)

    def close(self, deadline_s: float) -> None:
        """Write what still waits, for at most `deadline_s`."""
        self._write_waiting(deadline_s)

    def _write_waiting(self, deadline_s: float = WRITABLE_WAIT_S) -> None:
        ends_s = time.monotonic() + deadline_s
        writable = select.poll()
        writable.register(self._fd, select.POLLOUT)
        while self._waiting:
            line = self._waiting[0]
            try:
                # A reader that has stopped reading must not stop the collector, which has other sinks to serve.
                if not writable.poll(max(0.0, ends_s - time.monotonic()) * 1000):
                    log.warning("metrics wait: nobody reads the log they are written to")
                    return
                written = os.write(self._fd, line)
            except BlockingIOError:  # somebody sharing the pipe made it non-blocking and filled it first
                return
            except OSError as error:
                log.warning("metrics wait: the log they are written to fails (%s)", error)
                return
            if written == len(line):
                self._waiting.popleft()
            else:  # a full disk; the rest goes first when there is room again
                self._waiting[0] = line[written:]


def emf_lines(
    points: list[Datapoint], *, at_s: float, namespace: str, dimensions: Mapping[str, str], lists: bool = False
) -> Iterator[bytes]:
    """The datapoints as lines, each a valid document on its own, each ending with a newline."""
    frame = _Frame(int(at_s * 1000), namespace, dict(dimensions))
    line = b""
    batch: list[Datapoint] = []
    pieces = chain.from_iterable(_fitting(piece, frame, lists) for point in points for piece in _pieces(point, lists))
    for piece in pieces:
        longer = frame.line([*batch, piece], lists)
        # A metric may stand only once in a document, so the second piece of a long one begins a new line.
        is_second = any(piece.name == other.name for other in batch)
        if batch and (len(longer) > MAX_LINE_BYTES or len(batch) == MAX_METRICS or is_second):
            yield line
            batch, longer = [], frame.line([piece], lists)
        batch.append(piece)
        line = longer
    if batch:
        yield line


class _Frame:
    """What all documents of a report have in common."""

    def __init__(self, at_ms: int, namespace: str, dimensions: dict[str, str]) -> None:
        self._at_ms = at_ms
        self._namespace = namespace
        self._dimensions = dimensions

    def line(self, points: list[Datapoint], lists: bool) -> bytes:
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [list(self._dimensions)],
            "Metrics": [{"Name": point.name, "Unit": point.unit} for point in points],
        }
        document = {
            "_aws": {"Timestamp": self._at_ms, "CloudWatchMetrics": [directive]},
            **self._dimensions,
            **{point.name: _as_list(point) if lists else _as_counts(point) for point in points},
        }
        return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _pieces(point: Datapoint, lists: bool) -> Iterator[Datapoint]:
    if not lists:
        yield from point.split(MAX_VALUES)
        return
    samples = chain.from_iterable(repeat(value, n) for value, n in zip(point.values, point.counts, strict=True))
    while part := tuple(islice(samples, MAX_VALUES)):
        yield Datapoint(point.name, point.unit, part, (1,) * len(part), point.model)


def _fitting(piece: Datapoint, frame: _Frame, lists: bool) -> Iterator[Datapoint]:
    """The piece, halved until a line of its own is short enough: long dimension values leave less room for samples."""
    n_values = len(piece.values)
    if n_values == 1 or len(frame.line([piece], lists)) <= MAX_LINE_BYTES:
        yield piece
        return
    for half in piece.split((n_values + 1) // 2):
        yield from _fitting(half, frame, lists)


def _as_counts(point: Datapoint) -> object:
    if point.is_single:
        return point.values[0]
    return {
        "Values": point.values,
        "Counts": point.counts,
        "Min": min(point.values),
        "Max": max(point.values),
        "Sum": point.total,
        "Count": point.n_samples,
    }


def _as_list(point: Datapoint) -> object:
    return point.values[0] if point.is_single else point.values
