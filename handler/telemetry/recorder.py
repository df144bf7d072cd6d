"""What is measured, and the recorder that measures it.

Every metric is a row of `METRICS`: name, unit, kind, and the moment it moves. README's table is rendered from it.

Rule: recording never waits. A thread writes only into its own ledger, so there is no lock on the request path; ledgers
only ever grow, so reading them (`collect`) takes nothing away and two readers cannot disturb each other. What a
exporter reports is the difference between two readings, so nothing is lost or told twice.

    thread 1 -> ledger -+
    thread 2 -> ledger -+-> collect() -> Totals -> Totals.since(earlier) -> EMF, CloudWatch
    thread 3 -> ledger -+                       -> as it is              -> Prometheus, status page
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, Protocol

from handler.bounded_table import BoundedTable
from handler.telemetry.traffic import NO_TRAFFIC, OTHER, ModelTraffic, Traffic, TrafficBoard

log = logging.getLogger(__name__)

Unit = Literal["None", "Count", "Microseconds", "Bytes", "Percent"]
Kind = Literal["count", "flag", "time", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table.

    kind  count  a sum of whole numbers
          flag   1 or 0 per occasion, so that its average is a share and its sum a count
          time   a distribution of whole microseconds
          gauge  a value that is true at the moment of reading
    when  one sentence: the moment it moves
    """

    name: str
    unit: Unit
    kind: Kind
    when: str


# The first six are SageMaker's own for multi-model endpoints, by name, unit and meaning, so that an alarm or a
# dashboard written for those reads ours. Source: SageMaker guide, "CloudWatch Metrics for Multi-Model Endpoint
# Deployments".
MODEL_CACHE_HIT = Metric(
    "ModelCacheHit",
    "None",
    "flag",
    "An invocation found its model in memory (1) or did not (0); the average is the hit ratio.",
)
MODEL_LOADING_WAIT_TIME = Metric(
    "ModelLoadingWaitTime",
    "Microseconds",
    "time",
    "An invocation waited for its model to be downloaded, loaded or both.",
)
MODEL_DOWNLOADING_TIME = Metric(
    "ModelDownloadingTime", "Microseconds", "time", "An artifact has been fetched from its store."
)
MODEL_LOADING_TIME = Metric(
    "ModelLoadingTime", "Microseconds", "time", "A model has been made ready to score from its fetched artifact."
)
MODEL_UNLOADING_TIME = Metric(
    "ModelUnloadingTime",
    "Microseconds",
    "time",
    "A model's memory has been given back; the sample count is the number of unloads.",
)
LOADED_MODEL_COUNT = Metric("LoadedModelCount", "None", "gauge", "Read at every report: models in memory.")

