"""The demo as a person runs it: what it shows is true, what it prints works as pasted, and it leaves nothing."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xgboost

from container.operate.demo import houses
from container.operate.demo.page import Metrics
from container.operate.endpoint.calling import Endpoint, client
from container.operate.main import main
from container.operate.serving import PortTaken
from container.operate.serving import free_port as first_free
from tests.rig.boosters import expected
from tests.rig.command import ROOT, Command
from tests.rig.endpoint import command_line, free_port

Run = Callable[..., Command]
ROW = re.compile(
    r"  (\w+) +(\d{4}) +([\d,]+) +(\d) +(\d\.\d) +(\d\.\d\d) +(\d) +([\d,]+) +([\d.]+)  (warm|cold)",
)
OTHERS_ENVIRONMENT = {
    "AWS_PROFILE": "nobody",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "MME_PORT": "none",
    "MME_WORKERS": "none",
    "SAGEMAKER_MULTI_MODEL": "true",
}


def only_member(archive: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        extracted = members.extractfile("xgboost-model")
        assert extracted is not None
        return extracted.read()


def predicted_by_xgboost(city: str, price: float, features: list[float]) -> float:
    trained = houses.train_city(city, price)
    booster = xgboost.Booster(model_file=bytearray(only_member(trained.archive)))
    return float(expected(booster, np.array([features], np.float32))[0, 0])


@pytest.fixture(scope="module")
def serving(run: Run) -> Command:
    """A demo that goes on serving, in an environment that is set up for something else."""
    demo = run("demo", "--port", str(free_port()), environment=OTHERS_ENVIRONMENT)
    demo.wait_for("serving")
    return demo


def test_once_calls_each_city_cold_then_warm_then_a_new_one_and_leaves_nothing(run: Run) -> None:
    demo = run("demo", "--once", "--port", str(free_port()))
    assert demo.wait() == 0, demo.trouble
    rows = [match.groups() for line in demo.lines if (match := ROW.fullmatch(line))]
    temperatures: dict[str, list[str]] = {}
    for row in rows:
        temperatures.setdefault(row[0], []).append(row[-1])
    assert temperatures == {city: ["cold", "warm"] for city in (*houses.CITIES, houses.NEW_CITY)}
    assert [row[0] for row in rows[-2:]] == [houses.NEW_CITY] * 2
    assert "so far    22 calls   11 hits   11 loads" in demo.lines
    for city, price in (("Houston_TX", houses.CITIES["Houston_TX"]), (houses.NEW_CITY, houses.NEW_CITY_PRICE)):
        for row in (row for row in rows if row[0] == city):
            features = [float(text.replace(",", "")) for text in row[1:7]]
            assert abs(float(row[7].replace(",", "")) - predicted_by_xgboost(city, price, features)) <= 1
    assert max(map(len, demo.lines)) <= 100
    assert demo.trouble == ""
    demo.assert_nothing_is_left()


def test_json_gives_the_same_facts_and_ctrl_c_ends_it_well(run: Run) -> None:
    demo = run("demo", "--json", "--port", str(free_port()))
    demo.wait_for("{")
    facts: dict[str, Any] = json.loads(demo.output)
    assert Counter(call["city"] for call in facts["calls"]) == dict.fromkeys([*houses.CITIES, houses.NEW_CITY], 2)
    assert facts["metrics"]["n_calls"] == len(facts["calls"]) == 22
    assert facts["metrics"]["n_hits"] + facts["metrics"]["n_loads"] == 22
    assert all(
        call["load_ms"] is not None and call["load_ms"] <= call["ms"] for call in facts["calls"] if not call["is_hit"]
    )
    assert {one["target"] for one in facts["cities"]} == {houses.target_of(call["city"]) for call in facts["calls"]}
    demo.signal(signal.SIGINT)
    demo.signal(signal.SIGINT)  # an impatient second one
    assert demo.wait() == 0
    assert len(demo.lines) == 1
    demo.assert_nothing_is_left()


# A press that strikes where Python cannot raise: what a destructor raises is told and forgotten.
STRUCK_IN_A_DESTRUCTOR = """
import os, signal, sys
from container.operate.endpoint.calling import Endpoint
from container.operate.main import main
Endpoint.__del__ = lambda _: os.kill(os.getpid(), signal.SIGINT)
sys.exit(main())
"""
# The second of two presses, in the moment between the first and the clean-up that it begins.
STRUCK_BEFORE_THE_CLEAN_UP = """
import contextlib, os, signal, sys
from container.operate.demo import bucket
from container.operate.main import main
def close(stack, kind, *error):
    if kind is KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGINT)
    return leave(stack, kind, *error)
