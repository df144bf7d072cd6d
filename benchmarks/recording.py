"""What recording costs a request, and what reading costs the process.

    python -m benchmarks.recording [--invocations N] [--threads N] [--ledgers N] [--json]

Rule: the loop that calls is measured too, and taken off; every figure is the median of several runs.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from statistics import median

import boto3

from benchmarks.rig.cloudwatch_server import REGION, LocalCloudWatch
from container.metrics.access_log import AccessLog
from container.metrics.cloudwatch import CloudWatchSink
from container.metrics.emf import EmfSink
from container.metrics.prometheus import PrometheusExporter
from handler.telemetry.recorder import (
    INVOCATIONS,
    MODEL_LATENCY,
    OVERHEAD_LATENCY,
    Invocation,
    LiveRecorder,
    Silent,
    Totals,
)

RUNS = 7
MODELS = [f"eu/segment-{i:04d}.tar.gz" for i in range(512)]


def per_call_us(call: Callable[[int], object], n: int) -> float:
    """Median microseconds of one call, the empty loop taken off."""

    def run(what: Callable[[int], object]) -> float:
        started = time.perf_counter()
        for i in range(n):
            what(i)
        return (time.perf_counter() - started) / n * 1e6

    return median(run(call) for _ in range(RUNS)) - median(run(lambda _: None) for _ in range(RUNS))


def contended_us(recorder: LiveRecorder, n: int, threads: int) -> float:
    """Microseconds of the whole process per invocation while `threads` record and one thread reads without pause."""
    started_together = threading.Barrier(threads + 1)

    def record() -> None:
        started_together.wait()
        for i in range(n // threads):
            recorder.invocation(MODELS[i & 511], True, 150, 90, 200)

    workers = [threading.Thread(target=record) for _ in range(threads)]
    for worker in workers:
        worker.start()
    started_together.wait()
    started = time.perf_counter()
    while any(worker.is_alive() for worker in workers):
        recorder.collect()
        time.sleep(0.01)
    return (time.perf_counter() - started) / n * 1e6


def collect_ms(ledgers: int) -> float:
    """Milliseconds of one reading with `ledgers` living threads that have each served one model."""
    recorder, leave = LiveRecorder(), threading.Event()

    def live(n: int) -> None:
        recorder.invocation(MODELS[n & 511], True, 150, 90, 200)
        leave.wait()

    threads = [threading.Thread(target=live, args=(n,)) for n in range(ledgers)]
    for thread in threads:
        thread.start()
    figures = []
    for _ in range(RUNS):
        started = time.perf_counter()
        recorder.collect()
        figures.append((time.perf_counter() - started) * 1e3)
    leave.set()
    for thread in threads:
        thread.join()
    return median(figures)


def report_cost(recorder: LiveRecorder) -> tuple[float, int]:
    """Milliseconds and bytes of one EMF report of everything the recorder holds."""
    totals = recorder.collect()
    reading, writing = os.pipe()
    sink = EmfSink(writing, recorder=Silent(), namespace="n", dimensions={"EndpointName": "e", "VariantName": "v"})
    started = time.perf_counter()
    sink.report(totals, Totals.nothing())
    took_ms = (time.perf_counter() - started) * 1e3
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        return took_ms, len(stream.read())


def cloudwatch_cost(recorder: LiveRecorder) -> float:
    """Milliseconds of CPU of one report through boto3, the sender's thread included."""
    totals = recorder.collect()
    figures = []
    with LocalCloudWatch() as cloudwatch:
        client = boto3.client(
            "cloudwatch", REGION, endpoint_url=cloudwatch.url, aws_access_key_id="a", aws_secret_access_key="b"
        )
        for _ in range(RUNS):
            started = time.process_time()
            sink = CloudWatchSink(client, recorder=Silent(), namespace="n", dimensions={"EndpointName": "e"})
            sink.report(totals, Totals.nothing())
            sink.close(10.0)
            figures.append((time.process_time() - started) * 1e3)
    return median(figures)


def four_calls(recorder: LiveRecorder) -> Callable[[int], object]:
    def call(_: int) -> None:
        recorder.count(INVOCATIONS)
        recorder.count(INVOCATIONS)
        recorder.time_us(MODEL_LATENCY, 90)
        recorder.time_us(OVERHEAD_LATENCY, 60)

    return call


def access_log_us(n: int) -> float:
    with open(os.devnull, "wb") as sink:
        log = AccessLog(sink.fileno(), recorder=Silent(), sample=1.0)

        def call(_: int) -> None:
            if log.wants(200):
                log.write(Invocation("r", MODELS[0], 200, True, 150, (("decode", 20), ("predict", 60), ("encode", 10))))

        figure = per_call_us(call, min(n, 1_000))  # fewer than the queue holds
        log.close()
    return figure


def figures(n: int, threads: int, ledgers: int) -> dict[str, float]:
    recorder = LiveRecorder()
    prometheus = PrometheusExporter(recorder)
    found = {
        "invocation, one model [us]": per_call_us(
            lambda _: recorder.invocation("eu/Houston_TX.tar.gz", True, 150, 90, 200), n
        ),
        "invocation, 512 models in turn [us]": per_call_us(
            lambda i: recorder.invocation(MODELS[i & 511], True, 150, 90, 200), n
        ),
        "four single recordings [us]": per_call_us(four_calls(recorder), n),
        f"invocation, {threads} threads and a reader [us]": contended_us(recorder, n, threads),
        "access log, every request written [us]": access_log_us(n),
        f"reading {ledgers} threads [ms]": collect_ms(ledgers),
    }
    found["EMF report [ms]"], found["EMF report [bytes]"] = report_cost(recorder)
    found["CloudWatch report [ms of CPU]"] = cloudwatch_cost(recorder)
    started = time.perf_counter()
    prometheus.scrape()
    found["Prometheus scrape [ms]"] = (time.perf_counter() - started) * 1e3
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--invocations", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--ledgers", type=int, default=1_000, help="living threads in the reading's figure")
    parser.add_argument("--json", action="store_true", help="the same figures as one JSON object")
    arguments = parser.parse_args()
    found = figures(arguments.invocations, arguments.threads, arguments.ledgers)
    if arguments.json:
        print(json.dumps({name: round(value, 3) for name, value in found.items()}))
        return
    for name, value in found.items():
        print(f"{name:45} {value:10.2f}")


if __name__ == "__main__":
    main()
