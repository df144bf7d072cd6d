"""The endpoint's own code: one module whose functions take the place of ours, one by one.

    model_fn(model_dir)                               any object, to stand for the model
    input_fn(body, content_type)                      any data
    predict_fn(data, model)                           any prediction
    output_fn(prediction, accept)                     bytes or str, alone or as (body, content type)
    transform_fn(model, body, content_type, accept)   as output_fn; stands for the three before it

Each may take one more argument, the `Context`. The body is text for CSV and JSON, else bytes.

Rule: what is wrong with the module is told at start, with its line; what a hook raises later ends its request and
nothing else. Hooks run on many threads at once, those of one request on the same one.

source   aws/sagemaker-inference-toolkit, transformer.py and default_inference_handler.py
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from handler.errors import HookFailed, ServingError, StartRefused
from handler.messages import Request

log = logging.getLogger(__name__)

N_ARGUMENTS = {"model_fn": 1, "input_fn": 2, "predict_fn": 2, "output_fn": 2, "transform_fn": 4}
NOT_CALLED = ("pre_model_fn", "model_warmup_fn")  # the toolkit knows them; they make no sense for thousands of models
DEFAULT_DIRECTORY = Path("/opt/ml/model/code")  # the toolkit's
# In sys.modules, so that a module named handler.py takes nobody's place.
MODULE_NAME = "sagemaker_program"
_UNPICKLING = re.compile(r"\b(?:c?[pP]ickle|pkl|joblib|cloudpickle|dill)\s*\.\s*loads?\s*\(")
SHOWN_CHARACTERS = 500  # of what a hook says to the caller


class HooksInvalid(StartRefused):
    """A module that cannot be used: where, and why."""

    def __init__(self, path: Path | str, line: int | None, why: str) -> None:
        super().__init__(f"hooks {path}{f', line {line}' if line else ''}: {why}")
        self.line = line


class Hook:
    """One function of the module. Called with the context first; raises HookFailed, or an error of ours it raised."""

    __slots__ = ("_function", "_takes_context", "name")

    def __init__(self, name: str, function: Callable[..., Any], *, takes_context: bool) -> None:
        self.name = name
        self._function = function
        self._takes_context = takes_context

    def __call__(self, context: Context, *arguments: Any) -> Any:
        if self._takes_context:
            arguments = (*arguments, context)
        return call(self.name, self._function, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The functions that were found; None where ours stays."""

    model_fn: Hook | None = None
    input_fn: Hook | None = None
    predict_fn: Hook | None = None
    output_fn: Hook | None = None
    transform_fn: Hook | None = None

    @property
    def needs_objects(self) -> bool:
        """Whether models must be Python objects, for a hook makes them or is handed them."""
        return any((self.model_fn, self.predict_fn, self.transform_fn))

    @property
    def names(self) -> list[str]:
        return [name for name in N_ARGUMENTS if getattr(self, name) is not None]


