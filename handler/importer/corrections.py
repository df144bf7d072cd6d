"""Where XGBoost 3.2 would answer differently from the release that wrote the booster, and what is changed so that it
does not.

Rule: a wrong number is the one outcome that is not allowed. What cannot be corrected is refused with the reason.

    what                                    releases     in 3.2 without us                 here
    old names of objectives                 0.90         unknown objective                 renamed
    base_score is a margin                  before 1.0   taken for a prediction            link inverted
    base_score of binary:logitraw           before 1.3.1 no longer put through logit       logit applied; refused where
                                                                                           only "1.3" is known
    base_score of gblinear, or no trees     before 1.5.2 replaced by 0.5                   boost_from_average = 0
    base_score of logistic below 1e-6       before 3.1   clipped to 1e-6                   refused
    base_score in JSON has six decimals     1.0, 1.1     a rounded number                  refused where it shows
    num_parallel_tree is not beside trees   before 1.6   1, so rounds are miscounted       found elsewhere
    right child is not left child + 1       before 1.3   never looked at                   refused
    names f0, f1, ... made up by DMatrix    before 1.4   rows without names are refused    dropped
    dart                                    before 1.0   -                                 refused: see below

Release 0.90 drops trees at random when a dart booster predicts, and after loading it does so from uninitialised
memory: two calls give two answers, so there is none to be faithful to.

Checked and equal in all releases from 0.90 on: the links of reg:squarederror, reg:logistic, binary:logistic,
binary:hinge, multi:softmax, multi:softprob, count:poisson, survival:cox, survival:aft, reg:gamma, reg:tweedie,
reg:squaredlogerror, reg:pseudohubererror, reg:absoluteerror, reg:quantileerror and rank:*; how a row walks a tree;
how dart weighs trees from 1.0 on. What is not the booster's but its wrapper's, early stopping first, is in
predicting.py.

Source: XGBoost src/objective/*.cu and regression_loss.h, src/learner.cc, src/gbm/gbtree.cc at the tags v0.90 to v3.2.0.
"""

from __future__ import annotations

import numpy as np

from handler.importer import predicting
from handler.importer.broken import Damaged, Unsupported
from handler.importer.document import NUMBER, iterations
from handler.importer.learner import Array, Learner

OLD_NAMES = {
    "reg:linear": "reg:squarederror",
    "gpu:reg:linear": "reg:squarederror",
    "gpu:reg:logistic": "reg:logistic",
    "gpu:binary:logistic": "binary:logistic",
    "gpu:binary:logitraw": "binary:logitraw",
}
LOGISTIC = {"reg:logistic", "binary:logistic"}
LOG_LINK = {"count:poisson", "survival:cox", "survival:aft", "reg:gamma", "reg:tweedie"}
SOFTMAX = {"multi:softmax", "multi:softprob"}
RANKING = {"rank:pairwise", "rank:ndcg", "rank:map"}
IDENTITY = {
    "reg:squarederror",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
    "binary:logitraw",
    "binary:hinge",
}
OBJECTIVES = LOGISTIC | LOG_LINK | SOFTMAX | RANKING | IDENTITY

# The parameters XGBoost 3.2 wants to see when it loads an objective, with its defaults. None of them moves a
# prediction but num_class, and num_class must be the booster's own.
PARAMS: dict[str, dict[str, dict[str, str]]] = {
    "count:poisson": {"poisson_regression_param": {"max_delta_step": "0.7"}},
    "reg:tweedie": {"tweedie_regression_param": {"tweedie_variance_power": "1.5"}},
    "survival:aft": {"aft_loss_param": {"aft_loss_distribution": "normal", "aft_loss_distribution_scale": "1"}},
    "reg:pseudohubererror": {"pseudo_huber_param": {"huber_slope": "1"}},
    "reg:quantileerror": {"quantile_loss_param": {"quantile_alpha": "[0.5]"}},
}
PARAMS |= {
    name: {"reg_loss_param": {"scale_pos_weight": "1"}}
    for name in LOGISTIC | {"reg:squarederror", "binary:logitraw", "reg:gamma"}
}
ROUNDING = 1e-5  # relative, or of a margin: what we call the same answer
CLIP = np.float32(1e-6)  # kRtEps: LogisticRegression::ProbToMargin of 3.1 and later


