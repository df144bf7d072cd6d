"""Hyperparameters by XGBoost's own names: one set for all segments, others for some by pattern, several to try.

    eta = 0.1                       TOML, or the same as JSON
    num_round = 200
    early_stopping_rounds = 20

    [us/*]                          for segments of these targets, over what stands above; the last that matches wins
    max_depth = 7

Rule: what XGBoost would look past is refused, and so is what this command decides itself. How many rounds there are is
`num_round`, the name that SageMaker's own images know.
"""

from __future__ import annotations

import itertools
import json
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container.operate.train.metrics import OBJECTIVES
from container.operate.troubles import Misused
from handler.patterns import Patterns

Value = str | int | float
Values = tuple[tuple[str, Value], ...]

N_ROUNDS, EARLY_STOPPING, SEED = "num_round", "early_stopping_rounds", "seed"
DEFAULTS: Mapping[str, Value] = {"objective": "reg:squarederror", SEED: 0, N_ROUNDS: 100}
_ROUNDS_OTHERWISE = ("num_boost_round", "n_estimators")
# What the command decides: threads by size, so that a model's bytes are of its data alone; and answers are judged here.
_OURS = {
    "nthread": "a segment's threads are chosen by its size",
    "n_jobs": "a segment's threads are chosen by its size",
    "device": "segments are trained on the processor's cores",
    "eval_metric": "use --metrics",
    "disable_default_eval_metric": "use --metrics",
    "process_type": "models are trained anew",
    "updater": "use tree_method",
    "validate_parameters": "parameters are always checked",
}
# XGBoost's own second names, which its configuration writes as the first.
_ALIASES = {
    "learning_rate": "eta",
    "min_split_loss": "gamma",
    "reg_lambda": "lambda",
    "reg_alpha": "alpha",
    "random_state": SEED,
}
MAX_TRIALS = 1000


@dataclass(frozen=True, slots=True)
class Chosen:
    """One segment's. booster: for XGBoost, by name. stops_after: so many rounds without a better one; None for never."""

    booster: Values
    n_rounds: int
    stops_after: int | None

    @property
    def objective(self) -> str:
        return str(dict(self.booster)["objective"])

    @property
    def seed(self) -> int:
        return int(dict(self.booster)[SEED])

    @property
    def n_classes(self) -> int:
        return int(dict(self.booster).get("num_class", 0))

    @property
    def metric(self) -> str:
        """What its objective is judged by."""
        power = dict(self.booster).get("tweedie_variance_power")
        if self.objective == "reg:tweedie" and power is not None:
            return f"tweedie-nloglik@{power}"
        return OBJECTIVES[self.objective][1]


@dataclass(frozen=True, slots=True)
class Parameters:
    """shared: of all segments. overrides: pattern and what it changes. trials: what is tried for each, over both; none where
    there is nothing to search."""

    shared: Values = ()
    overrides: tuple[tuple[str, Values], ...] = ()
    trials: tuple[Values, ...] = ()

    def of(self, key: str) -> tuple[Chosen, ...]:
        """What is to be tried for a segment: one, or several."""
        values: dict[str, Value] = {**DEFAULTS, **dict(self.shared)}
        for pattern, over in self.overrides:
            if Patterns([pattern]).match(key):
                values |= over
        return tuple(_chosen({**values, **dict(trial)}) for trial in self.trials or ((),))

    @property
    def objectives(self) -> frozenset[str]:
        """Of all segments there could be."""
        sets = [self.shared, *(over for _, over in self.overrides), *self.trials]
        named = {str(dict(one)["objective"]) for one in sets if "objective" in dict(one)}
        return frozenset(named if "objective" in dict(self.shared) else {*named, str(DEFAULTS["objective"])})

    def check(self) -> None:
        """Raises Misused for what XGBoost does not know, or cannot do."""
        for _, over in (("", self.shared), *self.overrides):
            for trial in self.trials or ((),):
                values = {**DEFAULTS, **dict(self.shared), **dict(over), **dict(trial)}
                chosen = _chosen(values)
                if chosen.objective not in OBJECTIVES:
                    known = ", ".join(OBJECTIVES)
                    raise Misused(f"objective {chosen.objective!r} cannot be judged here; there are {known}")
                if chosen.stops_after is not None and chosen.objective == "binary:logitraw":
                    # Its loss is a logarithm of margins, which says nothing of when to stop.
                    raise Misused(f"{EARLY_STOPPING} with binary:logitraw: use binary:logistic")
                _ask_xgboost(chosen)


def read(file: Path | None, given: Sequence[str], search: Sequence[str], n_trials: int | None) -> Parameters:
    """What the command line says. given: NAME=VALUE, over the file. search: NAME=VALUE,VALUE. Raises Misused."""
    shared, overrides = ({}, ()) if file is None else _of_file(file)
    flags = [_pair(one) for one in given]
    if len(dict(flags)) < len(flags):
        raise Misused(f"one parameter twice: {' '.join(given)}")
    values = {**dict(_values(shared)), **dict(_values(dict(flags)))}
    seed = _whole(SEED, values.get(SEED, DEFAULTS[SEED]), least=0)
    made = Parameters(_values(values), overrides, _trials(search, n_trials, seed))
    made.check()
    return made


