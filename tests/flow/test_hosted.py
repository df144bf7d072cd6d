"""The multi-model container contract through the real MMS: what a platform, or anybody else, can ask of it."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from tests.rig import boosters
from tests.rig.endpoint import Endpoint, Reply, needs_classes, until

pytestmark = needs_classes
ROWS = boosters.rows(2, 6)
CSV = "\n".join(",".join(map(str, row)) for row in ROWS.tolist())
MIB = 1 << 20


def ask(endpoint: Endpoint, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Reply(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def load(endpoint: Endpoint, name: str, url: Path | str, **fields: Any) -> Reply:
    body = json.dumps({"model_name": name, "url": str(url), **fields})
    return ask(endpoint, "POST", "/models", body, Content_Type="application/json")


def invoke(endpoint: Endpoint, name: str, body: str = CSV) -> Reply:
    return ask(endpoint, "POST", f"/models/{name}/invoke", body, Content_Type="text/csv", Accept="text/csv")


def unload(endpoint: Endpoint, name: str) -> Reply:
    return ask(endpoint, "DELETE", f"/models/{name}")


def names(endpoint: Endpoint) -> list[str]:
    return [model["modelName"] for model in ask(endpoint, "GET", "/models?limit=100").json["models"]]


def is_answer_of(seed: int, reply: Reply) -> bool:
    scores = np.array([float(line) for line in reply.body.split()])
    return bool(np.allclose(scores, boosters.expected(boosters.segment(seed), ROWS).ravel(), rtol=1e-6))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`<root>/<n>/model`, as the platform unpacks them; bundle n answers as `boosters.segment(n)`."""
    root = tmp_path_factory.mktemp("bundles")
    for number in range(12):
        (root / str(number) / "model").mkdir(parents=True)
        (root / str(number) / "model" / "xgboost-model").write_bytes(boosters.document(boosters.segment(number)))
    return root


@pytest.fixture(scope="module")
def hosted() -> Iterator[Endpoint]:
    scratch = Path(tempfile.mkdtemp(prefix="mt-"))
    with Endpoint(None, scratch, "--loaders", "2") as one:
        yield one
    shutil.rmtree(scratch)