def correct(learner: Learner) -> list[str]:
    """Change the Learner in place; the sentences say what was changed.

    raises   Unsupported for an objective we do not know or a difference that cannot be undone; Damaged for a base_score
             its objective cannot have
    """
    made: list[str] = []
    _name_objective(learner, made)
    if learner.booster == "dart" and learner.is_margin_base:
        raise Unsupported("it is a dart booster of a release before 1.0, which drops trees at random when it predicts")
    _correct_base_score(learner, made)
    _size_forest(learner, made)
    _drop_made_up_names(learner, made)
    learner.objective_params = _params(learner)
    return made


def _name_objective(learner: Learner, made: list[str]) -> None:
    new = OLD_NAMES.get(learner.objective)
    if new is not None:
        made.append(f"objective {learner.objective} is now called {new}")
        learner.objective = new
    if learner.objective not in OBJECTIVES:
        raise Unsupported(f"objective {learner.objective[:60]!r} is not one this endpoint knows how to answer")
    if learner.objective in SOFTMAX and learner.num_class < 1:
        raise Damaged(f"objective {learner.objective} has {learner.num_class} classes")


def _correct_base_score(learner: Learner, made: list[str]) -> None:
    objective, stored = learner.objective, learner.base_score
    if not np.isfinite(stored).all():
        raise Damaged("base_score is not finite")
    if learner.is_margin_base:
        learner.base_score = _inverse_link(objective, stored)
        if objective in LOGISTIC | LOG_LINK:
            made.append(
                f"base_score {_shown(stored)} is a margin before release 1.0; it is {_shown(learner.base_score)} now"
            )
    elif objective == "binary:logitraw" and (learner.release is None or learner.release < (1, 3, 1)):
        if learner.release is None or learner.release == (1, 3):
            raise Unsupported(
                "binary:logitraw means another base_score up to XGBoost 1.3.0 than from 1.3.1 on, "
                "and it is unknown which of them wrote this"
            )
        if not ((stored > 0) & (stored < 1)).all():
            raise Damaged(f"base_score {_shown(stored)} of binary:logitraw is not between 0 and 1")
        learner.base_score = _logit(stored)
        made.append(
            f"base_score {_shown(stored)} is a probability in binary:logitraw before release 1.3.1; "
            f"it is {_shown(learner.base_score)} now"
        )
    _check_base_score(objective, learner)


def _size_forest(learner: Learner, made: list[str]) -> None:
    """Rounds, which best_iteration counts, hold num_parallel_tree trees for each output."""
    trees = learner.trees
    if trees is None or trees.n_parallel != 1 or not (learner.release is None or learner.release < (1, 6)):
        return
    size = learner.forest_size or predicting.forest_size(learner) or _repeated(trees.group, learner.n_groups)
    if size is None:
        learner.is_forest_size_unknown = True
    elif size > 1 and trees.n_trees and trees.n_trees % (size * learner.n_groups) == 0:
        trees.n_parallel = size
        trees.iteration_starts = iterations(trees.n_trees, size, learner.n_groups)
        made.append(f"num_parallel_tree is {size}, which releases before 1.6 do not write beside the trees")