leave, contextlib.ExitStack.__exit__ = contextlib.ExitStack.__exit__, close
def end(one, *error):
    print("the bucket is gone", flush=True)
    return gone(one, *error)
gone, bucket.EmbeddedBucket.__exit__ = bucket.EmbeddedBucket.__exit__, end
sys.exit(main())
"""


# Somebody takes the admin port between the moment in which it is chosen and that in which the endpoint listens there.
FASTER_BY_A_MOMENT = """
import socket, sys
from container.operate.demo import command
from container.operate.main import main
def choose(ports):
    port = find(ports)
    if isinstance(ports, range) and not taken:
        taken.append(socket.create_server(("127.0.0.1", port)))
        print("taken", port, flush=True)
    return port
taken = []
find, command.free_port = command.free_port, choose
sys.exit(main())
"""


def test_an_admin_port_that_somebody_takes_meanwhile_is_another(run: Run) -> None:
    program = [sys.executable, "-c", FASTER_BY_A_MOMENT]
    demo = run("demo", "--json", "--port", str(free_port()), program=program)
    demo.wait_for("{")
    taken, facts = demo.output.split("\n", 1)
    told: dict[str, Any] = json.loads(facts)
    assert f":{taken.removeprefix('taken ')}/" not in told["status_url"]
    with urllib.request.urlopen(f"{told['status_url']}healthz", timeout=30) as answer:
        assert answer.status == 200
    demo.signal(signal.SIGINT)
    assert demo.wait() == 0, demo.trouble
    assert "for the admin port: Address already in use" in demo.trouble
    demo.assert_nothing_is_left()


def test_a_press_that_strikes_in_a_destructor_ends_it(run: Run) -> None:
    demo = run("demo", "--json", "--port", str(free_port()), program=[sys.executable, "-c", STRUCK_IN_A_DESTRUCTOR])
    assert demo.wait() == 0, demo.trouble
    assert demo.trouble == ""
    demo.assert_nothing_is_left()


def test_a_press_on_the_way_to_the_clean_up_leaves_nothing_out(run: Run) -> None:
    program = [sys.executable, "-c", STRUCK_BEFORE_THE_CLEAN_UP]
    demo = run("demo", "--port", str(free_port()), program=program)
    demo.wait_for("bucket")
    demo.signal(signal.SIGINT)
    assert demo.wait() == 130, demo.trouble
    assert demo.lines[-1] == "the bucket is gone"
    demo.assert_nothing_is_left()


def test_sigterm_while_it_starts_leaves_nothing(run: Run) -> None:
    demo = run("demo", "--port", str(free_port()))
    demo.wait_for("bucket")
    demo.signal(signal.SIGTERM)
    assert demo.wait() == 130
    demo.assert_nothing_is_left()


def test_when_it_is_killed_the_endpoint_ends_and_cleans_up_by_itself(run: Run) -> None:
    demo = run("demo", "--port", str(free_port()))
    demo.wait_for("ready")
    demo.signal(signal.SIGKILL)
    assert demo.wait() == -signal.SIGKILL
    demo.assert_nothing_is_left()


def test_when_the_endpoint_dies_it_says_so_and_ends(run: Run) -> None:
    demo = run("demo", "--port", str(free_port()))
    demo.wait_for("serving")
    serve = min(pid for pid in demo.family() if " serve " in command_line(pid))
    os.kill(serve, signal.SIGTERM)
    assert demo.wait() == 1
    assert "mme demo: the endpoint ended with status 0" in demo.trouble
    demo.assert_nothing_is_left()


def test_a_port_that_is_taken_is_refused_when_it_was_asked_for(run: Run) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        demo = run("demo", "--once", "--port", str(port))
        assert demo.wait() == 1
    assert demo.trouble == (
        f"mme demo: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --port\n"
    )


@pytest.mark.parametrize("port", ["0", "32767", "8080x"])
def test_a_port_that_cannot_be_is_refused(run: Run, port: str) -> None:
    demo = run("demo", "--once", "--port", port)
    assert demo.wait() == 2
    assert demo.trouble == f"mme demo: --port: {port!r} is not a whole number from 1 to 32766\n"


def test_without_the_s3_server_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("moto", "flask"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]  how Python notes what cannot be imported
    assert main(["demo", "--once"]) == 2
    assert capsys.readouterr().err == "mme demo: it needs moto, flask: pip install 'multi-model-endpoint[demo]'\n"


def test_the_next_free_port_is_taken_when_none_was_asked_for() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        assert port < first_free(range(port, 32767)) < 32767
        with pytest.raises(PortTaken):
            first_free([port])


def test_metrics_of_no_calls_are_none_rather_than_zero() -> None:
    assert Metrics.of([]).lines[1:] == (
        "load        none   from S3 into memory", "cold call   none   the load included", "warm call   none",
    )  # fmt: skip


def pasted(demo: Command, start: str) -> str:
    """The block of the demo's output that begins with `start`, as a person would select it."""
    return next(block for block in demo.output.split("\n\n") if block.startswith(start))


