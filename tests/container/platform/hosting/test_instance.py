"""SageMaker's side of one instance and of several, against a container that does as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from container.platform.hosting.contract import Container
from container.platform.hosting.errors import ModelError, ModelNotReady, ValidationError
from container.platform.hosting.figures import Figures
from container.platform.hosting.fleet import Fleet
from container.platform.hosting.instance import Clocks, Instance
from tests.rig import boosters
from tests.rig.endpoint import until
from tests.rig.fakes import MemoryStore

SHORT = 0.15  # seconds; a limit that is to pass
LONG = 30.0  # and one that is not
ARCHIVE = boosters.archive({"xgboost-model": b"whatever"})


class FakeContainer(ThreadingHTTPServer):
    """The multi-model contract over HTTP: a table, a number of models that fit, and a gate that loads wait at.

    calls   what was asked, in order: ("load", name) and so on
    """

    daemon_threads = True

    def __init__(self, room: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.room = room
        self.models: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.refusal: tuple[int, str] | None = None
        self.may_load = threading.Event()
        self.may_load.set()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, what: str) -> int:
        return sum(call[0] == what for call in self.calls)

    def load(self, name: str, url: str) -> tuple[int, str]:
        self.calls.append(("load", name))
        assert self.may_load.wait(LONG)
        with self.lock:
            if self.refusal is not None:
                return self.refusal
            if name in self.models:
                return 409, "there already"
            if len(self.models) >= self.room:
                return 507, "no room"
            self.models[name] = url
        return 200, ""

    def unload(self, name: str) -> tuple[int, str]:
        self.calls.append(("unload", name))
        with self.lock:
            return (200, "") if self.models.pop(name, None) else (404, "")

    def invoke(self, name: str) -> tuple[int, str]:
        self.calls.append(("invoke", name))
        return (200, f"{name} says so") if name in self.models else (404, "")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: FakeContainer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/models":
            wanted = json.loads(body)
            self._say(*self.server.load(wanted["model_name"], wanted["url"]))
        else:
            self._say(*self.server.invoke(self.path.split("/")[2]))

    def do_DELETE(self) -> None:
        self._say(*self.server.unload(self.path.split("/")[2]))

    def do_GET(self) -> None:
        listed = [{"modelName": name, "modelUrl": url} for name, url in self.server.models.items()]
        self._say(200, json.dumps({"models": listed}))

    def _say(self, status: int, text: str) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """No news."""


Make = Callable[..., tuple[Instance, FakeContainer]]


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
def make(tmp_path: Path, figures: Figures) -> Iterator[Make]:
    """Instances over one store of four targets, a.tar.gz to d.tar.gz."""
    store = MemoryStore()
    for name in "abcd":
        store.put(f"{name}.tar.gz", ARCHIVE)
    made: list[tuple[Instance, FakeContainer]] = []
    with ThreadPoolExecutor(8) as executor:

        def make(room: int = 9, clocks: Clocks = Clocks(LONG, LONG, LONG), *, is_cached: bool = True) -> Any:  # noqa: B008
            container = FakeContainer(room)
            root = tmp_path / str(len(made))
            root.mkdir()
            instance = Instance(
                str(len(made)),
                Container(container.url),
                store,
                root,
                figures,
                executor,
                disk_bytes=1 << 30,
                is_cached=is_cached,
                clocks=clocks,
            )
            made.append((instance, container))
            return made[-1]

        yield make
        for instance, container in made:
            container.may_load.set()
            container.shutdown()
            container.server_close()
            instance.container.close()


def test_a_slow_load_is_not_ready_for_its_caller_and_goes_on_without_him(make: Make) -> None:
    instance, container = make(clocks=Clocks(invoke_s=SHORT, load_s=LONG, room_s=SHORT))
    container.may_load.clear()
    for _ in range(2):
        with pytest.raises(ModelNotReady):
            instance.invoke("a.tar.gz", b"", {})
    container.may_load.set()
    until(lambda: instance.n_loaded == 1)
    assert instance.invoke("a.tar.gz", b"", {}).status == 200
    assert container.count("load") == 1


def test_a_load_that_outlasts_its_own_limit_is_given_up(make: Make) -> None:
    instance, container = make(clocks=Clocks(invoke_s=LONG, load_s=SHORT, room_s=SHORT))
    container.may_load.clear()
    with pytest.raises(ModelError, match=r"not loaded within 0\.15 s"):
        instance.invoke("a.tar.gz", b"", {})
    assert instance.n_loaded == 0


def test_sagemakers_own_clocks_are_the_default() -> None:
    assert (Clocks().invoke_s, Clocks().load_s) == (60.0, 360.0)


def test_507_unloads_the_least_recently_used_and_nothing_else_does(make: Make) -> None:
    instance, container = make(room=2)
    for target in ("a", "b", "a", "c"):
        assert instance.invoke(f"{target}.tar.gz", b"", {}).status == 200
    assert [call[0] for call in container.calls] == [
        *("load", "invoke", "load", "invoke", "invoke", "load", "unload", "load", "invoke")
    ]
    assert instance.has("a.tar.gz")
    assert not instance.has("b.tar.gz")
    container.refusal = (422, "broken")
    with pytest.raises(ModelError) as caught:
        instance.invoke("d.tar.gz", b"", {})
    assert (caught.value.fields["OriginalStatusCode"], container.count("unload")) == (422, 1)


def test_when_nothing_can_be_unloaded_there_is_no_room(make: Make) -> None:
    instance, _ = make(room=0, clocks=Clocks(LONG, LONG, SHORT))
    with pytest.raises(ModelError) as caught:
        instance.invoke("a.tar.gz", b"", {})
    assert caught.value.fields["OriginalStatusCode"] == 507


def test_many_callers_of_a_cold_model_load_it_once(make: Make, figures: Figures) -> None:
    instance, container = make()
    container.may_load.clear()
    with ThreadPoolExecutor(6) as callers:
        replies = [callers.submit(instance.invoke, "a.tar.gz", b"", {}) for _ in range(6)]
        until(lambda: container.count("load") == 1)
        container.may_load.set()
        assert {reply.result().status for reply in replies} == {200}
    told = figures.to_dict()
    assert (container.count("load"), told["ModelCacheHit"]["SampleCount"], told["ModelCacheHit"]["Sum"]) == (1, 6, 0)
    assert (told["ModelDownloadingTime"]["SampleCount"], told["ModelLoadingWaitTime"]["SampleCount"]) == (1, 6)


def test_without_a_cache_the_model_leaves_after_its_call(make: Make) -> None:
    instance, container = make(is_cached=False)
    assert instance.invoke("a.tar.gz", b"", {}).status == 200
    until(lambda: container.count("unload") == 1 and not container.models)


def test_a_container_that_lost_the_model_is_given_it_again(make: Make) -> None:
    instance, container = make()
    assert instance.invoke("a.tar.gz", b"", {}).status == 200
    container.models.clear()
    assert instance.invoke("a.tar.gz", b"", {}).status == 200
    assert container.count("load") == 2


def test_a_target_that_is_not_there_is_the_callers_mistake(make: Make) -> None:
    instance, container = make()
    with pytest.raises(ValidationError, match="Failed to download model data"):
        instance.invoke("none.tar.gz", b"", {})
    assert container.calls == []


def test_a_call_goes_where_its_model_is_and_else_where_there_are_fewest(make: Make, figures: Figures) -> None:
    (one, first), (two, second) = make(), make()
    with ThreadPoolExecutor(1) as executor:
        fleet = Fleet([one, two], figures, executor)
        for _ in range(2):
            for target in "abcd":
                assert fleet.invoke(f"{target}.tar.gz", b"", {}).status == 200
    assert (first.count("load"), second.count("load"), first.count("invoke"), second.count("invoke")) == (2, 2, 4, 4)
    told = figures.to_dict()["LoadedModelCount"]
    assert (told["SampleCount"], told["Sum"]) == (2, 4)
