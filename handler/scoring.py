"""From a body to scores and from scores to an answer: what a request asks of a model once it has one.

    body -> decode -> rows that fit the model -> predict -> encode -> answer

Rule: values in, values out. The model is the caller's for as long as it takes; no cache, no store and no clock but the
marks that say how long each stage took.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

from handler.bounds import Blocks, Bounds, Visit
from handler.errors import PayloadInvalid
from handler.forest.model import Forest
from handler.libxgboost import Floats, Kind, XGBoostError
from handler.messages import Request
from handler.outputs import plan_outputs
from handler.payload import OURS, Conventions, Predictions, around_scores, decode, encode, fit_rows
from handler.payload.decode import FORMS, stated_shape
from handler.predictor import Facts, FoldsDisagree, Iterations, Scorer

# Read and scored within milliseconds, whatever is in it.
LIGHT_BODY_BYTES = 8 << 10
# They need none.
NO_FLOOR: AbstractContextManager[None] = nullcontext()


class Scored(NamedTuple):
    """An answer, and when its body had been read and its rows been scored (perf_counter_ns)."""

    body: bytes
    media_type: str
    decoded: int
    predicted: int


class NotBrief(Exception):
    """Instead of scores that take more than next to nothing, for who did not want to wait."""


class Scoring(Protocol):
    """How an endpoint scores. Called from many threads at once.

    is_slow   no request is answered so fast that a thread of its own would not be worth it
    """

    @property
    def is_slow(self) -> bool: ...
    def media_type(self, accept: str | None) -> str:
        """What the answer will be; asked before a model is. Raises AcceptUnsupported."""
        ...

    def score(
        self,
        request: Request,
        target: str,
        model: Scorer,
        outputs: tuple[str, ...],
        media_type: str,
        iterations: Iterations | None = None,
        *,
        is_brief: bool = False,
    ) -> Scored:
        """is_brief   only when it takes next to nothing, whatever is in the body; raises NotBrief otherwise"""
        ...


class PlainScoring:
    """Ours, without code of the endpoint's own.

    bounds   what a request may take; None for whatever it likes
    """

    is_slow = False

    def __init__(self, conventions: Conventions = OURS, bounds: Bounds | None = None) -> None:
        self._conventions = conventions
        self._bounds = bounds
        self._around = around_scores(conventions)

    def media_type(self, accept: str | None) -> str:
        return self._conventions.media_type(accept)

    def score(
        self,
        request: Request,
        target: str,
        model: Scorer,
        outputs: tuple[str, ...],
        media_type: str,
        iterations: Iterations | None = None,
        *,
        is_brief: bool = False,
    ) -> Scored:
        del target  # for code of the endpoint's own
        is_light = len(request.body) <= LIGHT_BODY_BYTES and not outputs
        if is_light and iterations is None and isinstance(model, Forest):
            form, around = FORMS.get(request.headers.get("content-type", "")), self._around.get(media_type)
            if form is not None and around is not None:
                began = time.perf_counter_ns()
                text = model.score_brief(request.body, form, around)
                if text is not None:
                    return Scored(text, media_type, began, time.perf_counter_ns())
        if is_brief:
            raise NotBrief
        bounds = self._bounds
        if bounds is None or is_light:
            return self._score(request, model, outputs, media_type, iterations, None)
        with bounds.visit(request.is_wanted) as visit:
            return self._score(request, model, outputs, media_type, iterations, visit)

    def _score(
        self,
        request: Request,
        model: Scorer,
        outputs: tuple[str, ...],
        media_type: str,
        iterations: Iterations | None,
        visit: Visit | None,
    ) -> Scored:
        content_type = request.headers.get("content-type", "")
        if visit is not None:
            n_rows, n_columns = stated_shape(request.body, content_type)
            if n_columns == model.facts.n_features:  # else that is what is wrong with it
                n_numbers = 1 if outputs else model.facts.n_outputs  # of outputs there is one at least
                visit.allow_answer(n_rows, n_numbers, ", ".join(outputs) or "scores")
            visit.reads(len(request.body), content_type)
        with NO_FLOOR if visit is None else visit.floor:
            values = read_rows(request.body, content_type, model.facts, self._conventions)
        decoded = time.perf_counter_ns()
        predictions = predict(model, values, outputs, iterations, visit)
        predicted = time.perf_counter_ns()
        with NO_FLOOR if visit is None else visit.floor:
            text = encode(predictions, media_type, self._conventions)
        return Scored(text, media_type, decoded, predicted)


def parse_iterations(text: str) -> Iterations:
    """Raises PayloadInvalid for what is neither all nor best."""
    try:
        return Iterations(text.lower())
    except ValueError as error:
        raise PayloadInvalid("", f"Iterations={text[:40]!r} is neither all nor best") from error


def read_rows(body: bytes, content_type: str, facts: Facts, conventions: Conventions = OURS) -> Floats:
    """The rows of a body as the model takes them.

    returns  float32, C-contiguous, (n_rows, n_features)
    raises   ContentTypeUnsupported, PayloadInvalid, FeatureMismatch
    """
    may_be_short = conventions.is_aws
    rows = decode(body, content_type, facts.n_features, may_be_short=may_be_short)
    return fit_rows(rows, facts, is_positional=conventions.is_positional, may_be_short=may_be_short)


def predict(
    model: Scorer,
    values: Floats,
    outputs: tuple[str, ...] = (),
    iterations: Iterations | None = None,
    visit: Visit | None = None,
) -> Predictions:
    """What was asked for of rows that fit the model; no outputs are the plain score, no iterations the model's own way.

    visit    the request's bounds, asked before anything is computed
    raises   PayloadInvalid, IterationsUndecided, TooMuchWork, NoRoom, Unavailable, CallerGone
    """
    if visit is None and not outputs:
        return Predictions(model.predict(values, iterations=iterations))
    plan = plan_outputs(outputs, model.facts.objective, model.facts.n_outputs, model.facts.labels) if outputs else None
    kinds = [Kind.VALUE] if plan is None else [Kind[kind.upper()] for kind in plan.kinds]
    blocks: Blocks | None = None
    if visit is not None:
        cost = model.cost
        n_numbers = (
            model.facts.n_outputs if plan is None else plan.numbers_per_row(model.facts.n_features, cost.n_trees)
        )
        row_s = sum(cost.row_s(kind) for kind in kinds)
        blocks = visit.answers(
            len(values), n_numbers, values.itemsize * values.shape[1], row_s, ", ".join(outputs) or "scores"
        )
    if plan is None:
        return Predictions(model.predict(values, Kind.VALUE, iterations, blocks))
    plan.check_size(len(values), model.facts.n_features)
    try:
        raw = {
            name: model.predict(values, kind, iterations, blocks) for name, kind in zip(plan.kinds, kinds, strict=True)
        }
    except (XGBoostError, FoldsDisagree) as error:  # a linear booster has no leaves, for one
        raise PayloadInvalid("", f"this model cannot give {', '.join(outputs)}: {error}") from error
    return plan.answer(raw)
