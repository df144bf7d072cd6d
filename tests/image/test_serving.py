"""The built image serves: from a directory, from S3, hosted; as anyone, within its memory, until it is told to stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from tests.image.box import CGROUPS, Box, Image, status_of
from tests.rig import boosters
from tests.rig.endpoint import command_line, free_port, is_running, until

pytestmark = [pytest.mark.image, pytest.mark.timeout(180)]

START_S = 5.0
FIRST_ANSWER_S = 6.0


def csv(rows: np.ndarray) -> str:
    return "\n".join(",".join(f"{value:.9g}" for value in row) for row in rows)


def scores(body: bytes) -> np.ndarray:
    return np.array([float(line) for line in body.split()], np.float32)


def assert_answers(box: Box, number: int) -> None:
    rows = boosters.rows(5, 6, seed=99)
    reply = box.post(f"{number}.tar.gz", csv(rows), Accept="text/csv")
    assert reply.status == 200, reply
    np.testing.assert_allclose(scores(reply.body), boosters.expected(boosters.segment(number), rows)[:, 0], rtol=1e-6)


def test_it_serves_a_directory_with_a_read_only_root_and_a_scratch_that_executes_nothing(box: Box) -> None:
    for number in range(3):
        assert_answers(box, number)


def test_boto3_calls_it_as_it_calls_sagemaker(box: Box) -> None:
    answer = box.client().invoke_endpoint(
        EndpointName="any", TargetModel="1.tar.gz", ContentType="text/csv", Body=csv(boosters.rows(1, 6))
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200


def test_it_starts_within_five_seconds_and_answers_within_six(image: Image, segments: Path) -> None:
    with Box(image, segments, environment={"MME_MODELS": "/mnt"}) as box:
        assert_answers(box, 0)
        first_answer_s = time.monotonic() - box.started_at
    assert box.ready_s < START_S
    assert first_answer_s < FIRST_ANSWER_S


def test_java_starts_from_the_class_archive_without_a_word(box: Box) -> None:
    """Java says so when the archive does not fit its jar, its modules or its options, and starts without it."""
    assert not [line for line in box.log if "[cds" in line or "[aot" in line or "warning" in line.lower()]
    maps = Path(f"/proc/{box.jvm}/maps").read_text()
    assert "model-server.jsa" in maps
    assert "mms/frontend/libnetty_transport_native_epoll" in maps


def test_it_is_process_1_and_nobody_in_particular(box: Box, image: Image) -> None:
    status = status_of(box.init)
    assert status["NSpid"].split()[-1] == "1"
    assert "mme" in command_line(box.init)
    for pid in box.family():
        if pid == box.pid:  # unshare, outside
            continue
        status = status_of(pid)
        uid, gid = image.config["User"].split(":")
        assert status["Uid"].split() == [uid] * 4
        assert status["Gid"].split() == [gid] * 4
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"


def test_root_may_run_it_too(image: Image, segments: Path) -> None:
    with Box(image, segments, environment={"MME_MODELS": "/mnt"}, user="0:0", is_read_only=False) as box:
        assert_answers(box, 0)
    assert not list((image.root / "tmp").iterdir())


def test_its_health_check_says_well_and_says_when_nobody_is_there(box: Box, image: Image) -> None:
    words = image.config["Healthcheck"]["Test"]
    assert words[0] == "CMD"
    well = image.run(*words[1:], environment={"MME_HOST": "127.0.0.1", "MME_PORT": str(box.port)})
    assert (well.returncode, well.stdout) == (0, "well\n"), well
    gone = image.run(*words[1:], environment={"MME_HOST": "127.0.0.1", "MME_PORT": "1"})
    assert gone.returncode == 1
    assert "no answer" in gone.stdout


def test_its_health_check_asks_the_admin_port_where_there_is_one(image: Image, segments: Path) -> None:
    environment = {"MME_MODELS": "/mnt", "MME_ADMIN_PORT": str(free_port())}
    with Box(image, segments, environment=environment) as box:
        # As in the container, where the endpoint's own port is in its environment, too.
        environment["MME_PORT"] = str(box.port)
        done = image.run("mme", "health", environment=environment)
        assert (done.returncode, done.stdout) == (0, "well\n"), done
    assert image.run("mme", "health", environment=environment).returncode == 1


def test_the_port_may_be_the_platforms_choice(image: Image, segments: Path) -> None:
    with Box(image, segments, environment={"MME_MODELS": "/mnt"}) as other:
        environment = {"MME_MODELS": "/mnt", "MME_PORT": "", "SAGEMAKER_BIND_TO_PORT": str(other.port + 1)}
        box = Box(image, segments, environment=environment)
        box.port = other.port + 1
        with box:
            assert_answers(box, 2)


def test_no_process_is_left_dead_and_unburied(image: Image, segments: Path) -> None:
    """Process 1 inherits every orphan. Killing the runtime makes some: its examiner and that one's readers."""
    with Box(image, segments, environment={"MME_MODELS": "/mnt"}) as box:
        assert_answers(box, 0)
        before = set(box.family())
        runtime = box.runtime
        os.kill(runtime, signal.SIGKILL)
        until(lambda: not is_running(runtime))
        until(lambda: box.post("0.tar.gz", csv(boosters.rows(1, 6))).status == 200, 30)
        until(lambda: not [pid for pid in before | set(box.family()) if _is_zombie(pid)])