def shell(text: str) -> str:
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_price(demo: Command) -> float:
    """What the demo got for the house its snippets name, which is the last one it called with."""
    return [float(match[8].replace(",", "")) for line in demo.lines if (match := ROW.fullmatch(line))][-1]


def test_the_boto3_snippet_works_as_pasted_into_a_session(serving: Command) -> None:
    session = [sys.executable, "-i", "-q"]
    done = subprocess.run(
        session, input=pasted(serving, "import boto3") + "\n", capture_output=True, text=True, timeout=60
    )
    price, attributes = done.stdout.split()
    assert float(price) == pytest.approx(last_price(serving), abs=1)
    assert attributes == "cache=hit"


def test_the_aws_cli_line_works_as_pasted(serving: Command) -> None:
    if shutil.which("aws") is None:
        pytest.skip("no AWS CLI on this machine")
    output = shell(pasted(serving, "echo "))
    assert float(output.partition("{")[0]) == pytest.approx(last_price(serving), abs=1)
    assert '"CustomAttributes": "cache=hit"' in output


def test_the_curl_line_works_as_pasted(serving: Command) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    assert float(shell(pasted(serving, "curl "))) == pytest.approx(last_price(serving), abs=1)


def test_the_mme_line_works_as_pasted(serving: Command) -> None:
    line = next(line for line in serving.lines if " invoke --url " in line or line.startswith("mme invoke"))
    ours = re.sub(r"^.*? invoke", f"{sys.executable} -m container.operate.main invoke", line)  # of this tree
    assert float(shell(ours)) == pytest.approx(last_price(serving), abs=1)


def test_an_artifact_put_into_its_bucket_is_served_by_the_next_call(serving: Command) -> None:
    url = serving.wait_for("bucket").split()[-1]
    trained = houses.train_city("Boise_ID", 410_000)
    client("s3", url).put_object(Bucket="house-prices", Key="models/us/Boise_ID.tar.gz", Body=trained.archive)
    endpoint = Endpoint(serving.wait_for("serving").split()[1])
    answered = endpoint.call("us/Boise_ID.tar.gz", b"2000,2000,3,2,0.2,1")
    assert answered.is_hit is False
    expected_usd = predicted_by_xgboost("Boise_ID", 410_000, [2000, 2000, 3, 2, 0.2, 1])
    assert float(answered.body) == pytest.approx(expected_usd, rel=1e-6)


def test_the_endpoint_itself_counts_the_calls_the_demo_told_of(serving: Command) -> None:
    url = serving.wait_for("status").split()[1].removesuffix("/")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    counted = {
        name: float(re.search(rf"^mme_model_cache_hit_{name}{{.*}} (.*)$", metrics, re.M)[1])
        for name in ("count", "sum")
    }
    assert counted["count"] >= 22  # the tests beside this one call too
    assert counted["sum"] >= 11
    assert counted["count"] - counted["sum"] in (11, 12)
