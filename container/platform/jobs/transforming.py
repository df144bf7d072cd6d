"""A transform job at work: the model's container started, each object's records posted to it, its answers kept as KEY.out.

Rule: an object's answer is stored whole or not at all, and of a job that is stopped none is.

Sources: TransformOutput and StopTransformJob in botocore's model; SageMaker guide, your-algorithms-batch-code.
"""

from __future__ import annotations

import gzip
import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGTERM
from typing import Any

import urllib3

from container.environments import played_environment
from container.platform.endpoints.containers import Ground, Spec
from container.platform.hosting import disk
from container.platform.jobs import channels, tree
from container.platform.jobs.channels import Found
from container.platform.jobs.host import Host
from container.platform.jobs.life import COMPLETED, FAILED, STOPPED, Life, State
from container.platform.jobs.objects import Address, DataFault, Objects
from container.platform.jobs.plan import TRANSFORM
from container.platform.jobs.rooms import Room
from container.platform.logs import Stream

# Real seconds: a container's own pace.
HEALTHY_S = 480.0
PING_S = 2.0
PING_EVERY_S = 0.1
# Of the platform's clock, between SIGTERM and SIGKILL, as a serving container has it.
CONTAINER_WINDOW_S = 30.0
DEFAULT_PAYLOAD_MB = 6
DEFAULT_TIMEOUT_S = 600
DEFAULT_RETRIES = 3
NAME = "algo-1"
SEE_LOGS = "See job logs for more information"


class Refused(Exception):
    """The container does not answer an object's records as it should. is_request: what was sent is at fault."""

    def __init__(self, text: str, *, is_request: bool) -> None:
        super().__init__(text)
        self.is_request = is_request


