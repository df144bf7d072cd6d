"""What a wrapper, or a file it saved, says about predicting, beyond the trees.

Rule: each artifact answers as the `predict` of whatever wrote it would, in its own release; where two releases that
cannot be told apart differ, nobody is guessed for: see `Predicting.is_undecided`.

    who wrote it                                   rounds it answers with
    XGBModel, XGBRegressor, XGBClassifier, XGBRF*  up to the best, from 0.80 on; all in 0.72
    XGBRanker                                      up to the best from 1.4 on; all before
    Booster pickled by 0.72 to 1.7                 up to the best: AWS's images 0.90-2 to 3.0-5 read best_ntree_limit
    Booster saved by 1.4 to 1.7                    up to the best: AWS's images 1.5-1 and 1.7-1 read best_ntree_limit
    Booster saved before 1.4                       all: load_model brings no best_ntree_limit back, in any image
    Booster of 2.0 and later, saved or pickled     all: there is no best_ntree_limit, and AWS's image 3.0-5 looks for it
    gblinear                                       all, in every release

What a wrapper holds besides: `missing`, which its predict takes for missing as well; the labels of its encoder (up to
1.5; from 1.6 on labels are 0, 1, 2, ...). Nothing else of its state moves its answer: base_score, objective and names
are the Booster's, base_margin and iteration_range come with a call, enable_categorical tells how a DataFrame is coded.

Source: XGBoost python-package/xgboost/sklearn.py, core.py, training.py, callback.py at the tags v0.72 to v3.2.0; AWS's
sagemaker-xgboost-container, algorithm_mode/serve_utils.py (get_loaded_booster, predict) at v1.0-1 to v3.0-5.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, replace
from typing import Any

from handler.importer.broken import Damaged, Unsupported
from handler.importer.document import WHOLE
from handler.importer.learner import Categories, Label, Learner, Predicting, Wrapper

# Ours, in what `mme convert` writes: a booster of the current release that answers as it did before.
KEPT = "mme_predicting"
SAVED = "scikit_learn"  # XGBModel.save_model, from 1.0 on
MAX_SAVED_CHARS = 1 << 20
MAX_LABELS = 1 << 14  # as many as there may be outputs
_CLASS = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_KINDS = {"regressor": "XGBRegressor", "classifier": "XGBClassifier", "ranker": "XGBRanker"}


def read_saved(learner: Learner) -> None:
    """Take out of the attributes what XGBModel.save_model put there, or we did. Raises Damaged."""
    if KEPT in learner.attributes:
        learner.kept, learner.categories = _kept(learner.attributes.pop(KEPT))
    text = learner.attributes.pop(SAVED, None)
    if text is None or learner.wrapper is not None:
        return
    if len(text) > MAX_SAVED_CHARS:
        raise Unsupported(f"what its scikit-learn wrapper saved has {len(text)} characters")
    try:
        state = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged("what its scikit-learn wrapper saved is no JSON") from error
    if not isinstance(state, dict):
        raise Damaged("what its scikit-learn wrapper saved is no object")
    encoder = state.get("_le")
    kind = state.get("_estimator_type")
    name = state.get("type") or (_KINDS.get(kind) if isinstance(kind, str) else None)
    learner.wrapper = Wrapper(
        name=name if isinstance(name, str) and _CLASS.fullmatch(name) else "XGBModel",
        state=state,
        labels=tuple(encoder["classes_"]) if isinstance(encoder, dict) and _is_list(encoder.get("classes_")) else None,
    )


def forest_size(learner: Learner) -> int | None:
    """num_parallel_tree, by which releases before 2.0 made best_ntree_limit out of best_iteration."""
    wrapper = learner.wrapper
    sources: list[dict[str, Any]] = [learner.attributes, learner.remembered, wrapper.state if wrapper else {}]
    for source in sources:
        best, limit = _whole(source.get("best_iteration")), _whole(source.get("best_ntree_limit"))
        if best is not None and limit and limit % (best + 1) == 0:
            return limit // (best + 1)
    return None


def predicting_of(learner: Learner) -> Predicting:
    """How a corrected Learner's writer predicts.

    raises   Unsupported for labels or a missing value we cannot answer by; Damaged for a note of ours that is none
    """
    if learner.kept is not None:
        n_rounds = len(learner.trees.iteration_starts) - 1 if learner.trees is not None else 0
        is_all = learner.kept.best_rounds is None or learner.kept.best_rounds >= n_rounds
        return replace(learner.kept, best_rounds=None) if is_all else learner.kept
    wrapper = learner.wrapper
    best, why_unknown = _best_rounds(learner)
    stops_early, is_undecided = _stops_early(learner) if best is not None else (False, False)
    return Predicting(
        writer=wrapper.name if wrapper else "Booster",
        best_rounds=best,
        why_unknown=why_unknown,
        stops_early=stops_early,
        is_undecided=is_undecided,
        missing=_missing(wrapper),
        labels=_labels(learner, wrapper),
    )


def note(predicting: Predicting, categories: tuple[Categories, ...]) -> str | None:
    """What a booster of the current release would not say by itself, as the text of the attribute KEPT, which
    `read_saved` reads again; None when there is nothing."""
    told = replace(predicting, writer="", best_rounds=None)
    if told == Predicting(writer="") and not categories:
        return None
    missing = None if predicting.missing is None else repr(predicting.missing)
    return json.dumps({**asdict(predicting), "missing": missing, "categories": categories})


def _kept(text: str) -> tuple[Predicting, tuple[Categories, ...]]:
    wrong = Damaged(f"its attribute {KEPT} is not as mme convert writes it")
    try:
        found = json.loads(text)
        missing, labels, categories = found.pop("missing"), found.pop("labels"), found.pop("categories")
        best = found["best_rounds"]
        kept = Predicting(**found, missing=None if missing is None else float(missing), labels=tuple(labels))
        named: tuple[Categories, ...] = tuple((feature, tuple(names)) for feature, names in categories)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise wrong from error
    if (
        not all(type(words) is str for words in (kept.writer, kept.why_unknown))
        or not all(type(flag) is bool for flag in (kept.stops_early, kept.is_undecided))
        or not (best is None or (type(best) is int and best >= 1))
        or not all(_is_label(label) for label in kept.labels)
        or not all(type(feature) is int and all(map(_is_label, names)) for feature, names in named)
    ):
        raise wrong
    return kept, named


def _best_rounds(learner: Learner) -> tuple[int | None, str]:
    """Rounds up to the best one, None when that is all of them; and why it is not known."""
    trees = learner.trees
    best = best_iteration(learner)
    if trees is None or best is None or best + 1 >= len(trees.iteration_starts) - 1:
        return None, ""
    if learner.is_forest_size_unknown and forest_size(learner) is None:
        return None, "the file does not say how many trees a round has; save the booster with XGBoost 1.6 or later"
    return best + 1, ""


def best_iteration(learner: Learner) -> int | None:
    """From 0, as whoever predicts would find it: the wrapper's own before 1.4, then the Booster's."""
    wrapper = learner.wrapper
    state: dict[str, Any] = wrapper.state if wrapper else {}
    for source in (state, learner.remembered, learner.attributes):
        best = _whole(source.get("best_iteration"))
        if best is not None:
            return best
    return None


def _stops_early(learner: Learner) -> tuple[bool, bool]:
    """Whether its writer's predict does, and whether that is undecided."""
    wrapper, release = learner.wrapper, learner.release
    if learner.booster == "gblinear":
        return False, False
    if wrapper is None:
        is_brought_back = release is not None and (1, 4) <= release < (2, 0)  # by load_model
        return "best_ntree_limit" in (
            learner.attributes | learner.remembered if is_brought_back else learner.remembered
        ), False
    is_before_1_4 = release is None or release < (1, 4)
    if not is_before_1_4:
        return True, False
    if "Ranker" in wrapper.name or "best_ntree_limit" not in wrapper.state:
        return False, False
    # 0.72, 0.80 and 0.81 keep the same fields; 0.72 predicts with all trees. importance_type came with 0.82.
    return True, release is None and "importance_type" not in wrapper.state


