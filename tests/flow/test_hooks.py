"""The endpoint's own code in a running endpoint: `SAGEMAKER_PROGRAM` and what it defines."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from textwrap import dedent

import botocore.exceptions
import numpy as np
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint, until

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"
X = np.array([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]], np.float32)

PROGRAM = """
    import json
    from prices import in_cents
    from sagemaker_inference.errors import BaseInferenceToolkitError

    print("printed by the module")

    def input_fn(body, content_type, context):
        if body == "boom":
            raise KeyError(body)
        if body == "exit":
            raise SystemExit
        if body == "teapot":
            raise BaseInferenceToolkitError(418, "short and stout", "I'm a teapot")
        print("printed by a hook")
        return [[float(cell) for cell in body.split(";")]]

    def predict_fn(data, model):
        import numpy as np
        return in_cents(model.inplace_predict(np.array(data, np.float32)))

    def output_fn(prediction, accept):
        return json.dumps({"cents": prediction.tolist()}), "application/x-price+json"
"""


def write(folder: Path, program: str) -> dict[str, str]:
    folder.mkdir()
    (folder / "inference.py").write_text(dedent(program))
    (folder / "prices.py").write_text("def in_cents(dollars):\n    return dollars * 100\n")
    return {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": str(folder)}


def test_hooks_answer_fail_and_leave_the_endpoint_as_it_was(segments: Path, scratch: Path, tmp_path: Path) -> None:
    environment = write(tmp_path / "code", PROGRAM)
    with Endpoint(segments, scratch, "--workers", "3", "--loaders", "1", environment=environment) as endpoint:
        runtime = endpoint.runtime
        client = endpoint.client()

        def call(number: int, body: str) -> dict[str, object]:
            return client.invoke_endpoint(
                EndpointName="e", TargetModel=f"us/{number}.tar.gz", ContentType="text/csv", Body=body
            )

        for number in (1, 2):
            answer = call(number, ROW.replace(",", ";"))
            assert answer["ContentType"] == "application/x-price+json"
            cents = boosters.expected(boosters.segment(number), X)[:, 0] * 100
            assert answer["Body"].read().decode() == f'{{"cents": {cents.tolist()}}}'  # type: ignore[attr-defined]
        for body, status, says in (
            ("boom", 500, "input_fn: it failed"),
            ("exit", 500, "input_fn: it failed"),
            ("teapot", 418, "input_fn: short and stout"),
            ("a;b", 400, "could not convert string to float"),
        ):
            for _ in range(4):  # more than there are threads
                with pytest.raises(botocore.exceptions.ClientError) as raised:
                    call(1, body)
                response = raised.value.response
                assert response["Error"]["Code"] == "ModelError"
                assert response["OriginalStatusCode"] == status  # type: ignore[typeddict-item]
                assert says in response["Error"]["Message"]
        assert call(1, ROW.replace(",", ";"))["CustomAttributes"] == "cache=hit"
        assert endpoint.runtime == runtime
    log = "".join(endpoint.log)
    assert "hooks: input_fn, predict_fn, output_fn of inference.py" in log
    assert "KeyError: 'boom'" in log
    assert "printed by the module" in log
    assert "printed by a hook" in log


def test_a_module_that_cannot_be_imported_starts_no_endpoint(segments: Path, scratch: Path, tmp_path: Path) -> None:
    environment = write(tmp_path / "code", "import json\nimport no_such_thing\n")
    endpoint = Endpoint(segments, scratch, environment=environment)
    assert endpoint.wait() == 1
    said = "".join(endpoint.log)
    assert "inference.py, line 2: ModuleNotFoundError: No module named 'no_such_thing'" in said
    assert "Traceback" not in said
    assert list(scratch.iterdir()) == []


# Each word is something that code which is not ours may do to the process it runs in.
MISBEHAVING = """
    import ctypes, gc, locale, os, signal, sys, threading, time, warnings

    def floods():
        for stream in (sys.stdout, sys.stderr, sys.__stdout__):
            stream.write("flood " * 1_000_000 + "\\n")
        os.write(1, b"raw " * 10_000)

    def moves():
        os.chdir("/")
        os.environ.clear()
        os.umask(0o777)

    def takes_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)

    def keeps_the_lock():
        sys.setswitchinterval(100)
        sum(range(3_000_000))

    def leaves_a_thread():
        threading.Thread(target=time.sleep, args=[100_000]).start()

    def leaves_a_child():
        if os.fork() == 0:
            os.close(1)
            time.sleep(1)
            os._exit(0)

    def speaks_german():
        for name in ("de_DE.UTF-8", "C.UTF-8"):
            try:
                locale.setlocale(locale.LC_ALL, name)
            except locale.Error:
                pass

    def recurses():
        recurses()

    def fills_memory():
        bytearray(1 << 50)

    def closes():
        sys.stdout.close()
        sys.stdin = sys.__stdin__ = None

    def exits_later():
        threading.Thread(target=sys.exit, args=[3]).start()

    def collects_nothing():
        gc.disable()

    def complains():
        warnings.simplefilter("error")
        raise UnicodeEncodeError("ascii", "\\ud800", 0, 1, "\\ud800 cannot be written")

    def shuts_logging():
        import logging
        logging.disable(logging.CRITICAL)
        logging.shutdown()

    def input_fn(body, content_type):
        if body in globals():
            globals()[body]()
            return [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]
        if body == "hangs":
            time.sleep(100_000)
        if body == "dies":
            os._exit(3)
        if body == "crashes":
            ctypes.string_at(1)
        return [[float(cell) for cell in body.split(",")]]
"""
MISDEEDS = [
    *("floods", "moves", "takes_signals", "keeps_the_lock", "leaves_a_thread", "leaves_a_child", "speaks_german"),
    *("recurses", "fills_memory", "closes", "exits_later", "collects_nothing", "complains", "shuts_logging"),
]


def test_hooks_that_misbehave_harm_their_own_call_and_no_other(segments: Path, scratch: Path, tmp_path: Path) -> None:
    environment = write(tmp_path / "code", MISBEHAVING)
    expected = [float(boosters.expected(boosters.segment(number), X)[0, 0]) for number in range(6)]

    def is_right(number: int) -> bool:
        reply = endpoint.post(f"us/{number}.tar.gz", ROW)
        return reply.status == 200 and abs(float(reply.body) - expected[number]) < 1e-4

    with Endpoint(segments, scratch, "--workers", "4", "--loaders", "1", environment=environment) as endpoint:
        assert is_right(0)
        runtime = endpoint.runtime
        for at, misdeed in enumerate(MISDEEDS):
            reply = endpoint.post("us/0.tar.gz", misdeed)
            assert reply.status in {200, 424}, (misdeed, reply)
            assert is_right(0), misdeed
            assert is_right(1 + at % 5), misdeed  # cold ones among them, which the examiner is asked about
            assert endpoint.ping() == 200, misdeed
        assert endpoint.runtime == runtime
        for misdeed in ("dies", "crashes"):
            assert endpoint.post("us/0.tar.gz", misdeed).status == 503
            until(lambda: is_right(0), patience_s=30)
            assert endpoint.runtime != runtime
            runtime = endpoint.runtime
        hung: list[int] = []
        threads = [
            threading.Thread(target=lambda: hung.append(endpoint.post("us/0.tar.gz", "hangs").status), daemon=True)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        until(lambda: endpoint.ping() == 503, patience_s=60)  # who asks is sent elsewhere
        os.kill(endpoint.runtime, signal.SIGKILL)
        for thread in threads:
            thread.join(30)
        assert hung == [503] * 4
        until(lambda: is_right(0), patience_s=30)
