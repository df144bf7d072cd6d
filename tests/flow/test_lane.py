"""Small warm calls past MMS, in both modes: which go that way, and what happens to them when something breaks."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint, Reply, is_running, until

N_MODELS = 3
ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = np.array([[float(cell) for cell in ROW.split(",")]], np.float32)
SCORES = [float(boosters.expected(boosters.segment(number), X)[0, 0]) for number in range(N_MODELS)]
QUICK_S = 5.0  # on a busy machine


class Front(NamedTuple):
    endpoint: Endpoint
    root: Path
    is_hosted: bool

    def path(self, model: int) -> str:
        return f"/models/m{model}/invoke" if self.is_hosted else "/invocations"

    def headers(self, model: int, **more: str) -> dict[str, str]:
        target = {} if self.is_hosted else {"X-Amzn-SageMaker-Target-Model": f"{model}.tar.gz"}
        return {"Content-Type": "text/csv", **target, **{name.replace("_", "-"): value for name, value in more.items()}}

    def caller(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.endpoint.port, timeout=60)

    def call(
        self, caller: http.client.HTTPConnection, model: int = 1, path: str = "", body: str = ROW, **more: str
    ) -> Reply:
        caller.request("POST", path or self.path(model), body, self.headers(model, **more))
        response = caller.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())

    def change(self, method: str, path: str, **fields: str) -> Reply:
        caller = self.caller()
        caller.request(method, path, json.dumps(fields) if fields else None, {"Content-Type": "application/json"})
        response = caller.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())

    def load(self, model: int) -> Reply:
        return self.change("POST", "/models", model_name=f"m{model}", url=str(self.root / f"m{model}"))

    def handed_over(self, calls: Callable[[], object]) -> int:
        """How often MMS's workers have been woken by these calls."""
        before = self._wakes()
        calls()
        return self._wakes() - before

    def _wakes(self) -> int:
        n_wakes = 0
        for task in Path(f"/proc/{self.endpoint.jvm}/task").iterdir():
            if (task / "comm").read_text().startswith("W-9"):
                status = (task / "status").read_text()
                n_wakes += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
        return n_wakes


