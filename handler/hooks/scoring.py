"""Models and requests that pass through the endpoint's own code.

    body -> input_fn or ours -> predict_fn or ours -> output_fn or ours -> answer
    document -> model_fn or an xgboost.Booster -> the `model` of predict_fn and transform_fn

Rule: what a hook returns is looked at before ours goes on with it; what does not fit is the hook's fault and says so.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from handler.bounds import Blocks, Bounds, TreeCost, Visit
from handler.errors import HookFailed, PayloadInvalid
from handler.hooks.module import Context, Hooks, call
from handler.libxgboost import Floats, Kind
from handler.loading.loader import PreparedModel
from handler.messages import Request
from handler.payload import OURS, Conventions, Predictions, Rows, decode, encode, fit_rows
from handler.payload.media import CSV, JSON, parse_media_type
from handler.payload.rows import sparse_rows
from handler.predictor import Facts, Iterations, Scorer
from handler.scoring import LIGHT_BODY_BYTES, NotBrief, Scored, predict

MEMBER = "xgboost-model"  # in model_fn's directory; xgboost-model-0, -1, ... for the folds of an ensemble
TEXT_TYPES = (CSV, JSON)  # what the toolkit decodes before it calls a hook
# What an xgboost.Booster takes besides its native part, which is as large as ours: 300 bytes once it has predicted
# (tracemalloc, mean of 50), and a UserModel. Not on the book: for each thread that predicted with it, libxgboost keeps
# a buffer of its largest answer; ours are cut into blocks of SCORES_PER_CALL, a hook's are not.
BYTES_PER_OBJECT = 1024
MAX_MEASURED = 31  # loads by model_fn whose growth is remembered
MAX_CONTENT_TYPE = 256


class UserModel:
    """A model as hooks see it. `object` is what model_fn returned, or an xgboost.Booster, or a list of them.

    turn   to be held while the object predicts: XGBoost says its Booster is safe on many threads for gbtree alone
    """

    __slots__ = ("facts", "object", "turn")

    def __init__(self, object: Any, facts: Facts) -> None:
        self.object = object
        self.facts = facts
        self.turn: AbstractContextManager[Any] = nullcontext() if facts.booster == "gbtree" else threading.Lock()

    @property
    def cost(self) -> TreeCost:
        """Nobody knows: the object is not ours."""
        return TreeCost(0, 0, 0, self.facts.n_features)

    def predict(
        self,
        rows: Floats,
        kind: Kind = Kind.VALUE,
        iterations: Iterations | None = None,
        blocks: Blocks | None = None,  # noqa: ARG002  its cost being unknown, it is never asked in blocks
    ) -> npt.NDArray[Any]:
        """Score rows with the object model_fn made, when there is no predict_fn.

        rows     float32, (n_rows, n_features)
        returns  (n_rows, n_outputs)
        raises   HookFailed
        """
        if iterations is not None:
            raise PayloadInvalid("", "this endpoint has a model_fn of its own, which alone decides which rounds answer")
        if kind is not Kind.VALUE:
            raise PayloadInvalid("", "this endpoint has a model_fn of its own; only the score can be asked for")
        with self.turn:
            return scores_of("model_fn", call("model_fn", self._predict, rows))

    def _predict(self, rows: Floats) -> Any:
        import xgboost

        if isinstance(self.object, xgboost.Booster):
            matrix = xgboost.DMatrix(rows, nthread=1, feature_types=self.object.feature_types)
            return self.object.predict(matrix, validate_features=False)
        if not callable(getattr(self.object, "predict", None)):
            name = type(self.object).__name__
            raise HookFailed("model_fn", 500, f"it gave a {name}, which has no predict(); write a predict_fn too")
        return self.object.predict(rows)

    def close(self) -> None:
        """Let the object go. What is native in it is freed with its last reference."""
        self.object = None


class ObjectMaker:
    """Makes prepared models load as objects for hooks.

    scratch           where model_fn's directory is made, and removed when it has returned
    allocated_bytes   what malloc has given out in this process
    """

    def __init__(self, hooks: Hooks, scratch: Path, allocated_bytes: Callable[[], int]) -> None:
        self._model_fn = hooks.model_fn
        self._scratch = scratch
        self._allocated_bytes = allocated_bytes
        self._lock = threading.Lock()  # one model_fn at a time, so that growth is its own
        self._growths: deque[float] = deque(maxlen=MAX_MEASURED)

    def hook(self, target: str, prepared: PreparedModel) -> PreparedModel:
        """The same, with a `load` that makes an object, and its bytes on the book.

        What model_fn will take is not known before. All models pass through the same one, so the growth of memory in
        earlier calls, for each byte of booster, is the estimate; before the first it is that of the booster itself.
        """
        factor = max(1.0, statistics.median(self._growths)) if self._growths else 1.0
        resident_bytes = int(prepared.facts.resident_bytes * factor)
        extra_bytes = prepared.n_bytes - prepared.facts.resident_bytes + BYTES_PER_OBJECT * len(prepared.documents)
        return replace(
            prepared,
            n_bytes=resident_bytes + extra_bytes,
            make=lambda: UserModel(self._make(target, prepared), prepared.facts),
        )

    def _make(self, target: str, prepared: PreparedModel) -> Any:
        if self._model_fn is None:
            boosters = [_booster(document) for document in prepared.documents]
            return boosters[0] if len(boosters) == 1 else boosters
        with self._lock:
            before = self._allocated_bytes()
            made = self._made_by_hook(target, prepared)
            growth = self._allocated_bytes() - before
            self._growths.append(growth / max(1, prepared.facts.resident_bytes))
        return made

    def _made_by_hook(self, target: str, prepared: PreparedModel) -> Any:
        assert self._model_fn is not None
        folder = Path(tempfile.mkdtemp(prefix="model-", dir=self._scratch))
        try:
            for number, document in enumerate(prepared.documents):
                name = MEMBER if len(prepared.documents) == 1 else f"{MEMBER}-{number}"
                (folder / name).write_bytes(document)
            return self._model_fn(Context(target, model_dir=folder), str(folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _booster(document: bytes) -> Any:
    import xgboost  # 0.5 s and 40 MB, which an endpoint without hooks never pays

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(document))
    booster.num_features()  # configures it now, while no other thread has it
    return booster


class HookedScoring:
    """Scores with the hooks, and with ours where there is none; models must come from `ObjectMaker`. See `Scoring`."""

    is_slow = True

    def __init__(self, hooks: Hooks, conventions: Conventions = OURS, bounds: Bounds | None = None) -> None:
        self._hooks = hooks
        self._conventions = conventions
        self._bounds = bounds

    def media_type(self, accept: str | None) -> str:
        """Empty where a hook chooses."""
        hooks = self._hooks
        return self._conventions.media_type(accept) if hooks.output_fn is None and hooks.transform_fn is None else ""

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
        if is_brief:
            raise NotBrief
        if self._bounds is None or len(request.body) <= LIGHT_BODY_BYTES:
            return self._score(request, target, model, outputs, media_type, iterations, None)
        with self._bounds.visit(request.is_wanted) as visit:
            visit.reads(len(request.body), request.headers.get("content-type", ""))
            return self._score(request, target, model, outputs, media_type, iterations, visit)

    def _score(
        self,
        request: Request,
        target: str,
        model: Scorer,
        outputs: tuple[str, ...],
        media_type: str,
        iterations: Iterations | None,
        visit: Visit | None,
    ) -> Scored:
        hooks = self._hooks
        context = Context(target, request)
        content_type = request.headers.get("content-type", "")
        accept = request.headers.get("accept")
        wanted = self._conventions.accept if accept in (None, "", "*/*") else str(accept)
        if hooks.transform_fn is not None:
            assert isinstance(model, UserModel)
            body = _body(request, content_type)
            decoded = time.perf_counter_ns()
            with model.turn:
                result = hooks.transform_fn(context, model.object, body, content_type, wanted)
            predicted = time.perf_counter_ns()
            return Scored(*answer_of("transform_fn", result, wanted, context), decoded, predicted)
        data: Any
        if hooks.input_fn is not None:
            data = hooks.input_fn(context, _body(request, content_type), content_type)
        else:
            data = decode(request.body, content_type, model.facts.n_features, may_be_short=self._conventions.is_aws)
        if hooks.predict_fn is not None:
            if isinstance(data, Rows):
                data = self._fitted(data, model.facts)
            decoded = time.perf_counter_ns()
            assert isinstance(model, UserModel)
            with model.turn:
                prediction = hooks.predict_fn(context, data, model.object)
        else:
            values = self._fitted(data, model.facts) if isinstance(data, Rows) else rows_of(data, model.facts)
            decoded = time.perf_counter_ns()
            prediction = predict(model, values, outputs, iterations, visit)
        predicted = time.perf_counter_ns()
        if hooks.output_fn is not None:
            result = hooks.output_fn(context, _plain(prediction), wanted)
            return Scored(*answer_of("output_fn", result, wanted, context), decoded, predicted)
        if not isinstance(prediction, Predictions):
            prediction = Predictions(scores_of("predict_fn", prediction))
        body_bytes = encode(prediction, media_type, self._conventions)
        return Scored(body_bytes, media_type, decoded, predicted)

    def _fitted(self, rows: Rows, facts: Facts) -> Floats:
        conventions = self._conventions
        return fit_rows(rows, facts, is_positional=conventions.is_positional, may_be_short=conventions.is_aws)


def _body(request: Request, content_type: str) -> bytes | str:
    if parse_media_type(content_type)[0] not in TEXT_TYPES:
        return request.body
    try:
        return request.body.decode()
    except UnicodeDecodeError as error:
        raise PayloadInvalid(f"byte {error.start}", "the body is no UTF-8") from error


def rows_of(data: Any, facts: Facts) -> Floats:
    """What input_fn returned as rows for our prediction.

    data     a table of numbers (NumPy, pandas, lists), an xgboost.DMatrix or a SciPy matrix, where absent is missing
    returns  float32, C-contiguous, (n_rows, n_features)
    raises   HookFailed when it is none of these; FeatureMismatch
    """
    rows = _rows(data)
    if not len(rows.values):
        raise HookFailed("input_fn", 400, "it gave no rows")
    if np.isinf(rows.values).any():
        raise HookFailed("input_fn", 400, "it gave an infinite number, or one too large for a float32")
    # Whoever made a table for a model without names has put its columns in their order, whatever they are called.
    return fit_rows(rows, facts, is_positional=True)


def _rows(data: Any) -> Rows:
    names = getattr(data, "feature_names", None)  # a DMatrix
    if names is None and hasattr(data, "columns"):  # a DataFrame
        names = [name for name in data.columns if isinstance(name, str)]
    if hasattr(data, "get_base_margin"):
        if len(data.get_base_margin()):
            raise HookFailed("input_fn", 500, "its DMatrix has a base_margin, for which a predict_fn is needed")
        data = data.get_data()
    values = _dense(data.tocsr()) if hasattr(data, "tocsr") else _table(data)
    return Rows(values, tuple(names) if names and len(names) == values.shape[1] else None)


def _dense(matrix: Any) -> Floats:
    values = sparse_rows(*matrix.shape)
    values[np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr)), matrix.indices] = matrix.data
    return values


def _table(data: Any) -> Floats:
    try:
        with np.errstate(over="ignore"):  # becomes infinite, and is found by that
            values = np.ascontiguousarray(data, dtype=np.float32)
    except ValueError as error:  # rows of text that is no number, or of different lengths: as the body had them
        raise HookFailed("input_fn", 400, f"its rows are no numbers: {error}") from error
    except TypeError as error:
        raise HookFailed(
            "input_fn", 500, f"it gave a {type(data).__name__}, for which a predict_fn is needed"
        ) from error
    if np.ndim(data) != 2:
        raise HookFailed("input_fn", 500, f"it gave {np.ndim(data)} axes where rows and columns belong")
    return values


def scores_of(hook: str, prediction: Any) -> npt.NDArray[Any]:
    """What a hook predicted as scores to write: (n_rows, n_outputs). Raises HookFailed."""
    try:
        scores = np.asarray(prediction)
    except ValueError as error:
        raise HookFailed(hook, 500, f"its rows differ: {error}") from error
    if scores.dtype.kind not in "biuf":
        name = type(prediction).__name__
        raise HookFailed(hook, 500, f"it gave a {name}, which is no array of numbers; write an output_fn for it")
    if scores.ndim == 0:
        scores = scores.reshape(1)
    if scores.ndim > 2 or not scores.size:
        raise HookFailed(hook, 500, f"it gave an array of shape {scores.shape}; write an output_fn for it")
    if scores.dtype == np.float16:
        scores = scores.astype(np.float32)
    return scores.reshape(len(scores), -1)


def _plain(prediction: Any) -> Any:
    """Ours as Booster.predict would have given it: one axis for a model of one output."""
    if not isinstance(prediction, Predictions):
        return prediction
    outputs = prediction.outputs
    if isinstance(outputs, Mapping):
        return dict(outputs)
    return outputs[:, 0] if outputs.shape[1] == 1 else outputs


def answer_of(hook: str, result: Any, accept: str, context: Context) -> tuple[bytes, str]:
    """A hook's answer as a body and its content type. Raises HookFailed."""
    content_type = context.content_type or _first(accept)
    if isinstance(result, tuple):
        if len(result) != 2:
            raise HookFailed(hook, 500, f"it gave a tuple of {len(result)}, not of body and content type")
        result, content_type = result
    if (
        not isinstance(content_type, str)
        or not content_type.isascii()
        or not content_type.isprintable()
        or not 0 < len(content_type) <= MAX_CONTENT_TYPE
    ):
        raise HookFailed(hook, 500, "it gave a content type that no header can hold")
    if isinstance(result, str):
        try:
            return result.encode(), content_type
        except UnicodeEncodeError as error:
            raise HookFailed(hook, 500, "it gave a text with half a surrogate pair") from error
    if isinstance(result, (bytes, bytearray, memoryview)):
        return bytes(result), content_type
    raise HookFailed(hook, 500, f"it gave a {type(result).__name__}; bytes or str are wanted, or (body, content type)")


def _first(accept: str) -> str:
    """The first media type of an Accept header that is no range."""
    for part in accept.split(","):
        name = parse_media_type(part)[0]
        if name and "*" not in name:
            return name
    return CSV