def _of_file(file: Path) -> tuple[dict[str, Value], tuple[tuple[str, Values], ...]]:
    try:
        text = file.read_text()
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(_with_quoted_heads(text))
    except OSError as error:
        raise Misused(f"--params {file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Misused(f"--params {file}: {error}") from error
    shared = {name: value for name, value in found.items() if not isinstance(value, dict)}
    overrides = tuple((name, _values(value)) for name, value in found.items() if isinstance(value, dict))
    for name, value in [*shared.items(), *(pair for _, over in overrides for pair in over)]:
        if not isinstance(value, str | int | float):
            raise Misused(f"--params {file}: {name} is neither a number nor a text")
    return shared, overrides


def _with_quoted_heads(text: str) -> str:
    """`[us/*]` as TOML wants it, `["us/*"]`."""
    lines = []
    for line in text.splitlines():
        head = line.strip()
        is_plain = head.startswith("[") and head.endswith("]") and head[1:2] not in ('"', "'", "[")
        lines.append(f"[{json.dumps(head[1:-1].strip())}]" if is_plain else line)
    return "\n".join(lines)


def _pair(text: str) -> tuple[str, str]:
    name, is_there, value = text.partition("=")
    if not is_there or not name.strip():
        raise Misused(f"{text!r} is not NAME=VALUE")
    return name.strip(), value.strip()


def _values(values: Mapping[str, Value]) -> Values:
    """In the order of names, so that who writes them in another order asks the same."""
    named = {_ALIASES.get(name, name): value for name, value in values.items()}
    if len(named) < len(values):
        raise Misused(f"one parameter under two names: {', '.join(sorted(values))}")
    return tuple(sorted((name, int(value) if isinstance(value, bool) else value) for name, value in named.items()))


def _trials(search: Sequence[str], n_trials: int | None, seed: int) -> tuple[Values, ...]:
    """All combinations, or so many of them drawn with the seed."""
    if not search:
        if n_trials is not None:
            raise Misused("--trials: of what? say --search NAME=VALUE,VALUE")
        return ()
    ways = [(name, [one.strip() for one in values.split(",") if one.strip()]) for name, values in map(_pair, search)]
    if not all(values for _, values in ways):
        raise Misused(f"--search {' '.join(search)}: write NAME=VALUE,VALUE")
    n_all = 1
    for _, values in ways:
        n_all *= len(values)
    if (n_trials or n_all) > MAX_TRIALS or n_all > MAX_TRIALS**2:
        raise Misused(f"--search makes {n_all:,} combinations; --trials N draws some of them, {MAX_TRIALS:,} at most")
    every = list(itertools.product(*(values for _, values in ways)))
    if n_trials is not None and n_trials < len(every):
        if n_trials < 1:
            raise Misused("--trials: at least one")
        every = random.Random(seed).sample(every, n_trials)  # noqa: S311  the same for the same seed
    names = [name for name, _ in ways]
    if "objective" in names:
        raise Misused("--search: models of different objectives cannot be compared")
    return tuple(_values(dict(zip(names, one, strict=True))) for one in every)


def _chosen(values: Mapping[str, Value]) -> Chosen:
    for name in values:
        if name in _OURS:
            raise Misused(f"{name}: {_OURS[name]}")
        if name in _ROUNDS_OTHERWISE:
            raise Misused(f"{name}: it is called {N_ROUNDS} here")
    _whole(SEED, values[SEED], least=0)  # rows are kept apart with it as well, and NumPy takes no other
    stops_after = values.get(EARLY_STOPPING)
    rest = {name: value for name, value in values.items() if name not in (N_ROUNDS, EARLY_STOPPING)}
    return Chosen(
        _values(rest),
        _whole(N_ROUNDS, values[N_ROUNDS], least=1),
        None if stops_after is None else _whole(EARLY_STOPPING, stops_after, least=1),
    )


def _whole(name: str, value: Value, *, least: int) -> int:
    try:
        number = int(value)
    except (ValueError, OverflowError):
        number = least - 1
    if number < least or float(value) != number:
        raise Misused(f"{name}={value} is not a whole number from {least} on")
    return number


def _ask_xgboost(chosen: Chosen) -> None:
    """Configure a booster of one row with them: what its configuration does not show, XGBoost has looked past."""
    import numpy as np
    import xgboost

    matrix = xgboost.DMatrix(np.zeros((1, 1), np.float32), np.zeros(1), nthread=1)
    try:
        booster = xgboost.Booster({**dict(chosen.booster), "nthread": 1, "verbosity": 0}, [matrix])
        known = frozenset(_names(json.loads(booster.save_config())))
    except (xgboost.core.XGBoostError, ValueError, RecursionError) as error:
        raise Misused(f"XGBoost does not take these parameters: {why(error)}") from error
    unknown = [name for name, _ in chosen.booster if name not in known and name not in ("verbosity", "num_class")]
    if unknown:
        raise Misused(f"XGBoost knows no parameter {', '.join(map(repr, unknown))} with {chosen.objective}")


def _names(config: Any) -> list[str]:
    if isinstance(config, dict):
        return [name for key, value in config.items() for name in (key, *_names(value))]
    return [name for one in config for name in _names(one)] if isinstance(config, list) else []


def why(error: Exception) -> str:
    """XGBoost's reason without its stack."""
    text = str(error).split("\nStack trace", 1)[0].strip()
    return text.split(": ", 1)[-1].strip() if text.startswith("[") else text
