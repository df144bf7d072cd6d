"""From a body to scores and from scores to an answer: what a request asks of a model once it has one.

    body -> decode -> rows that fit the model -> predict -> encode -> answer

Rule: values in, values out. The model is the caller's for as long as it takes; no cache, no store and no clock but the
marks that say how long each stage took.
"""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from handler.errors import PayloadInvalid
from handler.libxgboost import Floats, Kind, XGBoostError
from handler.messages import Request
from handler.outputs import plan_outputs
from handler.payload import OURS, Conventions, Predictions, decode, encode, fit_rows
from handler.predictor import Facts, FoldsDisagree, Iterations, Scorer


class Scored(NamedTuple):
    """An answer, and when its body had been read and its rows been scored (perf_counter_ns)."""

    body: bytes
    media_type: str
    decoded: int
    predicted: int


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
    ) -> Scored: ...


class PlainScoring:
    """Ours, without code of the endpoint's own."""

    is_slow = False

    def __init__(self, conventions: Conventions = OURS) -> None:
        self._conventions = conventions

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
    ) -> Scored:
        del target  # for code of the endpoint's own
        values = read_rows(request.body, request.headers.get("content-type", ""), model.facts, self._conventions)
        decoded = time.perf_counter_ns()
        predictions = predict(model, values, outputs, iterations)
        predicted = time.perf_counter_ns()
        return Scored(encode(predictions, media_type, self._conventions), media_type, decoded, predicted)


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
    model: Scorer, values: Floats, outputs: tuple[str, ...] = (), iterations: Iterations | None = None
) -> Predictions:
    """What was asked for of rows that fit the model; no outputs are the plain score, no iterations the model's own way.

    raises   PayloadInvalid, IterationsUndecided
    """
    if not outputs:
        return Predictions(model.predict(values, iterations=iterations))
    plan = plan_outputs(outputs, model.facts.objective, model.facts.n_outputs, model.facts.labels)
    plan.check_size(len(values), model.facts.n_features)
    try:
        raw = {kind: model.predict(values, Kind[kind.upper()], iterations) for kind in plan.kinds}
    except (XGBoostError, FoldsDisagree) as error:  # a linear booster has no leaves, for one
        raise PayloadInvalid("", f"this model cannot give {', '.join(outputs)}: {error}") from error
    return plan.answer(raw)