def _repeated(group: Array, n_groups: int) -> int | None:
    """How many trees in a row add to the same output, which with several outputs is num_parallel_tree."""
    if n_groups < 2 or not len(group):
        return None
    size = int(np.argmax(group != group[0])) or len(group)
    is_regular = len(group) % (size * n_groups) == 0 and np.array_equal(
        group, np.tile(np.repeat(np.arange(n_groups), size), len(group) // (size * n_groups))
    )
    return size if is_regular else None


def _check_rounding(objective: str, learner: Learner) -> None:
    """std::to_string wrote six decimals; where all are used and the value is small, digits that matter may be gone."""
    value = learner.base_score.astype(np.float64)
    slope = 1 / (value * (1 - value)) if objective in LOGISTIC else 1 / np.abs(value)
    if ((np.round(value * 1e6) % 10 != 0) & (5e-7 * slope > ROUNDING)).any():
        raise Unsupported(
            f"base_score {_shown(value)} was rounded to six decimals by XGBoost 1.0 or 1.1; save it in another format"
        )


def _check_base_score(objective: str, learner: Learner) -> None:
    value = learner.base_score
    if objective in LOGISTIC:
        if not ((value >= 0) & (value <= 1)).all():
            raise Damaged(f"base_score {_shown(value)} of {objective} is not between 0 and 1")
        clips = ((value < CLIP) | (value > 1 - CLIP)).any()
        if clips and (learner.release is None or learner.release < (3, 1)):
            raise Unsupported(
                f"base_score {_shown(value)} of {objective} is so close to 0 or 1 that XGBoost 3.2 would clip it"
            )
    if objective in LOG_LINK and not (value > 0).all():
        raise Damaged(f"base_score {_shown(value)} of {objective} is not above 0")
    if learner.is_rounded_base:
        with np.errstate(divide="ignore"):
            _check_rounding(objective, learner)


def _inverse_link(objective: str, margin: Array) -> Array:
    """The base_score whose link is `margin`, to the last bit that float32 allows."""
    if objective in LOG_LINK:
        with np.errstate(over="ignore"):
            return np.exp(margin.astype(np.float64)).astype(np.float32)
    if objective not in LOGISTIC:
        return margin
    value = (1 / (1 + np.exp(-margin.astype(np.float64)))).astype(np.float32)
    # Near 1 neighbouring float32 are far apart as margins; the one that was meant is among the next few.
    step = np.spacing(value)
    candidates = value + step * np.arange(-4, 5, dtype=np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.abs(_logit(candidates) - margin)
    nearest: Array = candidates[np.nanargmin(distance, axis=0), np.arange(len(value))]
    return nearest


def _logit(value: Array) -> Array:
    """-log(1 / p - 1), in float32 as XGBoost computes it."""
    one = np.float32(1)
    return (-np.log(one / value - one)).astype(np.float32)


def _drop_made_up_names(learner: Learner, made: list[str]) -> None:
    """Before 1.4 a DMatrix without names called its columns f0, f1, ..., and pickles kept that."""
    before = learner.release is None or learner.release < (1, 4)
    if (
        before
        and learner.feature_names
        and learner.feature_names == tuple(f"f{i}" for i in range(len(learner.feature_names)))
    ):
        learner.feature_names = ()
        learner.feature_types = tuple(kind for kind in learner.feature_types if set(learner.feature_types) & {"c"})
        made.append("feature names f0, f1, ... were made up by XGBoost before 1.4; dropped")


def _params(learner: Learner) -> dict[str, dict[str, str]]:
    """The objective's parameters for 3.2: what the file says where it is a number, the default elsewhere."""
    if learner.objective in SOFTMAX:
        return {"softmax_multiclass_param": {"num_class": str(learner.num_class)}}
    return {
        group: {name: _stated(learner, group, name, default) for name, default in defaults.items()}
        for group, defaults in PARAMS.get(learner.objective, {}).items()
    }


def _stated(learner: Learner, group: str, name: str, default: str) -> str:
    stated = learner.objective_params.get(group, {}).get(name, default)
    if name == "aft_loss_distribution":
        return stated if stated in ("normal", "logistic", "extreme") else default
    if name == "quantile_alpha":
        items = stated.strip("[]() ").split(",")
        numbers = [item for item in items if NUMBER.fullmatch(item.strip()) and 0 <= float(item) <= 1]
        return "[" + ",".join(map(str.strip, numbers)) + "]" if len(numbers) == len(items) else default
    return stated if NUMBER.fullmatch(stated) else default


def _shown(values: Array) -> str:
    return ", ".join(map(str, values[:3].tolist()))