def _is_zombie(pid: int) -> bool:
    try:
        return status_of(pid)["State"].startswith("Z")
    except OSError:
        return False


# -- S3 ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Iterator[str]:
    """moto's S3 with two segments below s3://models/eu/; its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    client.create_bucket(Bucket="models")
    for number in range(2):
        client.put_object(Bucket="models", Key=f"eu/{number}.tar.gz", Body=boosters.segment_archive(number))
    yield url
    server.stop()


def test_it_serves_a_prefix_of_s3(image: Image, segments: Path, bucket: str) -> None:
    environment = {
        "MME_MODELS": "s3://models/eu/",
        "MME_S3_ENDPOINT_URL": bucket,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with Box(image, segments, environment=environment) as box:
        assert_answers(box, 0)
        assert_answers(box, 1)
        assert box.post("7.tar.gz", "1,2,3,4,5,6").status == 400


# -- hosted ------------------------------------------------------------------------------------------------------------


class Platform:
    """What SageMaker does to a multi-model container. Source: guide, "Custom containers contract for MME"."""

    def __init__(self, port: int) -> None:
        self._port = port

    def call(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        is_json = "json" in (response.getheader("Content-Type") or "")
        return response.status, json.loads(text) if is_json and text else text

    def load(self, name: str) -> int:
        body = json.dumps({"model_name": name, "url": f"/mnt/{name}/model"})
        return self.call("POST", "/models", body, Content_Type="application/json")[0]


def test_it_serves_hosted_by_the_platforms_contract(image: Image, tmp_path: Path) -> None:
    if "--hosted" not in image.run("mme", "serve", "--help").stdout:
        pytest.skip("this image has no hosted mode yet: `mme serve` knows no --hosted")
    tmp_path.chmod(0o755)
    for number in range(2):  # the platform unpacks archives before it asks for them to be loaded
        archive = tmp_path / f"{number}.tar.gz"
        archive.write_bytes(boosters.segment_archive(number))
        folder = tmp_path / f"hash{number}" / "model"
        folder.mkdir(parents=True)
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    with Box(image, tmp_path, environment={"SAGEMAKER_MULTI_MODEL": "true"}) as box:
        platform = Platform(box.port)
        assert platform.call("GET", "/ping")[0] == 200
        assert platform.call("GET", "/models") == (200, {"models": []})
        assert platform.load("hash0") == 200
        assert platform.load("hash0") == 409
        assert platform.load("hash1") == 200
        listed = platform.call("GET", "/models")[1]["models"]
        assert sorted(one["modelName"] for one in listed) == ["hash0", "hash1"]
        rows = boosters.rows(3, 6)
        for number in range(2):
            status, body = platform.call(
                "POST", f"/models/hash{number}/invoke", csv(rows), Content_Type="text/csv", Accept="application/json"
            )
            assert status == 200
            flat = np.array(body["predictions"] if isinstance(body, dict) else body, dtype=object)
            got = [one["score"] if isinstance(one, dict) else one for one in flat.ravel()]
            wanted = boosters.expected(boosters.segment(number), rows)[:, 0]
            np.testing.assert_allclose(np.array(got, np.float32), wanted, rtol=1e-6)
        assert platform.call("DELETE", "/models/hash0")[0] == 200
        assert platform.call("POST", "/models/hash0/invoke", csv(rows), Content_Type="text/csv")[0] == 404
        assert platform.call("DELETE", "/models/hash0")[0] == 404


# -- memory ------------------------------------------------------------------------------------------------------------


def test_it_lives_within_a_memory_limit_and_evicts_instead_of_dying(image: Image, tmp_path: Path) -> None:
    if not CGROUPS.is_dir():
        pytest.skip("needs a control group of version 1 to set a memory limit")
    limit_bytes = 560 << 20
    big = boosters.train(n_features=20, n_rounds=400, max_depth=8)
    archive = tmp_path / "0.tar.gz"
    archive.write_bytes(boosters.archive({"xgboost-model": boosters.document(big)}))
    tmp_path.chmod(0o755)
    n_models = 4 + (110 << 20) // len(boosters.document(big))  # more than the models' share of the limit
    for number in range(1, n_models):
        (tmp_path / f"{number}.tar.gz").hardlink_to(archive)
    rows = boosters.rows(2, 20)
    expected = boosters.expected(big, rows)[:, 0]
    with Box(image, tmp_path, environment={"MME_MODELS": "/mnt"}, memory_bytes=limit_bytes) as box:
        assert [line for line in box.log if f"of the {limit_bytes} that cgroup v1 allows" in line]
        for number in [*range(n_models), *range(n_models)]:
            reply = box.post(f"{number}.tar.gz", csv(rows), Accept="text/csv")
            assert reply.status == 200, reply
            np.testing.assert_allclose(scores(reply.body), expected, rtol=1e-6)
        assert "oom_kill 0" in box.group_figure("memory.oom_control")
        assert not [line for line in box.log if "starting another" in line]


# -- the end -----------------------------------------------------------------------------------------------------------


def cpu_s(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_sigterm_lets_what_is_in_flight_finish(image: Image, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    slow = boosters.train(n_features=20, n_rounds=400, max_depth=8)
    (tmp_path / "slow.tar.gz").write_bytes(boosters.archive({"xgboost-model": boosters.document(slow)}))
    rows = boosters.rows(6_000, 20)
    body = csv(rows)
    with Box(image, tmp_path, environment={"MME_MODELS": "/mnt"}) as box:
        replies: list[Any] = []
        # SHAP values of 6,000 rows take a second or two; once the runtime works on them, the request is in flight.
        asked = {"Accept": "text/csv", "X-Amzn-SageMaker-Custom-Attributes": "Output=contribs"}
        calling = threading.Thread(target=lambda: replies.append(box.post("slow.tar.gz", body, **asked)))
        idle_s = cpu_s(box.runtime)
        began = time.monotonic()
        calling.start()
        until(lambda: cpu_s(box.runtime) > idle_s + 0.15)
        assert not replies
        status = box.stop(signal.SIGTERM)
        took_s = time.monotonic() - began
        calling.join(10)
    assert status == 0
    assert took_s < 20, "it waited for its drain time instead of for the request"
    assert replies[0].status == 200
    assert len(replies[0].body.splitlines()) == len(rows)
    assert [line for line in box.log if "nothing is in flight" in line]
