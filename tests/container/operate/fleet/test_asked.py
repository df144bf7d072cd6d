"""What replicas say, and what it makes together."""

from __future__ import annotations

import socket
import threading

from container.operate.fleet.asked import Asker, Model, Told, merged_models, together
from container.operate.fleet.page import FleetFacts
from tests.rig.endpoint import free_port


def model(name: str, replica: str, hits: int) -> Model:
    return Model(name, replica, 1000, hits, 10.0, 1.0, is_pinned=False)


def now(requests_per_s: float, hit_ratio: float | None) -> dict[str, float | None]:
    return {"requests_per_s": requests_per_s, "hit_ratio": hit_ratio, "loaded_bytes": 2000, "budget_bytes": 10_000}


A = Told("a", "http://a", "", now(30.0, 0.9), 100, 90, 3, (model("x", "a", 50), model("y", "a", 1)))
B = Told("b", "http://b", "", now(10.0, 0.5), 100, 50, 4, (model("x", "b", 7),))
IDLE = Told("c", "http://c", "", now(0.0, None))
AWAY = Told("d", "http://d", "nobody answers")


def test_a_fleets_hit_ratio_is_by_how_much_each_replica_was_asked() -> None:
    all_told = together([A, B, IDLE, AWAY])
    assert all_told.hit_ratio == 0.8
    assert all_told.hit_ratio_ever == 0.7
    assert all_told.requests_per_s == 40.0
    assert (all_told.evictions, all_told.n_models, all_told.n_copies) == (7, 2, 3)
    assert (all_told.loaded_bytes, all_told.budget_bytes) == (6000, 30_000)


def test_a_fleet_that_was_asked_nothing_has_no_ratio() -> None:
    assert together([IDLE]).hit_ratio is together([AWAY]).hit_ratio_ever is None


def test_a_model_held_twice_is_told_once_with_both_holders() -> None:
    first, second = merged_models([A, B])
    assert (first["name"], first["replicas"], first["hits"], first["n_bytes"]) == ("x", ["a", "b"], 57, 2000)
    assert (second["name"], second["replicas"]) == ("y", ["a"])


def test_a_replica_that_does_not_answer_is_told_as_such() -> None:
    asker = Asker({"a": f"http://127.0.0.1:{free_port()}"})
    (told,) = asker.ask()
    asker.close()
    assert "nobody answers" in told.why
    facts = FleetFacts("a fleet", Asker({"a": f"http://127.0.0.1:{free_port()}"}), lambda: {"a": 3}).facts()
    assert facts["verdict"]["headline"] == "Nobody there"
    assert facts["replicas"][0]["starts"] == 3


def test_a_replica_that_ends_in_the_middle_of_an_answer_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"ok"')

        thread = threading.Thread(target=answer)
        thread.start()
        asker = Asker({"a": f"http://127.0.0.1:{server.getsockname()[1]}"})
        try:
            (told,) = asker.ask()
        finally:
            asker.close()
            thread.join()
    assert "nobody answers" in told.why
