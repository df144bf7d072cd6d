"""What watches the runtime: metrics on their way out, the admin port, the access log.

Rule: `Watch` owns all of it and closes it in the order in which nothing is lost: the log, the port, the sinks.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from container.limits.memory import process_resident_bytes
from container.log_stream import LogStream
from container.metrics.access_log import AccessLog
from container.metrics.admin import AdminServer
from container.metrics.collector import Collector, Sink
from container.metrics.emf import EmfSink
from container.metrics.history import History
from container.metrics.prometheus import PrometheusExporter
from container.metrics.serving_port import ServingPort, silence_at
from container.metrics.source import Health, ModelState, Snapshot
from container.settings import Settings
from handler.cache.model_cache import ModelCache
from handler.errors import StartRefused
from handler.telemetry.recorder import (
    LOADED_MODEL_BYTES,
    LOADED_MODEL_COUNT,
    LOG_LINES_DROPPED,
    MEMORY_UTILIZATION,
    QUEUE_DEPTH,
    LiveRecorder,
)

log = logging.getLogger(__name__)

RELAY = "relay.sock"  # in MMS's temp directory, see launch/mms.py


@dataclass(frozen=True, slots=True)
class RuntimeSource:
    """What the admin port is told of the runtime.

    reasons_not_ready   why requests should go elsewhere just now; empty when they should not
    """

    title: str
    started_s: float
    cache: ModelCache
    reasons_not_ready: Callable[[], Sequence[str]]

    def health(self) -> Health:
        reasons = tuple(self.reasons_not_ready())
        return Health(is_alive=True, is_ready=not reasons, reasons=reasons)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            title=self.title,
            started_s=self.started_s,
            loaded_models=len(self.cache),
            loaded_bytes=self.cache.resident_bytes,
            budget_bytes=self.cache.budget_bytes,
            process_bytes=process_resident_bytes(),
        )

    def models(self) -> Sequence[ModelState]:
        return [
            ModelState(
                one.target,
                one.version,
                one.n_bytes,
                one.age_s,
                one.idle_s,
                one.hits,
                one.borrowers,
                one.is_pinned,
                one.trouble,
            )
            for one in self.cache.residents()
        ]


class AdminPortTaken(StartRefused):
    """The admin port cannot be had, and why."""


class Watch:
    """Everything that reports. Started by `start`, once the cache exists; closed by `close`."""

    def __init__(self, settings: Settings, recorder: LiveRecorder) -> None:
        self._settings = settings
        self._recorder = recorder
        if isinstance(sys.stderr, LogStream):
            sys.stderr.on_dropped = partial(recorder.count, LOG_LINES_DROPPED)
        self._servers: list[AdminServer] = []
        self._collector: Collector | None = None
        self.journal = (
            AccessLog(sys.stderr.fileno(), recorder=recorder, sample=settings.metrics.access_log)
            if settings.metrics.access_log is not None
            else None
        )

    def start(self, cache: ModelCache, reasons_not_ready: Callable[[], Sequence[str]], relay: Path) -> None:
        """Begin to report. Raises AdminPortTaken.

        relay   the socket through which MMS's plugin asks
        """
        recorder, settings = self._recorder, self._settings
        recorder.gauge(LOADED_MODEL_COUNT, lambda: len(cache))
        recorder.gauge(LOADED_MODEL_BYTES, lambda: cache.resident_bytes)
        recorder.gauge(MEMORY_UTILIZATION, lambda: 100 * cache.resident_bytes / cache.budget_bytes)
        recorder.gauge(QUEUE_DEPTH, lambda: cache.waiting.n_waiting)
        history = History()
        self._collector = Collector(recorder, history, self._sinks(), interval_s=settings.metrics.metrics_interval_s)
        self._collector.start()
        make_server = partial(
            AdminServer,
            source=RuntimeSource(
                settings.artifacts.models or settings.metrics.endpoint_name, time.time(), cache, reasons_not_ready
            ),
            recorder=recorder,
            history=history,
            prometheus=PrometheusExporter(
                recorder, {"endpoint": settings.metrics.endpoint_name, "variant": settings.metrics.variant_name}
            ),
            execution_parameters={
                "MaxConcurrentTransforms": settings.front.heavy_requests,
                "BatchStrategy": "MULTI_RECORD",
                "MaxPayloadInMB": settings.front.max_body_bytes >> 20,
            },
        )
        self._open(make_server(unix_path=relay))
        if settings.metrics.admin_port is not None:
            try:
                server = make_server(
                    host=settings.metrics.admin_host,
                    port=settings.metrics.admin_port,
                    serving_port=ServingPort(partial(silence_at, settings.front.host, settings.front.port)),
                )
            except OSError as error:
                where = f"{settings.metrics.admin_host}:{settings.metrics.admin_port}"
                raise AdminPortTaken(f"cannot listen on {where} for the admin port: {error.strerror}") from error
            self._open(server)
            log.info("status page, health and Prometheus metrics on http://%s:%d/", *server.address)

    def _open(self, server: AdminServer) -> None:
        self._servers.append(server)
        server.start()

    def _sinks(self) -> list[Sink]:
        settings = self._settings
        dimensions = {"EndpointName": settings.metrics.endpoint_name, "VariantName": settings.metrics.variant_name}
        sinks: list[Sink] = []
        if settings.metrics.emf:
            sinks.append(
                EmfSink(
                    sys.stdout.fileno(),
                    recorder=self._recorder,
                    namespace=settings.metrics.metrics_namespace,
                    dimensions=dimensions,
                    per_model=settings.metrics.metrics_per_model,
                )
            )
        if settings.metrics.cloudwatch:
            from container.metrics.cloudwatch import CloudWatchSink
            from handler.aws import cloudwatch

            sinks.append(
                CloudWatchSink(
                    cloudwatch(endpoint_url=settings.metrics.cloudwatch_endpoint_url),
                    recorder=self._recorder,
                    namespace=settings.metrics.metrics_namespace,
                    dimensions=dimensions,
                    per_model=settings.metrics.metrics_per_model,
                )
            )
        return sinks

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()
        for server in self._servers:
            server.close()
        if self._collector is not None:
            self._collector.close()