def _missing(wrapper: Wrapper | None) -> float | None:
    value = wrapper.state.get("missing") if wrapper else None
    if value is None:
        return None
    if type(value) not in (int, float, bool):
        raise Unsupported(f"its wrapper takes {str(value)[:40]!r} for missing, which is no number")
    return None if math.isnan(value) else float(value)


def _labels(learner: Learner, wrapper: Wrapper | None) -> tuple[Label, ...]:
    if wrapper is None or wrapper.labels is None:
        return ()
    labels = wrapper.labels
    n_classes = max(2, learner.num_class)
    if len(labels) > MAX_LABELS:
        raise Unsupported(f"its wrapper has {len(labels)} labels")
    if not all(_is_label(label) for label in labels) or len(set(map(type, labels))) > 1:
        raise Unsupported("its wrapper's labels are not all numbers or all texts; train it on 0, 1, 2, ...")
    if not all(-(1 << 63) <= label < 1 << 63 for label in labels if type(label) is int):
        raise Unsupported("a label of its wrapper takes more than 64 bits")
    if list(labels) == list(range(len(labels))) and bool not in map(type, labels):
        return ()
    if len(labels) != n_classes and len(labels) > 1:
        raise Unsupported(f"its wrapper has {len(labels)} labels for {n_classes} classes")
    return labels


def _is_label(label: Any) -> bool:
    return type(label) in (str, int, bool) or (type(label) is float and math.isfinite(label))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _whole(value: Any) -> int | None:
    """A count from 0 on, as a number or as the text of one."""
    if type(value) is str and WHOLE.fullmatch(value):
        value = int(value)
    return value if type(value) is int and 0 <= value < 1 << 31 else None