INVOCATIONS = Metric("Invocations", "None", "count", "A request has been answered, whatever the answer.")
MODEL_LATENCY = Metric(
    "ModelLatency", "Microseconds", "time", "A model has answered: reading the body, scoring and writing the answer."
)
OVERHEAD_LATENCY = Metric(
    "OverheadLatency",
    "Microseconds",
    "time",
    "A request has been answered: all of its time in this process that is not ModelLatency.",
)
INVOCATION_4XX_ERRORS = Metric(
    "Invocation4XXErrors", "None", "flag", "A request was answered with a status from 400 to 499 (1) or another (0)."
)
INVOCATION_5XX_ERRORS = Metric(
    "Invocation5XXErrors", "None", "flag", "A request was answered with a status from 500 to 599 (1) or another (0)."
)
MODEL_NOT_READY = Metric(
    "ModelNotReady",
    "Count",
    "count",
    "A request was answered 429 because its model was still loading when the wait budget ran out.",
)
LOADED_MODEL_BYTES = Metric("LoadedModelBytes", "Bytes", "gauge", "Read at every report: memory held by models.")
MEMORY_UTILIZATION = Metric(
    "MemoryUtilization", "Percent", "gauge", "Read at every report: memory held by models, of the memory budget."
)
EVICTIONS = Metric("Evictions", "Count", "count", "A model was unloaded to make room for another.")
AGE_AT_EVICTION = Metric("AgeAtEviction", "Microseconds", "time", "A model was evicted: the time since it was loaded.")
RELOADS_WITHIN_MINUTES = Metric(
    "ReloadsWithinMinutes",
    "Count",
    "count",
    "A model was loaded again within 5 minutes of its eviction: the cache thrashes.",
)
DOWNLOADED_BYTES = Metric("DownloadedBytes", "Bytes", "count", "An artifact has been fetched from its store: its size.")
SINGLE_FLIGHT_WAITERS = Metric(
    "SingleFlightWaiters", "Count", "count", "An invocation joined a load that another had already begun."
)
BROKEN_ARTIFACTS = Metric("BrokenArtifacts", "Count", "count", "An artifact was found to be damaged, or not a model.")
FALLBACK_INVOCATIONS = Metric(
    "FallbackInvocations",
    "Count",
    "count",
    "An invocation of a segment without a model was answered by the default that stands in for it.",
)
LOADS_FROM_DISK = Metric(
    "LoadsFromDisk", "Count", "count", "A model entered memory from disk: nothing was fetched from the store."
)
MEMORY_SHORTAGES = Metric(
    "MemoryShortages", "Count", "count", "The container came close to its memory limit, and models were evicted for it."
)
CONTAINER_MEMORY_UTILIZATION = Metric(
    "ContainerMemoryUtilization",
    "Percent",
    "gauge",
    "Read at every report: memory the whole container uses, without pages of files, of its limit.",
)
STORE_ERRORS = Metric(
    "StoreErrors", "Count", "count", "The store failed or denied a request, after retries; not: an artifact is missing."
)
MODEL_UPDATES = Metric(
    "ModelUpdates", "Count", "count", "A newer version of an artifact took the place of the model in memory."
)
QUEUE_DEPTH = Metric(
    "QueueDepth", "Count", "gauge", "Read at every report: requests that wait for a thread or for a load."
)
LOADS_NOT_BEGUN = Metric(
    "LoadsNotBegun",
    "Count",
    "count",
    "A caller was turned away (429) and no load begun for the model, the line of loads being full.",
)
FRONT_END_REFUSALS = Metric(
    "FrontEndRefusals",
    "Count",
    "count",
    "The front end refused a request itself, which is in none of the other figures: its framing, size or time, or no place.",
)
REPORTS_DROPPED = Metric(
    "ReportsDropped", "Count", "count", "A sink gave up a report it could not deliver, after bounded retries."
)
LOG_LINES_DROPPED = Metric(
    "LogLinesDropped",
    "Count",
    "count",
    "A line of the access log, or of the runtime's own, was given up because the log could not be written fast enough.",
)

CAPTURED_CALLS = Metric("CapturedCalls", "Count", "count", "A call has been written where captured calls go.")
CAPTURE_DROPPED = Metric(
    "CaptureDropped",
    "Count",
    "count",
    "A call that should have been captured was not: too much was under way, or the store did not take it.",
)

SPANS_DROPPED = Metric(
    "SpansDropped", "Count", "count", "A call has no span at the collector, because too many were under way."
)

METRICS: tuple[Metric, ...] = (
    MODEL_CACHE_HIT,
    MODEL_LOADING_WAIT_TIME,
    MODEL_DOWNLOADING_TIME,
    MODEL_LOADING_TIME,
    MODEL_UNLOADING_TIME,
    LOADED_MODEL_COUNT,
    INVOCATIONS,
    MODEL_LATENCY,
    OVERHEAD_LATENCY,
    INVOCATION_4XX_ERRORS,
    INVOCATION_5XX_ERRORS,
    MODEL_NOT_READY,
    LOADED_MODEL_BYTES,
    MEMORY_UTILIZATION,
    EVICTIONS,
    AGE_AT_EVICTION,
    RELOADS_WITHIN_MINUTES,
    DOWNLOADED_BYTES,
    SINGLE_FLIGHT_WAITERS,
    BROKEN_ARTIFACTS,
    FALLBACK_INVOCATIONS,
    LOADS_FROM_DISK,
    MEMORY_SHORTAGES,
    CONTAINER_MEMORY_UTILIZATION,
    STORE_ERRORS,
    MODEL_UPDATES,
    QUEUE_DEPTH,
    LOADS_NOT_BEGUN,
    FRONT_END_REFUSALS,
    REPORTS_DROPPED,
    LOG_LINES_DROPPED,
    CAPTURED_CALLS,
    CAPTURE_DROPPED,
    SPANS_DROPPED,
)


