"""Hyperparameters from files and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from container.operate.train.parameters import Parameters, read
from container.operate.troubles import Misused


def test_the_last_pattern_that_matches_wins(tmp_path: Path) -> None:
    file = tmp_path / "params.toml"
    file.write_text('eta = 0.2\nnum_round = 30\n[us/*]\nmax_depth = 7\n["us/H*"]\nmax_depth = 3\nlambda = 2\n')
    made = read(file, ["learning_rate=0.5"], [], None)
    (other,) = made.of("eu/Hull.tar.gz")
    (dallas,) = made.of("us/Dallas_TX.tar.gz")
    (houston,) = made.of("us/Houston_TX.tar.gz")
    assert dict(other.booster) == {"eta": "0.5", "objective": "reg:squarederror", "seed": 0}
    assert dict(dallas.booster)["max_depth"] == 7
    assert (dict(houston.booster)["max_depth"], dict(houston.booster)["lambda"]) == (3, 2)
    assert other.n_rounds == 30
    assert other.stops_after is None


def test_json_and_any_order_ask_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"us/*": {"subsample": 0.5, "eta": 0.1}, "max_depth": 4}')
    (tmp_path / "b.toml").write_text('max_depth = 4\n["us/*"]\neta = 0.1\nsubsample = 0.5\n')
    assert read(tmp_path / "a.json", [], [], None) == read(tmp_path / "b.toml", [], [], None)


def test_a_search_is_a_grid_or_drawn_from_one() -> None:
    grid = read(None, [], ["max_depth=3,5", "eta=0.1,0.2,0.3"], None)
    assert len(grid.of("x")) == 6
    drawn = read(None, ["seed=7"], ["max_depth=3,5", "eta=0.1,0.2,0.3"], 4)
    assert len(set(drawn.of("x"))) == 4
    assert drawn == read(None, ["seed=7"], ["max_depth=3,5", "eta=0.1,0.2,0.3"], 4)
    assert drawn.trials != read(None, ["seed=8"], ["max_depth=3,5", "eta=0.1,0.2,0.3"], 4).trials


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["max_deth=3"], "knows no parameter 'max_deth'"),
        (["rate_drop=0.1"], "knows no parameter 'rate_drop'"),
        (["nthread=4"], "by its size"),
        (["objective=survival:cox"], "cannot be judged"),
        (["objective=nonsense"], "cannot be judged"),
        (["max_depth=deep"], "does not take"),
        (["num_round=0"], "whole number"),
        (["num_round=2.5"], "whole number"),
        (["n_estimators=5"], "num_round"),
        (["eta"], "NAME=VALUE"),
        (["objective=multi:softprob"], "does not take"),
        (["objective=binary:logitraw", "early_stopping_rounds=5"], "binary:logistic"),
        (["eta=1", "learning_rate=2"], "two names"),
        (["seed=-1"], "seed=-1 is not a whole number from 0 on"),
        (["random_state=1.5"], "seed=1.5 is not a whole number from 0 on"),
    ],
)
def test_what_xgboost_would_look_past_is_refused(given: list[str], says: str) -> None:
    with pytest.raises(Misused, match=says):
        read(None, given, [], None)


def test_what_a_booster_of_another_kind_takes_passes() -> None:
    read(None, ["booster=dart", "rate_drop=0.1"], [], None)
    read(None, ["objective=multi:softprob", "num_class=3"], [], None)
    read(None, ["objective=reg:tweedie", "tweedie_variance_power=1.3"], [], None)
    read(None, ["booster=gblinear", "lambda=1"], [], None)


def test_a_tweedie_model_is_judged_with_its_own_power() -> None:
    (chosen,) = read(None, ["objective=reg:tweedie", "tweedie_variance_power=1.3"], [], None).of("x")
    assert chosen.metric == "tweedie-nloglik@1.3"


def test_objectives_of_all_segments_are_known() -> None:
    assert Parameters().objectives == {"reg:squarederror"}
    shared = (("objective", "binary:logistic"),)
    assert Parameters(shared, (("a", (("objective", "reg:gamma"),)),)).objectives == {"binary:logistic", "reg:gamma"}
