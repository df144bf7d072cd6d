"""The other story, as a person runs it: the endpoint sleeps, is woken, and answers what XGBoost ranks first."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import xgboost

from container.operate.demo import zero
from tests.rig.command import Command


def test_it_sleeps_wakes_and_shows_what_the_models_say(run: Callable[..., Command]) -> None:
    command = run("demo", "--zero", "--once", "--json", "--speed", "400")
    assert command.wait() == 0, command.trouble
    facts = json.loads(command.output)
    assert "Inference Component has no capacity to process this request." in command.trouble
    assert "as XGBoost's own predict ranks them" in command.trouble
    shown = facts["shown"]
    assert len(shown) == zero.N_ASKED
    for one in shown:
        model = zero.train_group(one["group"])
        rows = xgboost.DMatrix(zero.rows_of(one["user"]))
        scores = model.predict(rows)
        assert one["items"] == [int(item) for item in (-scores).argsort(kind="stable")[: zero.N_SHOWN]]
    ways = facts["ways"]
    assert 0 < facts["asleep_usd"] < 1
    assert ways["batch_usd"] < ways["zero_usd"] < ways["always_usd"]
    command.assert_nothing_is_left()


def test_ctrl_c_while_the_platform_starts_containers_ends_it_at_the_first_press(run: Callable[..., Command]) -> None:
    command = run("demo", "--zero", "--speed", "400")
    command.wait_for("applied")
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.trouble
    assert command.trouble == ""
    command.assert_nothing_is_left()


def test_what_does_not_go_together_is_refused(run: Callable[..., Command]) -> None:
    assert run("demo", "--speed", "60").wait() == 2
    assert run("demo", "--zero", "--speed", "0").wait() == 2
    assert run("demo", "--zero", "--loop").wait() == 2