def as_markdown(metrics: Sequence[Metric] = METRICS) -> str:
    """The table of metrics as Markdown, one row each, ending with a newline."""
    rows = [f"| `{metric.name}` | {metric.unit} | {metric.when} |" for metric in metrics]
    return "\n".join(["| metric | unit | when it moves |", "| --- | --- | --- |", *rows]) + "\n"


# Upper bounds of the time buckets in microseconds, inclusive: the ten preferred numbers per decade of ISO 3 (R10), from
# 10 us to 11 days. Neighbours differ by about 26 %, and every bucket also keeps its sum, so its mean is exact.
BOUNDS_US: tuple[int, ...] = (
    *(step * 10**decade for decade in range(11) for step in (10, 13, 16, 20, 25, 32, 40, 50, 63, 80)),
    10**12,
)
BUCKETS = len(BOUNDS_US) + 1  # the last one holds what is longer than any bound

# A cell is one integer that holds a number of recordings above bit 64 and their sum below it. One addition moves both,
# so a reader on another thread can never see a count without its sum. 2**64 us are half a million years.
ONE = 1 << 64
_SUM = ONE - 1


def _lay_out(metrics: Sequence[Metric]) -> tuple[dict[str, int], int]:
    """Where each metric's cells begin in a ledger, and how many cells a ledger has."""
    first_cell: dict[str, int] = {}
    n_cells = 0
    for metric in metrics:
        if metric.kind != "gauge":
            first_cell[metric.name] = n_cells
            n_cells += BUCKETS if metric.kind == "time" else 1
    return first_cell, n_cells


_FIRST_CELL, _N_CELLS = _lay_out(METRICS)

_HIT = _FIRST_CELL[MODEL_CACHE_HIT.name]
_WAIT = _FIRST_CELL[MODEL_LOADING_WAIT_TIME.name]
_INVOCATIONS = _FIRST_CELL[INVOCATIONS.name]
_MODEL = _FIRST_CELL[MODEL_LATENCY.name]
_OVERHEAD = _FIRST_CELL[OVERHEAD_LATENCY.name]
_4XX = _FIRST_CELL[INVOCATION_4XX_ERRORS.name]
_5XX = _FIRST_CELL[INVOCATION_5XX_ERRORS.name]
_NOT_READY = _FIRST_CELL[MODEL_NOT_READY.name]

RELOAD_WINDOW_S = 300.0  # "within minutes": a model that returns this soon after its eviction should not have left
MAX_EVICTED_REMEMBERED = 10_000  # names; more evictions than this in one window is thrash that needs no exact figure
RECENT_EVICTIONS = 50  # shown on the status page
RECENT_RELOADS = 5_000  # enough to say which models thrash


@dataclass(frozen=True, slots=True)
class Bucket:
    """Recordings of about the same size: how many, and their exact sum."""

    count: int
    total: int

    @property
    def mean(self) -> float:
        return self.total / self.count


@dataclass(frozen=True, slots=True)
class Eviction:
    """A model that had to leave. `at_s` is seconds since the epoch."""

    model: str
    at_s: float
    age_us: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Reload:
    """A model that came back soon after its eviction: thrash, by name."""

    model: str
    at_s: float
    away_s: float