@pytest.fixture(params=["standalone", "hosted"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Front]:
    """One that a test may break, with all its models in memory."""
    is_hosted = request.param == "hosted"
    for number in range(N_MODELS):
        if is_hosted:
            (tmp_path / f"m{number}").mkdir()
            (tmp_path / f"m{number}" / "xgboost-model").write_bytes(boosters.document(boosters.segment(number)))
        else:
            (tmp_path / f"{number}.tar.gz").write_bytes(boosters.segment_archive(number))
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(None if is_hosted else tmp_path, scratch, "--access-log", "1") as endpoint:
        one = Front(endpoint, tmp_path, is_hosted)
        caller = one.caller()
        for number in range(N_MODELS):
            if is_hosted:
                assert one.load(number).status == 200
            assert one.call(caller, number).status == 200
        yield one
    shutil.rmtree(scratch)


def is_right(reply: Reply, model: int) -> bool:
    return reply.status == 200 and abs(float(reply.body) - SCORES[model]) < 1e-4


class Load:
    """Callers that do not stop, each on a connection that is kept while it can be."""

    def __init__(self, front: Front, n_callers: int) -> None:
        self._stop = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.n_wrong = 0
        self._lock = threading.Lock()
        self._front = front
        self._threads = [threading.Thread(target=self._run, args=[number % N_MODELS]) for number in range(n_callers)]
        for thread in self._threads:
            thread.start()

    def _run(self, model: int) -> None:
        caller = self._front.caller()
        while not self._stop.is_set():
            try:
                reply = self._front.call(caller, model)
            except (OSError, http.client.HTTPException):
                caller.close()
                reply = Reply(0, {}, b"")
            with self._lock:
                self.statuses[reply.status] += 1
                self.n_wrong += reply.status == 200 and not is_right(reply, model)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


# -- which way -------------------------------------------------------------------------------------------------------------


def test_warm_calls_wake_no_worker_of_mms_and_others_do(front: Front) -> None:
    caller = front.caller()

    def quick() -> None:
        for _ in range(100):
            assert is_right(front.call(caller), 1)

    def slow() -> None:
        for _ in range(100):
            assert front.call(caller, X_Amzn_SageMaker_Custom_Attributes="Output=contribs").status == 200

    quick()  # MMS's workers come to rest
    assert front.handed_over(quick) < 20
    assert front.handed_over(slow) >= 100


def test_every_way_of_naming_a_target_is_quick(front: Front) -> None:
    if front.is_hosted:
        pytest.skip("hosted, the path names the model")
    caller = front.caller()
    attributes = "trace=7,TargetModel=2.tar.gz"

    def calls() -> None:
        for path in ("/invocations", "/predictions/segments", "/predictions/segments/endpoints/e/invocations"):
            for _ in range(20):
                assert is_right(front.call(caller, 1, path), 1)
                caller.request(
                    "POST", path, ROW, {"Content-Type": "text/csv", "X-Amzn-SageMaker-Custom-Attributes": attributes}
                )
                assert abs(float(caller.getresponse().read()) - SCORES[2]) < 1e-4

    calls()
    assert front.handed_over(calls) < 20


def test_boto3_takes_the_quick_way(front: Front) -> None:
    if front.is_hosted:
        pytest.skip("SageMaker calls /invoke")
    client = front.endpoint.client()

    def calls() -> None:
        for _ in range(50):
            answer = client.invoke_endpoint(
                EndpointName="e", TargetModel="1.tar.gz", ContentType="text/csv", Accept="text/csv", Body=ROW
            )
            assert abs(float(answer["Body"].read()) - SCORES[1]) < 1e-4

    calls()
    assert front.handed_over(calls) < 20


def test_both_ways_give_the_same_answer(front: Front) -> None:
    caller = front.caller()
    for body, more in (
        (ROW, {}),
        ("1,2", {}),
        ("", {}),
        (ROW, {"Accept": "image/png"}),
        (ROW, {"Accept": "application/json"}),
        (ROW, {"Content-Type": "image/png"}),
        (ROW, {"X_Amzn_SageMaker_Custom_Attributes": "TargetModel=../x"}),
    ):
        quick = front.call(caller, body=body, **more)
        slow = front.call(caller, path=front.path(1) + "?a=1", body=body, **more)  # only MMS reads a query
        assert (quick.status, quick.body) == (slow.status, slow.body)
        ignored = {"x-request-id"}
        assert {name: value for name, value in quick.headers.items() if name not in ignored} == {
            name: value for name, value in slow.headers.items() if name not in ignored
        }


def test_the_id_in_the_answer_is_the_one_in_the_log(front: Front) -> None:
    caller = front.caller()
    for more in ({}, {"X_Amzn_SageMaker_Inference_Id": "mine-7"}):
        reply = front.call(caller, **more)
        wanted = more.get("X_Amzn_SageMaker_Inference_Id", reply.headers["x-request-id"])
        until(lambda wanted=wanted: any(wanted in line for line in front.endpoint.log))


# -- what breaks -----------------------------------------------------------------------------------------------------------


def test_a_runtime_killed_under_load_gives_nothing_wrong_and_the_next_is_taken_the_quick_way(front: Front) -> None:
    load = Load(front, 8)
    for _ in range(3):
        before = load.statuses[200]
        until(lambda before=before: load.statuses[200] > before + 200, 30)
        runtime = front.endpoint.runtime
        os.kill(runtime, signal.SIGKILL)
        until(lambda runtime=runtime: not is_running(runtime))
    before = load.statuses[200]
    until(lambda: load.statuses[200] > before + 200, 30)
    load.stop()
    assert load.n_wrong == 0
    # 429 and 404: what a new runtime has not loaded yet
    assert set(load.statuses) <= {200, 404, 429, 500, 503}, load.statuses
    assert load.statuses[500] <= 3, load.statuses
    caller = front.caller()
    until(lambda: is_right(front.call(caller), 1))

    def calls() -> None:
        for _ in range(50):
            assert is_right(front.call(caller), 1)

    calls()
    assert front.handed_over(calls) < 20


def test_callers_of_a_runtime_that_hangs_are_answered_once_it_goes_on(front: Front) -> None:
    runtime = front.endpoint.runtime
    os.kill(runtime, signal.SIGSTOP)
    with ThreadPoolExecutor(20) as callers:
        waiting = [callers.submit(lambda: front.call(front.caller())) for _ in range(20)]
        time.sleep(12)  # longer than what is on a lane waits for its answer there
        assert not any(one.done() for one in waiting)
        os.kill(runtime, signal.SIGCONT)
        assert all(is_right(one.result(), 1) for one in waiting)
    caller = front.caller()
    until(lambda: front.handed_over(lambda: [front.call(caller) for _ in range(20)]) < 10)


def test_callers_that_hang_up_cost_nothing(front: Front) -> None:
    os.kill(front.endpoint.runtime, signal.SIGSTOP)
    for _ in range(50):
        caller = front.caller()
        caller.request("POST", front.path(1), ROW, front.headers(1))
        caller.close()
    os.kill(front.endpoint.runtime, signal.SIGCONT)
    caller = front.caller()
    assert all(is_right(front.call(caller), 1) for _ in range(50))
    if front.is_hosted:  # nobody is counted as inside any more
        started = time.monotonic()
        assert front.change("DELETE", "/models/m1").status == 200
        assert time.monotonic() - started < QUICK_S


def test_it_is_not_quiet_amid_traffic_that_goes_past_mms(front: Front) -> None:
    load = Load(front, 4)
    until(lambda: load.statuses[200] > 100)
    os.kill(front.endpoint.pid, signal.SIGTERM)
    time.sleep(2)
    assert front.endpoint.is_running
    assert set(load.statuses) == {200}
    load.stop()
    assert front.endpoint.wait() == 0
    assert (load.statuses[200] > 0, load.n_wrong) == (True, 0)


def test_many_more_than_a_lane_holds_are_answered(front: Front) -> None:
    os.kill(front.endpoint.runtime, signal.SIGSTOP)
    callers = [front.caller() for _ in range(1200)]
    try:
        for caller in callers:
            caller.request("POST", front.path(1), ROW, front.headers(1))
        os.kill(front.endpoint.runtime, signal.SIGCONT)
        statuses = Counter(caller.getresponse().status for caller in callers)
    finally:
        for caller in callers:
            caller.close()
    assert set(statuses) <= {200, 503}, statuses  # 503: MMS's own queue is full
    assert statuses[200] >= 1000


# -- hosted: models that come and go ---------------------------------------------------------------------------------------


def test_a_model_is_unloaded_and_loaded_again_under_calls_and_no_answer_is_anothers(front: Front) -> None:
    if not front.is_hosted:
        pytest.skip("loads are hosted mode's")
    load = Load(front, 6)
    until(lambda: load.statuses[200] > 100)
    for round_ in range(10):
        started = time.monotonic()
        assert front.change("DELETE", "/models/m1").status == 200
        assert time.monotonic() - started < QUICK_S, round_
        assert front.load(1).status == 200
    load.stop()
    assert load.n_wrong == 0
    assert set(load.statuses) <= {200, 404, 503}, (
        load.statuses
    )  # 503: MMS knows the name, and its worker is not there yet


def test_after_a_lane_is_lost_nobody_is_inside_a_model(front: Front) -> None:
    if not front.is_hosted:
        pytest.skip("loads are hosted mode's")
    load = Load(front, 6)
    until(lambda: load.statuses[200] > 100)
    os.kill(front.endpoint.runtime, signal.SIGKILL)
    load.stop()
    caller = front.caller()
    until(lambda: is_right(front.call(caller), 1), 30)
    started = time.monotonic()
    assert front.change("DELETE", "/models/m1").status == 200
    assert time.monotonic() - started < QUICK_S