class Transforming(Life):
    """One container answers for all instances: objects are independent of each other, so the answers are the same."""

    def __init__(
        self,
        asked: Mapping[str, Any],
        model: Mapping[str, Any],
        ground: Ground,
        on_change: Callable[[State], None],
        objects: Objects,
        logs: Any,
        room: Room,
        folder: Path,
        *,
        launch_s: float = 0.0,
    ) -> None:
        super().__init__(asked["TransformJobName"], ground.clock, on_change)
        self._ground = ground
        self._request = asked
        self._model = model["PrimaryContainer"]
        self._objects = objects
        self._room = room
        self._folder = folder
        self._launch_s = launch_s
        self._host = Host(NAME, folder / NAME)
        self._stream = Stream(logs, TRANSFORM.log_group, f"{self.name}/{NAME}-{int(time.time())}")
        self._pool = urllib3.PoolManager(maxsize=16, retries=False)

    def hosts(self) -> Sequence[Host]:
        return (self._host,)

    def _work(self) -> None:
        if self._pause(self._launch_s):
            return self._end(STOPPED)
        self._stage("InProgress", "Starting the container", started_at=self._clock.now())
        source = self._request["TransformInput"]["DataSource"]["S3DataSource"]
        found = channels.find(self._objects, channels.Input("input", "", source["S3Uri"], source["S3DataType"]))
        if not found:
            raise DataFault(f'No S3 objects found under S3 URL "{source["S3Uri"]}" given in input data source.')
        url = self._start()
        if not self._wait_ready(url):
            return self._stopped()
        if self._host.exit_code is not None:
            return self._end(FAILED, f"AlgorithmError: {SEE_LOGS}")
        return self._transform(found, url)

    def _transform(self, found: list[Found], url: str) -> None:
        limits = self._limits(url)
        n_at_once = int(self._request.get("MaxConcurrentTransforms") or limits.get("MaxConcurrentTransforms") or 1)
        answers: dict[int, Path] = {}
        refused: list[Refused] = []
        with ThreadPoolExecutor(n_at_once, thread_name_prefix="transform") as threads:
            tasks = [threads.submit(self._one, at, one, url, limits) for at, one in enumerate(found)]
            for task in tasks:
                task.add_done_callback(lambda _: self._ring())
            is_over = False
            try:
                is_over = self._until(lambda: all(task.done() for task in tasks)) is None
            finally:  # the platform's end too: the threads are waited for, and would ask on to the last object
                if not is_over:
                    threads.shutdown(wait=False, cancel_futures=True)
                    self._host.kill()
        if not is_over:
            return self._stopped()
        for at, task in enumerate(tasks):
            try:
                answers[at] = task.result()
            except Refused as error:
                refused.append(error)
                self._stream.put([f"{found[at].address}: {error}".encode()])
        self._end_host()
        output = Address.of(self._request["TransformOutput"]["S3OutputPath"])
        for at, path in answers.items():
            self._objects.upload(path, output.below(f"{found[at].path}.out"))
        if refused:
            whose = "ClientError" if refused[0].is_request else "AlgorithmError"
            return self._end(FAILED, f"{whose}: {SEE_LOGS}")
        return self._end(COMPLETED)

    # -- the container -------------------------------------------------------------------------------------------------

    def _start(self) -> str:
        tree.make(self._host.tree, ("model",), {})
        if url := self._model.get("ModelDataUrl"):
            self._unpack(url)
        port = self._ground.ports.take()
        spec = Spec(
            self._model.get("Image", ""),
            {**self._model.get("Environment", {}), **self._request.get("Environment", {}), "SAGEMAKER_BATCH": "true"},
            is_multi=False,
        )
        environment = played_environment(spec.environment, address=self._ground.address, region=self._ground.region)
        program = self._ground.images.command(spec, port)
        self._host.start(program, environment, (NAME,), self._room, self._stream, self._ring)
        return f"http://127.0.0.1:{port}"

    def _unpack(self, url: str) -> None:
        address = Address.of(url)
        try:
            disk.unpack(self._objects.read(address), self._host.tree / "model", address.key)
        except (disk.ArchiveUnreadable, disk.DiskFull) as error:
            raise DataFault(f"Failed to extract model data archive from {url}: {error}") from error

    def _is_healthy(self, url: str) -> bool:
        try:
            return self._pool.request("GET", f"{url}/ping", timeout=PING_S).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _wait_ready(self, url: str) -> bool:
        """Until the container answers, has ended, or took too long, which is its end. False when the job is to stop."""
        until = time.monotonic() + HEALTHY_S
        while not self._is_healthy(url):
            if self._host.exit_code is not None:
                return True
            if time.monotonic() > until:
                self._host.kill()
            with self._changed:
                self._changed.wait(PING_EVERY_S)
            if self._asked():
                return False
        return True

    def _limits(self, url: str) -> Mapping[str, Any]:
        """What the container says at /execution-parameters; nothing when it has none."""
        try:
            answer = self._pool.request("GET", f"{url}/execution-parameters", timeout=PING_S)
            found = json.loads(answer.data) if answer.status == 200 else {}
        except (urllib3.exceptions.HTTPError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _end_host(self) -> None:
        window = self._clock.call_later(CONTAINER_WINDOW_S, self._host.kill)
        self._host.signal(SIGTERM)
        self._until(lambda: self._host.exit_code is not None, ())
        window.cancel()

    def _stopped(self) -> None:
        self._host.kill()
        self._end(STOPPED)

    # -- one object, on a thread of the pool ---------------------------------------------------------------------------

    def _one(self, at: int, found: Found, url: str, limits: Mapping[str, Any]) -> Path:
        """Its answers, as a file. Raises Refused."""
        source, target = self._request["TransformInput"], self._request["TransformOutput"]
        data = self._objects.read(found.address)
        if source.get("CompressionType", "None") == "Gzip":
            try:
                data = gzip.decompress(data)
            except (OSError, EOFError, zlib.error) as error:
                raise Refused(f"it is no gzip file: {error}", is_request=True) from error
        headers = {}
        if source.get("ContentType"):
            headers["Content-Type"] = source["ContentType"]
        if target.get("Accept"):
            headers["Accept"] = target["Accept"]
        path = self._folder / f"{at}.out"
        end = b"\n" if target.get("AssembleWith", "None") == "Line" else b""
        with path.open("wb") as file:
            for payload in self._payloads(data, limits):
                answer = self._post(f"{url}/invocations", payload, headers)
                file.write(answer.removesuffix(end) + end if end else answer)
        return path

    def _payloads(self, data: bytes, limits: Mapping[str, Any]) -> Iterator[bytes]:
        n_mb = self._request.get("MaxPayloadInMB") or limits.get("MaxPayloadInMB") or DEFAULT_PAYLOAD_MB
        max_bytes = int(n_mb) << 20
        strategy = self._request.get("BatchStrategy") or limits.get("BatchStrategy") or "MultiRecord"
        if self._request["TransformInput"].get("SplitType", "None") == "None":
            records = [data]
        elif strategy == "SingleRecord":
            records = [line for line in data.splitlines() if line]
        else:
            records = list(_batches(data.splitlines(keepends=True), max_bytes))
        for record in records:
            if len(record) > max_bytes:
                raise Refused("Too much data for max payload size", is_request=True)
            yield record

    def _post(self, url: str, payload: bytes, headers: Mapping[str, str]) -> bytes:
        client = self._request.get("ModelClientConfig", {})
        timeout_s = client.get("InvocationsTimeoutInSeconds", DEFAULT_TIMEOUT_S)
        why = ""
        for _ in range(1 + client.get("InvocationsMaxRetries", DEFAULT_RETRIES)):
            if self._host.exit_code is not None:
                break
            try:
                answer = self._pool.request("POST", url, body=payload, headers=dict(headers), timeout=timeout_s)
            except urllib3.exceptions.HTTPError as error:
                why = f"Unable to get response from algorithm: {error}"
                continue
            if answer.status == 200:
                return bytes(answer.data)
            why = (
                f"Bad HTTP status received from algorithm: {answer.status} {answer.data[:512].decode(errors='replace')}"
            )
            if 400 <= answer.status < 500:
                raise Refused(why, is_request=True)
        raise Refused(why or "the container has ended", is_request=False)

    def _ring(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _clean(self) -> None:
        self._host.kill()
        self._host.join()
        self._pool.clear()
        shutil.rmtree(self._folder, ignore_errors=True)


def _batches(lines: list[bytes], max_bytes: int) -> Iterator[bytes]:
    """As many lines as fit, again and again."""
    batch: list[bytes] = []
    n_bytes = 0
    for line in lines:
        if batch and n_bytes + len(line) > max_bytes:
            yield b"".join(batch)
            batch, n_bytes = [], 0
        batch.append(line)
        n_bytes += len(line)
    if batch:
        yield b"".join(batch)
