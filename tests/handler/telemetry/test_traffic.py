"""The busiest models: attributed once, in bounded memory, whatever names callers think of."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from handler.telemetry.traffic import MAX_PAGES, MAX_SCORED, NAMES_PER_PAGE, OTHER, ModelTraffic, Traffic, TrafficBoard


def by_model(board: TrafficBoard) -> dict[str, ModelTraffic]:
    return {row.model: row for row in board.rows()}


def test_a_row_keeps_requests_hits_errors_and_time_apart() -> None:
    traffic, board = Traffic(), TrafficBoard(top=5)
    traffic.add("a", True, False, 100)
    traffic.add("a", False, True, 2**40)
    traffic.add("a", False, False, 7)
    board.take(traffic)
    board.settle(1.0)
    row = by_model(board)["a"]
    assert (row.requests, row.hits, row.errors, row.total_us) == (3, 1, 1, 2**40 + 107)


def test_the_busiest_are_listed_first_and_other_last() -> None:
    traffic, board = Traffic(), TrafficBoard(top=2)
    for model, n in (("a", 5), ("b", 30), ("c", 20)):
        for _ in range(n):
            traffic.add(model, True, False, 1)
    board.take(traffic)
    board.settle(1.0)
    assert [(row.model, row.requests) for row in board.rows()] == [("b", 30), ("c", 20), (OTHER, 5)]


def test_a_new_favourite_replaces_the_least_busy_and_begins_at_zero() -> None:
    traffic, board = Traffic(), TrafficBoard(top=1)
    for now_s, model, n in ((0.0, "old", 10), (0.0, "new", 3), (60.0, "new", 50)):
        for _ in range(n):
            traffic.add(model, False, False, 1)
        board.take(traffic)
        board.settle(now_s)
    rows = by_model(board)
    assert set(rows) == {"new", OTHER}
    assert rows["new"].requests == 50  # what came before it was listed stays where it was booked
    assert rows["new"].listed_at_s == 60.0
    assert rows[OTHER].requests == 3
    assert board.total().requests == 63


def test_a_challenger_needs_a_clear_lead_so_that_rows_do_not_flicker() -> None:
    traffic, board = Traffic(), TrafficBoard(top=1)
    for model, n in (("first", 100), ("second", 110)):
        for _ in range(n):
            traffic.add(model, True, False, 1)
        board.take(traffic)
        board.settle(0.0)
    assert "first" in by_model(board)


def test_rates_fade_when_traffic_stops() -> None:
    traffic, board = Traffic(), TrafficBoard(top=1)
    for now_s in range(600):
        for _ in range(10):
            traffic.add("a", True, False, 1)
        board.take(traffic)
        board.settle(float(now_s))
    assert 9 < by_model(board)["a"].requests_per_s < 11
    board.settle(660.0)
    assert 4 < by_model(board)["a"].requests_per_s < 6


def test_invented_names_fill_neither_a_threads_pages_nor_the_board() -> None:
    traffic, board = Traffic(), TrafficBoard(top=10)
    n = NAMES_PER_PAGE * MAX_PAGES * 3
    for i in range(n):
        traffic.add(f"invented-{i}", False, True, 1)
    assert sum(len(page) for page in traffic.pages) <= NAMES_PER_PAGE * MAX_PAGES + 1
    board.take(traffic)
    board.settle(1.0)
    assert len(traffic.pages) == 1
    for i in range(n):
        traffic.add(f"more-{i}", False, True, 1)
    board.take(traffic)
    board.settle(2.0)
    assert len(board._scores) <= MAX_SCORED
    assert board.total().requests == 2 * n


def test_a_model_named_other_does_not_make_a_second_row() -> None:
    traffic, board = Traffic(), TrafficBoard(top=10)
    traffic.add(OTHER, True, False, 1)
    board.take(traffic)
    board.settle(1.0)
    assert [row.model for row in board.rows()] == [OTHER]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.booleans(), st.booleans()), max_size=800),
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.integers(1, 5),
)
def test_every_request_is_attributed_exactly_once(
    requests: list[tuple[int, bool, bool]], reads: list[int], top: int
) -> None:
    """However requests and readings interleave, rows and departed rows add up to what was recorded."""
    traffic, board = Traffic(), TrafficBoard(top)
    every = max(1, len(requests) // len(reads))
    for i, (name, is_hit, is_error) in enumerate(requests):
        traffic.add(f"m{name}", is_hit, is_error, name)
        if i % every == 0:
            board.take(traffic)
            board.settle(float(i))
    board.take(traffic)
    board.settle(1e6)
    total = board.total()
    assert total.requests == len(requests)
    assert total.hits == sum(is_hit for _, is_hit, _ in requests)
    assert total.errors == sum(is_error for _, _, is_error in requests)
    assert total.total_us == sum(name for name, _, _ in requests)
    exact = Counter(f"m{name}" for name, _, _ in requests)
    rows = [row for row in board.rows() if row.model != OTHER]
    assert len(rows) <= top
    assert all(row.requests <= exact[row.model] for row in rows)