@dataclass(frozen=True, slots=True)
class Invocation:
    """The facts of one request, for the access log.

    request_id  the caller's InferenceId when there is one, or one of our own
    target      what the caller named, or None
    is_hit      True from memory, False after a load, None when the cache was never asked
    stages_us   what took how long, in order: (("decode", 41), ("predict", 63), ...)
    """

    request_id: str
    target: str | None
    status: int
    is_hit: bool | None
    total_us: int
    stages_us: tuple[tuple[str, int], ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything recorded up to one moment, or, from `since`, between two moments.

    cells    one integer per count and flag, BUCKETS per time; read it through the methods
    gauges   by metric name; a gauge nobody registered, or whose reading failed, is absent
    traffic  the busiest models, busiest first, then `other`; each since it was listed, as rows come and go
    all_traffic  every model's traffic since the start, in one row
    """

    at_s: float
    cells: tuple[int, ...]
    gauges: Mapping[str, float] = field(default_factory=dict)
    traffic: tuple[ModelTraffic, ...] = ()
    all_traffic: ModelTraffic = NO_TRAFFIC

    @staticmethod
    def nothing() -> Totals:
        """What a recorder has before its first recording; the `earlier` of a first report."""
        return Totals(0.0, (0,) * _N_CELLS)

    def since(self, earlier: Totals) -> Totals:
        """What was recorded after `earlier`; gauges and traffic stay as they are now."""
        moved = tuple(now - before for now, before in zip(self.cells, earlier.cells, strict=True))
        return Totals(self.at_s, moved, self.gauges, self.traffic, self.all_traffic)

    def count(self, metric: Metric) -> int:
        """How often the metric was recorded."""
        return sum(cell >> 64 for cell in self._cells(metric))

    def total(self, metric: Metric) -> int:
        """The sum of what was recorded: a count's value, a time's microseconds, a flag's ones."""
        return sum(cell & _SUM for cell in self._cells(metric))

    def buckets(self, metric: Metric) -> tuple[Bucket | None, ...]:
        """A time's distribution, one place per bound of BOUNDS_US and one beyond; None where nothing fell."""
        return tuple(Bucket(cell >> 64, cell & _SUM) if cell else None for cell in self._cells(metric))

    def percentile_us(self, metric: Metric, percent: float) -> float | None:
        """The mean of the bucket in which the given share of recordings is reached; None when there are none.

        Off by no more than the width of a bucket, 26 %, and usually by far less.
        """
        buckets = [bucket for bucket in self.buckets(metric) if bucket]
        wanted = sum(bucket.count for bucket in buckets) * percent / 100
        reached = 0
        for bucket in buckets:
            reached += bucket.count
            if reached >= wanted:
                return bucket.mean
        return None

    def _cells(self, metric: Metric) -> tuple[int, ...]:
        first = _FIRST_CELL[metric.name]
        return self.cells[first : first + (BUCKETS if metric.kind == "time" else 1)]


class Recorder(Protocol):
    """What the serving code calls. Times are whole microseconds; no method waits for a sink or fails because of one."""

    def invocation(
        self,
        model: str | None,
        is_hit: bool | None,
        total_us: int,
        model_us: int | None,
        status: int,
        wait_us: int = 0,
    ) -> None: ...
    def count(self, metric: Metric, value: int = 1) -> None: ...
    def time_us(self, metric: Metric, us: int) -> None: ...
    def gauge(self, metric: Metric, read: Callable[[], float]) -> None: ...
    def loaded(
        self, model: str, *, load_us: int, download_us: int | None = None, downloaded_bytes: int = 0
    ) -> None: ...
    def evicted(self, model: str, *, unload_us: int, age_us: int, n_bytes: int) -> None: ...


class Silent:
    """A recorder that forgets, for tests of something else."""

    def invocation(
        self,
        model: str | None,
        is_hit: bool | None,
        total_us: int,
        model_us: int | None,
        status: int,
        wait_us: int = 0,
    ) -> None:
        pass

    def count(self, metric: Metric, value: int = 1) -> None:
        pass

    def time_us(self, metric: Metric, us: int) -> None:
        pass

    def gauge(self, metric: Metric, read: Callable[[], float]) -> None:
        pass

    def loaded(self, model: str, *, load_us: int, download_us: int | None = None, downloaded_bytes: int = 0) -> None:
        pass

    def evicted(self, model: str, *, unload_us: int, age_us: int, n_bytes: int) -> None:
        pass


class _Ledger:
    """What one thread has recorded since it began. Written by that thread alone, read by any.

    Only cells that were ever moved exist: in hosted mode there is a thread per model, and most move a dozen of them.
    """

    __slots__ = ("cells", "told", "traffic")

    def __init__(self) -> None:
        self.cells: defaultdict[int, int] = defaultdict(int)
        self.told: dict[int, int] = {}  # the reader's: the cells as it last saw them
        self.traffic = Traffic()


class _ThreadEnd:
    """Held by nothing but its thread, and gone with it, in whichever way the thread was made."""

    __slots__ = ("__weakref__",)


class _OwnLedger(threading.local):
    """The calling thread's ledger, made and enrolled on the thread's first recording."""

    def __init__(self, enrol: Callable[[_Ledger, _ThreadEnd], None]) -> None:
        self.ledger = _Ledger()
        self.lease = _ThreadEnd()  # once it is gone, the recorder knows that the ledger is final
        enrol(self.ledger, self.lease)


_Enrolment = tuple[_Ledger, weakref.ref[_ThreadEnd]]


class LiveRecorder:
    """Records into per-thread ledgers and adds them up on demand.

    top_models  how many models get traffic figures of their own; all others share one row, `other`
    clock_s     seconds since the epoch, for the dates of totals and evictions
    """

    def __init__(self, *, top_models: int = 50, clock_s: Callable[[], float] = time.time) -> None:
        self._clock_s = clock_s
        self._joining: deque[_Enrolment] = deque()  # threads that began to record since the last reading
        self._books = threading.Lock()  # between readers only; guards the three lines below
        self._enrolled: list[_Enrolment] = []
        self._cells = [0] * _N_CELLS  # the sum of all ledgers as last read, of ended threads too
        self._board = TrafficBoard(top_models)
        self._gauges: dict[str, Callable[[], float]] = {}
        self._residence = threading.Lock()  # guards the three lines below; loads and evictions only
        self._evicted_at_s: BoundedTable[str, float] = BoundedTable(MAX_EVICTED_REMEMBERED)
        self._evictions: deque[Eviction] = deque(maxlen=RECENT_EVICTIONS)
        self._reloads: deque[Reload] = deque(maxlen=RECENT_RELOADS)
        self._own = _OwnLedger(self._enrol)

    # -- recording ---------------------------------------------------------------------------------------------------

    def invocation(
        self,
        model: str | None,
        is_hit: bool | None,
        total_us: int,
        model_us: int | None,
        status: int,
        wait_us: int = 0,
    ) -> None:
        """One answered request, in one call: moves Invocations, ModelCacheHit, ModelLatency, OverheadLatency,
        ModelLoadingWaitTime, the error flags, ModelNotReady and the model's traffic.

        model     its name once the target proved to exist; None otherwise, so that invented names fill no table
        is_hit    None when the request failed before the cache was asked
        model_us  None when no model was reached
        wait_us   time spent waiting for a download or load; 0 is not recorded
        """
        ledger = self._own.ledger
        cells = ledger.cells
        total_us = max(0, int(total_us))
        cells[_INVOCATIONS] += ONE + 1
        if is_hit is not None:
            cells[_HIT] += ONE + is_hit
        overhead_us = total_us
        if model_us is not None:
            model_us = max(0, int(model_us))
            cells[_MODEL + bisect_left(BOUNDS_US, model_us)] += ONE + model_us
            overhead_us = max(0, total_us - model_us)
        cells[_OVERHEAD + bisect_left(BOUNDS_US, overhead_us)] += ONE + overhead_us
        if wait_us > 0:
            wait_us = int(wait_us)
            cells[_WAIT + bisect_left(BOUNDS_US, wait_us)] += ONE + wait_us
        is_error = status >= 400
        if is_error:
            cells[_4XX] += ONE + (status < 500)
            cells[_5XX] += ONE + (status >= 500)
            if status == 429:
                cells[_NOT_READY] += ONE + 1
        else:
            cells[_4XX] += ONE
            cells[_5XX] += ONE
        ledger.traffic.add(OTHER if model is None else model, bool(is_hit), is_error, total_us)

    def count(self, metric: Metric, value: int = 1) -> None:
        """Add a whole number, not negative, to a count; or one occasion, 1 or 0, to a flag."""
        self._own.ledger.cells[_FIRST_CELL[metric.name]] += ONE + max(0, int(value))

    def time_us(self, metric: Metric, us: int) -> None:
        """Add one duration, in microseconds, to a time."""
        us = max(0, int(us))
        self._own.ledger.cells[_FIRST_CELL[metric.name] + bisect_left(BOUNDS_US, us)] += ONE + us

    def gauge(self, metric: Metric, read: Callable[[], float]) -> None:
        """Say how a gauge is read. `read` is called on the collector's thread and on a scraper's; it must not block."""
        if metric.kind != "gauge":
            raise ValueError(f"{metric.name} is a {metric.kind}, not a gauge")
        self._gauges = {**self._gauges, metric.name: read}

    def loaded(self, model: str, *, load_us: int, download_us: int | None = None, downloaded_bytes: int = 0) -> None:
        """A model entered memory: moves ModelLoadingTime, ModelDownloadingTime, DownloadedBytes, LoadsFromDisk,
        ReloadsWithinMinutes.

        download_us  None when the artifact was already on disk
        """
        self.time_us(MODEL_LOADING_TIME, load_us)
        if download_us is None:
            self.count(LOADS_FROM_DISK)
        else:
            self.time_us(MODEL_DOWNLOADING_TIME, download_us)
            self.count(DOWNLOADED_BYTES, downloaded_bytes)
        now_s = self._clock_s()
        with self._residence:
            evicted_at_s = self._evicted_at_s.pop(model, None)
            if evicted_at_s is None or now_s - evicted_at_s > RELOAD_WINDOW_S:
                return
            self._reloads.append(Reload(model, now_s, now_s - evicted_at_s))
        self.count(RELOADS_WITHIN_MINUTES)

    def evicted(self, model: str, *, unload_us: int, age_us: int, n_bytes: int) -> None:
        """A model left to make room: moves Evictions, AgeAtEviction and ModelUnloadingTime."""
        self.count(EVICTIONS)
        self.time_us(AGE_AT_EVICTION, age_us)
        self.time_us(MODEL_UNLOADING_TIME, unload_us)
        now_s = self._clock_s()
        with self._residence:
            self._evicted_at_s.put(model, now_s)
            self._evictions.append(Eviction(model, now_s, age_us, n_bytes))

    # -- reading -----------------------------------------------------------------------------------------------------

    def collect(self) -> Totals:
        """Everything recorded so far by every thread, dead ones included. Callable from any thread, at any time."""
        with self._books:
            while self._joining:
                self._enrolled.append(self._joining.popleft())
            living = []
            for ledger, lease in self._enrolled:
                # The lease is looked at before the cells: once it is dead the thread writes no more, so what is read
                # then is final. Looked at afterwards, a recording in between would be let go unread.
                if lease() is not None:
                    living.append((ledger, lease))
                self._add(ledger)
                self._board.take(ledger.traffic)
            self._enrolled = living
            now_s = self._clock_s()
            self._board.settle(now_s)
            cells, traffic, all_traffic = tuple(self._cells), self._board.rows(), self._board.total()
        return Totals(now_s, cells, MappingProxyType(self._read_gauges()), traffic, all_traffic)

    def _add(self, ledger: _Ledger) -> None:
        now = dict(ledger.cells)  # one step under the interpreter lock, so it is never read half changed
        told, ledger.told = ledger.told, now
        if now != told:
            for place, cell in now.items():
                self._cells[place] += cell - told.get(place, 0)

    def recent_evictions(self) -> tuple[Eviction, ...]:
        """The models that left most recently, the last one first."""
        with self._residence:
            return tuple(reversed(self._evictions))

    def recent_reloads(self) -> tuple[Reload, ...]:
        """Models that came back within RELOAD_WINDOW_S of their eviction, the last one first."""
        with self._residence:
            return tuple(reversed(self._reloads))

    def _read_gauges(self) -> dict[str, float]:
        values = {}
        for name, read in self._gauges.items():
            try:
                values[name] = float(read())
            except Exception:  # a gauge is somebody else's code; its failure must not take the others along
                log.exception("gauge %s could not be read", name)
        return values

    def _enrol(self, ledger: _Ledger, lease: _ThreadEnd) -> None:
        self._joining.append((ledger, weakref.ref(lease)))
