"""Everything that can go wrong with a request, named for what went wrong.

    ServingError
    |-- RequestError                 the caller's request cannot be understood
    |   |-- TargetInvalid            no target, or one that is no key below the prefix
    |   |-- ContentTypeUnsupported   a body we have no reader for
    |   |-- AcceptUnsupported        an answer we have no writer for
    |   |-- PayloadInvalid           a body that is not what its content type says
    |   |   `-- BodyEmpty            no body
    |   |-- FeatureMismatch          rows that do not fit the model's features
    |   |-- AnswerTooLarge           scores whose text is over the limit
    |   |-- OutputUnsupported        an output this model's objective does not have
    |   |-- IterationsUndecided      an early-stopped model, and nothing that says how many rounds answer
    |   `-- TooMuchWork              sound, and more than can be answered in time or in one answer
    |-- HookFailed                   the endpoint's own code (model_fn, input_fn, ...) ended the request
    |-- ArtifactError                the target's archive cannot be served
    |   |-- ArtifactMissing          no such object
    |   |-- ArtifactForbidden        the store will not let us read it
    |   |-- ArtifactUnavailable      the store failed; the next call tries again
    |   |-- ArtifactChanged          written only over what was expected there, and it is something else
    |   |-- ArtifactBroken           damaged, or not a model
    |   `-- ArtifactRefused          a sound archive that we will not serve, and why
    `-- NotNow                       nothing is wrong with the request
        |-- ModelNotReady            still loading when the wait budget ran out
        |-- NoRoom                   no memory even after eviction
        |   `-- TooManyModels        no descriptors or threads for another hosted model
        |-- ModelNotLoaded           hosted, and the platform has not loaded it
        |-- CallerGone               nobody waits for the answer any more
        |-- UnloadedMeanwhile        hosted, and the platform unloaded it while it was being loaded
        `-- Unavailable              draining, restarting or overloaded

What keeps an endpoint from starting at all is a StartRefused, whichever room finds it.

Rule: an error carries the values a reader needs and says what and where. `error_responses.py` knows what status it becomes.
"""

from __future__ import annotations

from collections.abc import Sequence


class StartRefused(Exception):
    """The endpoint cannot start as it is set up, and why; started again it would fare no better."""


class ServingError(Exception):
    """Anything that ends a request without an answer."""


class RequestError(ServingError):
    """The caller's request cannot be understood."""


class TargetInvalid(RequestError):
    def __init__(self, target: str | None, why: str) -> None:
        super().__init__(why if target is None else f"target {target!r}: {why}")
        self.target = target
        self.why = why


class ContentTypeUnsupported(RequestError):
    def __init__(self, content_type: str, supported: Sequence[str]) -> None:
        super().__init__(f"content type {content_type!r} is not supported; use one of {', '.join(supported)}")
        self.content_type = content_type


class AcceptUnsupported(RequestError):
    def __init__(self, accept: str, supported: Sequence[str]) -> None:
        super().__init__(f"no answer can be given as {accept!r}; accept one of {', '.join(supported)}")
        self.accept = accept


class PayloadInvalid(RequestError):
    """`where` is a place in the body a person can find: "line 3, column 2", "instances[0]"."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}" if where else why)
        self.where = where
        self.why = why


class BodyEmpty(PayloadInvalid):
    def __init__(self) -> None:
        super().__init__("", "the body is empty")


class FeatureMismatch(RequestError):
    """Rows that do not fit the model: a wrong count, or names the model does not know."""


class AnswerTooLarge(RequestError):
    def __init__(self, n_bytes: int, max_bytes: int) -> None:
        super().__init__(f"the answer has {n_bytes} bytes, the limit is {max_bytes}; send fewer rows")
        self.n_bytes = n_bytes
        self.max_bytes = max_bytes


class OutputUnsupported(RequestError):
    def __init__(self, output: str, objective: str, allowed: Sequence[str]) -> None:
        super().__init__(f"output {output!r} does not exist for objective {objective}; it has {', '.join(allowed)}")
        self.output = output
        self.objective = objective


class TooMuchWork(RequestError):
    """More rows than can be answered in time, or in one answer; says how many can."""


class IterationsUndecided(RequestError):
    """An early-stopped model for which the rounds that answer have to be asked for, or cannot be."""


class HookFailed(ServingError):
    """The endpoint's own code ended the request. `status` is what it said, or 500 when it said none: then its words are
    in the log only, and `why` is ours."""

    def __init__(self, hook: str, status: int, why: str) -> None:
        super().__init__(f"{hook}: {why}")
        self.hook = hook
        self.status = status
        self.why = why


class ArtifactError(ServingError):
    """The target's archive cannot be served. `uri` is where it is (s3://..., or a path), `why` the reason alone."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(f"artifact {uri} {why}")
        self.uri = uri
        self.why = why


class ArtifactMissing(ArtifactError):
    def __init__(self, uri: str) -> None:
        super().__init__(uri, "does not exist")


class ArtifactForbidden(ArtifactError):
    """`doing` is what was refused: read or written. `detail` is what the store said, for the log alone: it may name roles,
    keys and accounts."""

    def __init__(self, uri: str, code: str, detail: str = "", *, doing: str = "read") -> None:
        super().__init__(uri, f"may not be {doing} ({code})")
        self.code = code
        self.detail = detail
        self.doing = doing


class ArtifactUnavailable(ArtifactError):
    """`detail` as of ArtifactForbidden."""

    def __init__(self, uri: str, code: str, detail: str = "") -> None:
        super().__init__(uri, f"unavailable ({code})")
        self.code = code
        self.detail = detail


class ArtifactChanged(ArtifactError):
    def __init__(self, uri: str) -> None:
        super().__init__(uri, "is not what was expected there: somebody else has changed it")


class ArtifactBroken(ArtifactError):
    def __init__(self, uri: str, why: str) -> None:
        super().__init__(uri, f"is broken: {why}")
        self.why = why


class ArtifactRefused(ArtifactError):
    def __init__(self, uri: str, why: str) -> None:
        super().__init__(uri, f"is refused: {why}")
        self.why = why


class NotNow(ServingError):
    """Nothing is wrong with the request; it cannot be answered at this moment."""


class ModelNotReady(NotNow):
    def __init__(self, target: str, waited_s: float) -> None:
        super().__init__(f"model {target} is still loading after {waited_s:.1f} s; call again")
        self.target = target
        self.waited_s = waited_s


class NoRoom(NotNow):
    def __init__(self, what: str, needed_bytes: int, budget_bytes: int) -> None:
        super().__init__(f"no room for {what}: it needs {needed_bytes} bytes of a budget of {budget_bytes}")
        self.needed_bytes = needed_bytes
        self.budget_bytes = budget_bytes


class TooManyModels(NoRoom):
    def __init__(self, model: str, max_models: int) -> None:
        NotNow.__init__(
            self, f"no room for model {model}: {max_models} are loaded, as many as this container's limits hold"
        )
        self.max_models = max_models


class ModelNotLoaded(NotNow):
    def __init__(self, model: str) -> None:
        super().__init__(f"model {model} is not loaded")
        self.model = model


class CallerGone(NotNow):
    def __init__(self) -> None:
        super().__init__("nobody waits for the answer any more")


class UnloadedMeanwhile(NotNow):
    def __init__(self, model: str) -> None:
        super().__init__(f"model {model} was unloaded while it was being loaded")
        self.model = model


class Unavailable(NotNow):
    """Draining, restarting or overloaded. `retry_after_s` becomes the Retry-After header."""

    def __init__(self, why: str, retry_after_s: int = 1) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