@pytest.fixture(autouse=True)
def nothing_loaded(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "hosted" in request.fixturenames:
        endpoint: Endpoint = request.getfixturevalue("hosted")
        for name in names(endpoint):
            unload(endpoint, name)


def test_with_nothing_loaded_it_is_healthy_and_lists_nothing(hosted: Endpoint) -> None:
    assert ask(hosted, "GET", "/ping").json == {"status": "Healthy"}
    assert ask(hosted, "GET", "/models").json == {"models": []}


def test_a_model_is_loaded_described_invoked_and_unloaded(hosted: Endpoint, bundles: Path) -> None:
    url = bundles / "1" / "model"
    assert (load(hosted, "one", url).status, names(hosted)) == (200, ["one"])
    described = ask(hosted, "GET", "/models/one").json
    assert (described["modelName"], described["modelUrl"]) == ("one", str(url))
    assert is_answer_of(1, invoke(hosted, "one"))
    assert load(hosted, "one", url).status == 409
    assert unload(hosted, "one").json == {"status": 'Model "one" unregistered'}
    assert [unload(hosted, "one").status, invoke(hosted, "one").status, ask(hosted, "GET", "/models/one").status] == [
        404
    ] * 3


def test_errors_of_requests_have_plain_statuses_and_say_why(hosted: Endpoint, bundles: Path) -> None:
    load(hosted, "one", bundles / "1" / "model")
    short = invoke(hosted, "one", "1,2")
    assert (short.status, short.json["type"]) == (400, "FeatureMismatch")
    assert ask(hosted, "POST", "/models/one/invoke", b"x", Content_Type="image/png").status == 415


def test_a_load_that_fails_says_why(hosted: Endpoint, tmp_path: Path) -> None:
    for name, data, status, kind, words in [
        ("broken", b"no booster of any release", 422, "ArtifactBroken", "no booster"),
        ("code", boosters.document(boosters.segment(1)), 422, "ArtifactRefused", "inference.py"),
    ]:
        bundle = tmp_path / name
        bundle.mkdir()
        (bundle / "xgboost-model").write_bytes(data)
        if name == "code":
            (bundle / "code").mkdir()
            (bundle / "code" / "inference.py").write_text("import os")
        answer = load(hosted, name, bundle)
        assert (answer.status, answer.json["code"], answer.json["type"]) == (status, status, kind)
        assert (str(bundle) in answer.json["message"], words in answer.json["message"]) == (True, True), answer


def test_a_broken_model_is_refused_with_422_and_forgotten_before_the_answer(
    hosted: Endpoint, bundles: Path, tmp_path: Path
) -> None:
    (tmp_path / "xgboost-model").write_bytes(b"no booster of any release")
    for _ in range(5):
        assert load(hosted, "x", tmp_path).status == 422
        assert (names(hosted), ask(hosted, "GET", "/models/x").status) == ([], 404)
    assert load(hosted, "x", bundles / "2" / "model").status == 200
    assert is_answer_of(2, invoke(hosted, "x"))
    assert any("x is not loaded, 422" in line and "no booster" in line for line in hosted.log)


def test_archives_are_read_where_they_lie(hosted: Endpoint, tmp_path: Path) -> None:
    tar = tmp_path / "model.tar.gz"
    tar.write_bytes(boosters.segment_archive(3))
    with zipfile.ZipFile(tmp_path / "model.mar", "w") as archive:
        archive.writestr("xgboost-model", boosters.document(boosters.segment(4)))
    assert [load(hosted, "tar", tar).status, load(hosted, "mar", tmp_path / "model.mar").status] == [200, 200]
    assert is_answer_of(3, invoke(hosted, "tar"))
    assert is_answer_of(4, invoke(hosted, "mar"))


def test_a_zip_writes_nothing_anywhere(hosted: Endpoint, tmp_path: Path) -> None:
    """MMS unpacks what it is pointed at, wherever the entries say; it must not see a file."""
    target = tmp_path / "written"
    sound = boosters.document(boosters.segment(4))
    for name in (f"../../../../../../../../..{target}", str(target)):
        with zipfile.ZipFile(tmp_path / "evil.mar", "w") as archive:
            archive.writestr("xgboost-model", sound)
            archive.writestr(name, b"x")
        answer = load(hosted, "evil", tmp_path / "evil.mar")
        assert (answer.status, answer.json["type"]) == (422, "ArtifactRefused")
    (tmp_path / "evil.mar").rename(tmp_path / "evil.zip")
    assert load(hosted, "evil", tmp_path / "evil.zip").status == 422
    assert not target.exists()
    assert load(hosted, "evil", f"file://{tmp_path}/evil.mar").status == 404
    assert [path.name for path in hosted.scratch.glob("*/tmp/models/*/*")] == []


def test_no_field_of_a_load_makes_us_fetch_or_run_anything(hosted: Endpoint, bundles: Path, tmp_path: Path) -> None:
    url = bundles / "5" / "model"
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        for scheme in ("http", "https", "HTTP"):
            assert load(hosted, "far", f"{scheme}://127.0.0.1:{other.getsockname()[1]}/m.mar").status == 400
        with pytest.raises(TimeoutError):
            other.accept()
    assert load(hosted, "s3", "s3://bucket/m.tar.gz").status == 404
    assert load(hosted, "java", url, runtime="java8").status == 400
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o700)
    for runtime in ("python", "python2", "python3"):
        assert load(hosted, runtime, url, runtime=runtime, handler=f"{program}:x").status == 200
        assert is_answer_of(5, invoke(hosted, runtime))
    assert not (tmp_path / "ran").exists()


def test_unknown_fields_and_methods_get_mms_own_statuses_and_bodies_that_are_none_400(
    hosted: Endpoint, bundles: Path
) -> None:
    assert load(hosted, "one", bundles / "1" / "model", what="ever").status == 200
    for body in ("{", "", "[]"):
        assert ask(hosted, "POST", "/models", body, Content_Type="application/json").status == 400
    assert ask(hosted, "POST", "/models", "{}", Content_Type="application/json").status == 400
    assert [ask(hosted, method, "/models").status for method in ("PUT", "PATCH", "DELETE")] == [405] * 3
    assert load(hosted, "none", "/no/such/directory").status == 404
    assert load(hosted, "up", "/tmp/../etc").status == 404