class Headers(dict[str, str]):
    """Request headers, found however their names are capitalised."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Context:
    """What a hook may ask about its request, under the names MMS's own context has for it.

    model_name   the target
    model_dir    where the booster's file is, while model_fn runs
    """

    def __init__(self, model_name: str, request: Request | None = None, model_dir: Path | None = None) -> None:
        self.model_name = model_name
        self.manifest: Mapping[str, Any] = {}
        self.request_ids = {0: request.request_id} if request else {}
        self.system_properties = {
            "model_dir": str(model_dir) if model_dir else None,
            "gpu_id": None,
            "batch_size": 1,
            "server_name": "MMS",
        }
        self._headers = Headers(request.headers) if request else Headers()
        self.content_type: str | None = None

    @property
    def request_processor(self) -> list[Context]:
        return [self]

    def get_request_properties(self) -> Mapping[str, str]:
        return self._headers

    def get_request_property(self, name: str) -> str | None:
        value: str | None = self._headers.get(name)
        return value

    # `idx` is MMS's: the request's place in a batch. Ours are batches of one.

    def get_request_id(self, idx: int = 0) -> str | None:
        return self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> str | None:  # noqa: ARG002
        return self.get_request_property(key)

    def get_all_request_header(self, idx: int) -> Mapping[str, str]:  # noqa: ARG002
        return self._headers

    def set_response_content_type(self, idx: int, value: str) -> None:  # noqa: ARG002
        self.content_type = value


def load_hooks(program: str, directory: str | None) -> Hooks:
    """The hooks in a module, which is imported here, once.

    program     `inference.py`, or `inference`
    directory   where it is; its other modules can be imported too. Without one it is looked for here, then where the
                toolkit would
    raises      HooksInvalid: no such file, an import that fails, a function of other arguments, or none at all
    """
    path = _find(program, directory)
    module = _import(path)
    hooks = {name: _hook(module, name, path) for name in N_ARGUMENTS if hasattr(module, name)}
    if not hooks:
        raise HooksInvalid(path, None, f"it defines none of {', '.join(N_ARGUMENTS)}")
    if "transform_fn" in hooks and hooks.keys() & {"input_fn", "predict_fn", "output_fn"}:
        raise HooksInvalid(path, None, "transform_fn stands for input_fn, predict_fn and output_fn; define it or them")
    if "model_fn" in hooks and _unpickles(module):
        log.warning(
            "hooks %s: model_fn seems to unpickle. Whatever an archive holds, what lies in model_dir is xgboost-model, "
            "UBJSON of the current XGBoost: xgboost.Booster(model_file=...) reads it, pickle.load does not",
            path,
        )
    for name in NOT_CALLED:
        if hasattr(module, name):
            log.warning("hooks %s: %s is not called here", path, name)
    return Hooks(**hooks)


def _unpickles(module: ModuleType) -> bool:
    try:
        source = inspect.getsource(module.model_fn)
    except (OSError, TypeError):  # not written in a file, or no function
        return False
    return _UNPICKLING.search(source) is not None


def call(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns. Whatever it raises becomes HookFailed, also what would end a thread; ours stay."""
    try:
        return function(*arguments)
    except ServingError:
        raise
    except BaseException as error:
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> HookFailed:
    """A ValueError is about the body, and the toolkit's errors carry a status: their words are for the caller. Any other
    exception is a fault of the code, and its words may hold what is none of the caller's business."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if "sagemaker_inference.errors.BaseInferenceToolkitError" in kinds:
        status: Any = getattr(error, "status_code", None)
        # 507 is ours alone: SageMaker unloads models when it sees it.
        is_usable = isinstance(status, int) and 400 <= status < 600 and status != 507
        return HookFailed(name, int(status) if is_usable else 500, _words(getattr(error, "message", "")))
    if "sagemaker_inference.errors.UnsupportedFormatError" in kinds:
        return HookFailed(name, 406 if name == "output_fn" else 415, _words(error))
    if isinstance(error, ValueError):
        return HookFailed(name, 400, _words(error))
    if name == "model_fn" and "_pickle.UnpicklingError" in kinds:
        log.error("model_fn failed to unpickle", exc_info=error)
        return HookFailed(
            name, 500, "it unpickles xgboost-model, UBJSON here: xgboost.Booster(model_file=...) reads it"
        )
    log.error("%s failed", name, exc_info=error)
    return HookFailed(name, 500, "it failed; the endpoint's log has the trace")


def _words(said: object) -> str:
    try:
        text = " ".join(str(said).split())
    except Exception:  # noqa: BLE001  an exception's own __str__ is the hooks' code as well
        return "it cannot say why"
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _find(program: str, directory: str | None) -> Path:
    if directory is not None and "://" in directory:
        raise HooksInvalid(directory, None, "it must be a directory in this container; put the code into the image")
    name = program if program.endswith(".py") else program + ".py"
    folders = [Path(directory)] if directory is not None else [Path(), DEFAULT_DIRECTORY]
    for folder in folders:
        path = (folder / name).absolute()
        if path.is_file():
            return path
    raise HooksInvalid(name, None, f"there is no such file in {' or '.join(str(one.absolute()) for one in folders)}")


def _import(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # At the end: a file that is called numpy.py or handler.py there takes nobody's place.
    sys.path.append(str(path.parent))
    sys.modules[MODULE_NAME] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.path.remove(str(path.parent))
        del sys.modules[MODULE_NAME]
        where, line = _place(error, path)
        raise HooksInvalid(where, line, f"{type(error).__name__}: {_words(error)}") from error
    return module


def _place(error: BaseException, path: Path) -> tuple[str, int | None]:
    """The file and line of the module, or of one beside it, where an import went wrong."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_beside(frame.filename, path)]
    return (frames[-1].filename, frames[-1].lineno) if frames else (str(path), None)


def _is_beside(name: str, path: Path) -> bool:
    return Path(name).is_relative_to(path.parent)


def _hook(module: ModuleType, name: str, path: Path) -> Hook:
    function = getattr(module, name)
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", None)
    if not callable(function):
        raise HooksInvalid(path, line, f"{name} is no function")
    if inspect.iscoroutinefunction(function):
        raise HooksInvalid(path, line, f"{name} is a coroutine; hooks are plain functions, called on many threads")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise HooksInvalid(path, line, f"the arguments of {name} cannot be told") from error
    wanted = N_ARGUMENTS[name]
    if len(parameters) not in (wanted, wanted + 1) or any(one.kind > one.POSITIONAL_OR_KEYWORD for one in parameters):
        raise HooksInvalid(
            path, line, f"{name} has other arguments than the {wanted} it is given, or {wanted + 1} with a context"
        )
    return Hook(name, function, takes_context=len(parameters) > wanted)