def test_more_than_a_hundred_models_are_listed_page_by_page(hosted: Endpoint, bundles: Path) -> None:
    def load_one(number: int) -> int:
        return load(hosted, f"p{number:03}", bundles / str(number % 12) / "model").status

    with ThreadPoolExecutor(8) as executor:
        assert set(executor.map(load_one, range(105))) == {200}
        first = ask(hosted, "GET", "/models").json
        second = ask(hosted, "GET", f"/models?next_page_token={first['nextPageToken']}").json
        listed = [model["modelName"] for model in first["models"] + second["models"]]
        assert (listed, "nextPageToken" in second) == ([f"p{number:03}" for number in range(105)], False)
        assert set(executor.map(lambda number: unload(hosted, f"p{number:03}").status, range(105))) == {200}


def test_loads_and_unloads_race_with_invokes_and_every_answer_is_right_or_by_contract(
    hosted: Endpoint, bundles: Path
) -> None:
    """As a platform does it: whoever loads a name unloads it, and anybody invokes it meanwhile."""
    contract = {load: {200, 409}, invoke: {200, 404, 503}, unload: {200, 404}}
    wrong: list[str] = []

    def mix(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(40):
            act = choice.choice([load, invoke, invoke, unload])
            number = choice.randrange(12) if act is invoke else choice.randrange(3) + 3 * (seed % 4)
            if act is invoke:
                reply = invoke(hosted, f"m{number}")
            else:
                with busy[number]:
                    name = f"m{number}"
                    reply = load(hosted, name, bundles / str(number) / "model") if act is load else unload(hosted, name)
            is_wrong = act is invoke and reply.status == 200 and not is_answer_of(number, reply)
            if is_wrong or reply.status not in contract[act]:
                wrong.append(f"{act.__name__} m{number}: {reply}")

    busy = [threading.Lock() for _ in range(12)]
    threads = [threading.Thread(target=mix, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [], "".join(hosted.log)
    assert ask(hosted, "GET", "/ping").status == 200


def test_unloading_leaves_no_process_thread_descriptor_or_socket_behind(hosted: Endpoint, bundles: Path) -> None:
    def counts() -> list[tuple[int, int]]:
        """Threads and descriptors of the supervisor and the runtime."""
        folders = [Path(f"/proc/{pid}") for pid in (hosted.pid, hosted.runtime)]
        return [(len(list((one / "task").iterdir())), len(list((one / "fd").iterdir()))) for one in folders]

    def cycle() -> list[tuple[int, int]]:
        for number in range(8):
            load(hosted, f"m{number}", bundles / str(number) / "model")
            invoke(hosted, f"m{number}")
        loaded = counts()
        for number in range(8):
            assert unload(hosted, f"m{number}").status == 200
        until(lambda: not list(hosted.scratch.glob("*/tmp/.mms.sock.*")))
        return loaded

    cycle()  # pools have their threads from here on
    before = counts()
    (_, supervisor), (threads, descriptors) = cycle()
    assert (supervisor - before[0][1], threads - before[1][0]) >= (8, 8)
    assert descriptors - before[1][1] >= 16
    until(lambda: all(now <= then for now, then in zip(counts(), before, strict=True)))


def test_when_there_is_no_room_a_load_gets_507_and_evicts_nothing(bundles: Path, scratch: Path) -> None:
    with Endpoint(None, scratch, "--memory", str(MIB)) as small:
        statuses = [load(small, f"m{number}", bundles / str(number) / "model").status for number in range(6)]
        fitting = statuses.index(507)
        assert statuses == [200] * fitting + [507] * (6 - fitting)
        assert fitting >= 2
        assert names(small) == [f"m{number}" for number in range(fitting)]
        assert all(is_answer_of(number, invoke(small, f"m{number}")) for number in range(fitting))
        assert unload(small, "m0").status == 200
        assert load(small, "m5", bundles / "5" / "model").status == 200  # at once: the memory is back
        assert is_answer_of(5, invoke(small, "m5"))


def test_past_the_ceiling_of_models_a_load_gets_507(bundles: Path, scratch: Path) -> None:
    with Endpoint(None, scratch, "--max-models", "2") as small:
        assert [load(small, f"m{n}", bundles / str(n) / "model").status for n in range(3)] == [200, 200, 507]
        assert unload(small, "m0").status == 200
        assert load(small, "m2", bundles / "2" / "model").status == 200


def test_a_killed_runtime_comes_back_with_every_model(bundles: Path, scratch: Path) -> None:
    with Endpoint(None, scratch) as endpoint:
        for number in range(12):
            load(endpoint, f"m{number}", bundles / str(number) / "model")
        with ThreadPoolExecutor(4) as executor:  # calls and a load are under way when it dies
            calls = [executor.submit(is_right_again, endpoint, number % 12) for number in range(100)]
            loading = executor.submit(load, endpoint, "late", bundles / "1" / "model")
            os.kill(endpoint.runtime, signal.SIGKILL)
            for call in calls:
                call.result()
            assert loading.result().status in (200, 503)
        until(lambda: all(is_right_again(endpoint, number) for number in range(12)), 30)
        assert unload(endpoint, "m3").status == 200
        assert load(endpoint, "m3", bundles / "3" / "model").status == 200


def is_right_again(endpoint: Endpoint, number: int) -> bool:
    reply = invoke(endpoint, f"m{number}")
    assert reply.status in (200, 503), reply
    return reply.status == 200 and is_answer_of(number, reply)


def test_the_variables_that_sagemaker_sets_are_enough(bundles: Path, scratch: Path) -> None:
    environment = {"SAGEMAKER_MULTI_MODEL": "true"}
    with Endpoint("", scratch, environment=environment) as endpoint:
        assert load(endpoint, "one", bundles / "1" / "model").status == 200
        assert is_answer_of(1, invoke(endpoint, "one"))


def test_overlapping_loads_and_unloads_of_one_name_are_all_answered(hosted: Endpoint, bundles: Path) -> None:
    contract = {load: {200, 409}, unload: {200, 404}, invoke: {200, 404, 503}}
    wrong: list[str] = []

    def change(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(25):
            act = choice.choice([load, load, unload, invoke])
            reply = act(hosted, "x", bundles / "7" / "model") if act is load else act(hosted, "x")
            is_wrong = act is invoke and reply.status == 200 and not is_answer_of(7, reply)
            if is_wrong or reply.status not in contract[act]:
                wrong.append(f"{act.__name__}: {reply}")

    with ThreadPoolExecutor(8) as executor:
        for done in [executor.submit(change, seed) for seed in range(8)]:
            done.result()  # a call without an answer ends with its connection's timeout
    assert wrong == [], "".join(hosted.log)
    unload(hosted, "x")
    assert (names(hosted), load(hosted, "x", bundles / "8" / "model").status) == ([], 200)
    assert is_answer_of(8, invoke(hosted, "x"))


@pytest.mark.parametrize("name", ["a/b", "a\nERROR mme: a line that nobody logged", "x" * 1025, "\x00"])
def test_a_name_that_no_path_can_hold_is_refused(hosted: Endpoint, bundles: Path, name: str) -> None:
    query = urlencode({"model_name": name, "url": str(bundles / "1" / "model")})
    assert ask(hosted, "POST", f"/models?{query}").status == 400
    assert names(hosted) == []
    assert not [line for line in hosted.log if line.startswith("ERROR mme: a line")]


@pytest.mark.parametrize("url", ["", "/", "//", "/./", " "])
def test_the_whole_machine_is_no_model(hosted: Endpoint, url: str) -> None:
    assert ask(hosted, "POST", f"/models?{urlencode({'model_name': 'x', 'url': url})}").status == 400
    assert names(hosted) == []


@pytest.mark.parametrize("query", ["min_worker=2000", "min_worker=0", "max_worker=100", "min_worker=-1"])
def test_a_model_has_some_workers_and_not_thousands(hosted: Endpoint, bundles: Path, query: str) -> None:
    load(hosted, "one", bundles / "1" / "model")
    assert ask(hosted, "PUT", f"/models/one?{query}&synchronous=true").status == 400
    assert is_answer_of(1, invoke(hosted, "one"))
