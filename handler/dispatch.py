"""One request, from its headers and body to its answer.

Rule: the target is worked out once, where the request enters, and the value is handed on: to the cache, to the scores and to
the figures. An error becomes an answer here and nowhere else, by the table in `error_responses.py`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from handler.attributes import ITERATIONS, OUTPUT, TARGET, TIMING, parse_attributes
from handler.cache.model_cache import Borrowed, ModelCache
from handler.error_responses import INTERNAL, SAGEMAKER, Framing
from handler.errors import AnswerTooLarge, ArtifactBroken, ArtifactMissing, TargetInvalid
from handler.fallback import Fallback, StandIn
from handler.messages import Answer, Exchange, Parts, Request
from handler.outputs import parse_outputs
from handler.payload.decode import FORMS
from handler.payload.media import CSV
from handler.predictor import Iterations, Scorer
from handler.scoring import NotBrief, PlainScoring, Scoring, parse_iterations
from handler.targets import as_sent, parse_target
from handler.telemetry.recorder import BROKEN_ARTIFACTS, FALLBACK_INVOCATIONS, Invocation, Recorder

log = logging.getLogger(__name__)

TARGET_HEADER = "x-amzn-sagemaker-target-model"
ATTRIBUTES_HEADER = "x-amzn-sagemaker-custom-attributes"
INFERENCE_ID_HEADER = "x-amzn-sagemaker-inference-id"

# SageMaker passes no header of a container's on to the caller but this one, so it tells cold from warm.
_WARM = ((ATTRIBUTES_HEADER, "cache=hit"),)
# A body that is read and scored in about the time that handing it to another thread would take: some twenty rows.
SMALL_BODY_BYTES = 2048
# CSV is read several times as fast as the rest, and JSON where its rows are ordinary: some hundred rows. Through a model of
# two hundred trees they walk in 0.1 ms.
SMALL_ROWS_BYTES = 7000
SMALL_MODEL_BYTES_FOR_ROWS = 256 << 10
# Some five thousand trees, which a row walks through in about a millisecond.
SMALL_MODEL_BYTES = 8 << 20
_NO_ATTRIBUTES: Mapping[str, str] = {}


class Journal(Protocol):
    """Where single requests are written down, such as the access log."""

    def wants(self, status: int) -> bool: ...
    def write(self, record: Invocation) -> None: ...


class Tap(Protocol):
    """Where whole calls are handed to, such as data capture. Never waits, never raises.

    take   gets the parts of an Exchange, and makes one where it is kept: that takes as long as to write an ordinary call down
    """

    def take(self, *parts: *Parts) -> None: ...
    def take_failed(self, call: Exchange) -> None: ...


@dataclass(frozen=True, slots=True)
class BothTaps:
    first: Tap
    second: Tap

    def take(self, *parts: *Parts) -> None:
        self.first.take(*parts)
        self.second.take(*parts)

    def take_failed(self, call: Exchange) -> None:
        self.first.take_failed(call)
        self.second.take_failed(call)


class Using(Protocol):
    """A model while a request uses it."""

    @property
    def model(self) -> Scorer: ...
    @property
    def is_hit(self) -> bool: ...
    @property
    def wait_us(self) -> int: ...
    @property
    def version(self) -> str: ...


class Leased(Protocol):
    """A model that a caller has for more than one request: hosted, for as long as its connection lives.

    use   the model; raises why there is none
    """

    @property
    def name(self) -> str: ...
    def use(self) -> AbstractContextManager[Using]: ...


class Named(NamedTuple):
    """A model by its key in the cache, and by what its figures call it."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class _Present:
    """A model that was borrowed before the request was looked into; the caller, who borrowed it, gives it back."""

    name: str
    borrowed: Borrowed

    def use(self) -> AbstractContextManager[Using]:
        return nullcontext(self.borrowed)


class Dispatcher:
    """Answers requests from models in the cache; any number of threads may call it at once.

    framing          how errors are written
    wait_s           how long a request waits for its model to load
    default_outputs  what to predict when the request does not say (see handler/outputs.py); empty for the plain score
    default_iterations  which rounds of an early-stopped model answer when the request does not say; None leaves it to the
                        model
    scoring          how a body becomes scores and they an answer: ours, or with the endpoint's own code in its place
    fallback         the name of the model that answers for segments without one (see handler/fallback.py); None for none
    tap              who is handed whole calls; None for nobody
    max_answer_bytes over it the caller is told so: the front end would end the connection that brings it
    """

    def __init__(
        self,
        cache: ModelCache,
        recorder: Recorder,
        journal: Journal | None = None,
        *,
        wait_s: float,
        framing: Framing | None = None,
        default_outputs: tuple[str, ...] = (),
        default_iterations: Iterations | None = None,
        scoring: Scoring | None = None,
        fallback: str | None = None,
        tap: Tap | None = None,
        max_answer_bytes: int = sys.maxsize,
    ) -> None:
        self._cache = cache
        self._fallback = None if fallback is None else Fallback(fallback, cache.borrow)
        self._recorder = recorder
        self._journal = journal
        self._tap = tap
        self._wait_s = wait_s
        self._framing = framing or SAGEMAKER
        self._default_outputs = default_outputs
        self._default_iterations = default_iterations
        self._scoring = scoring or PlainScoring()
        self._max_answer_bytes = max_answer_bytes
        self.is_slow = self._scoring.is_slow or bool(default_outputs)

    def answer(
        self, request: Request, own: Leased | None = None, *, wait_s: float | None = None, is_brief: bool = False
    ) -> Answer:
        """The answer to a request, whatever happens.

        own       the model to ask; None is the one in the cache that the request names
        wait_s    how long to wait for its load; None is as long as ever
        is_brief  only when to read and to score takes next to nothing; raises NotBrief otherwise, and has done nothing
        """
        started = time.perf_counter_ns()
        headers = request.headers
        target: str | None = None
        stand_in: StandIn | None = None
        scoring = self._scoring
        try:
            text = headers.get(ATTRIBUTES_HEADER)
            attributes = parse_attributes(text) if text else _NO_ATTRIBUTES
            target = own.name if own else _target(headers.get(TARGET_HEADER), attributes)
            media_type = scoring.media_type(headers.get("accept"))
            wait_s = self._wait_s if wait_s is None else wait_s
            try:
                used = own.use() if own else self._cache.borrow(target, wait_s)
            except ArtifactMissing as error:
                if self._fallback is None:
                    raise
                stand_in = self._fallback.borrow(target, wait_s, error)
                target, used = stand_in.target, stand_in.borrowed
            with used as borrowed:
                held = time.perf_counter_ns()
                outputs = parse_outputs(attributes[OUTPUT]) if OUTPUT in attributes else self._default_outputs
                asked = attributes.get(ITERATIONS)
                iterations = self._default_iterations if asked is None else parse_iterations(asked)
                scored = scoring.score(
                    request, target, borrowed.model, outputs, media_type, iterations, is_brief=is_brief
                )
                _refuse_too_large(scored.body, self._max_answer_bytes)
        except NotBrief:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the caller gets an answer and the thread lives on
            return self._refuse(error, request, target, started)
        ended = time.perf_counter_ns()
        self._recorder.invocation(
            target, borrowed.is_hit, (ended - started) // 1000, (ended - held) // 1000, 200, borrowed.wait_us
        )
        if stand_in is not None:
            self._recorder.count(FALLBACK_INVOCATIONS)
        wants_timing = TIMING in attributes
        journal = self._journal if self._journal is not None and self._journal.wants(200) else None
        if borrowed.is_hit and not wants_timing and journal is None and stand_in is None:
            answer = Answer(200, scored.media_type, scored.body, _WARM)
            if self._tap is not None:
                marks = started, held, scored.decoded, scored.predicted, ended
                self._tap.take(request, answer, target, borrowed.version, True, 0, marks)
            return answer
        stages_us = (
            ("wait", borrowed.wait_us),
            ("decode", (scored.decoded - held) // 1000),
            ("predict", (scored.predicted - scored.decoded) // 1000),
            ("encode", (ended - scored.predicted) // 1000),
        )
        total_us = (ended - started) // 1000
        if journal is not None:
            journal.write(Invocation(_request_id(request), target, 200, borrowed.is_hit, total_us, stages_us))
        told = _told(borrowed, stages_us if wants_timing else ())
        if stand_in is not None:
            told += f",{stand_in.told}"
        answer = Answer(200, scored.media_type, scored.body, ((ATTRIBUTES_HEADER, told),))
        if self._tap is not None:
            marks = started, held, scored.decoded, scored.predicted, ended
            self._tap.take(request, answer, target, borrowed.version, borrowed.is_hit, borrowed.wait_us, marks)
        return answer

    def answer_if_warm(self, request: Request, own: Named | None = None) -> Answer | None:
        """As `answer_at_once`, of a model that is in memory or known not to be had: who has to wait is queued, or turned
        away, by MMS's way.

        own   the model to ask; None is the one that the request names
        """
        return self._answer_small(request, own, turns_away=False)

    def answer_at_once(self, request: Request) -> Answer | None:
        """The answer when nothing has to be waited for and little computed: a small plain body for a model in memory.
        None otherwise; `answer` then takes its time, on a thread that has it."""
        return self._answer_small(request, None, turns_away=True)

    def _answer_small(self, request: Request, own: Named | None, *, turns_away: bool) -> Answer | None:
        if self.is_slow:
            return None
        headers = request.headers
        most_model_bytes, is_brief = SMALL_MODEL_BYTES, False
        if len(request.body) > SMALL_BODY_BYTES:
            if len(request.body) > SMALL_ROWS_BYTES or headers.get("content-type") not in FORMS:
                return None
            most_model_bytes = SMALL_MODEL_BYTES_FOR_ROWS
            is_brief = headers["content-type"] != CSV  # of other JSON so much may take two milliseconds
        raw = headers.get(TARGET_HEADER)
        if ATTRIBUTES_HEADER in headers:
            try:
                attributes = parse_attributes(headers[ATTRIBUTES_HEADER])
            except TargetInvalid:
                return None
            if OUTPUT in attributes:
                return None
            raw = attributes.get(TARGET) if raw is None else raw
        if own is not None:
            key, name = own
        elif raw is not None:
            key = name = as_sent(raw)
        else:
            return None
        borrowed = self._cache.borrow_present(key)
        if borrowed is None:
            # In a storm of first calls, turning one away costs less than waking a thread to do it; and so does saying what is
            # known. A model that stands in has to be borrowed, which may take its time.
            is_known = own is None and self._fallback is None and self._cache.is_refused(key)
            is_turned_away = turns_away and self._cache.waiting.is_crowded
            return self.answer(request, wait_s=0.0) if is_known or is_turned_away else None
        with borrowed:
            if borrowed.model.facts.resident_bytes > most_model_bytes:
                return None
            try:
                return self.answer(request, _Present(name, borrowed), is_brief=is_brief)
            except NotBrief:
                return None

    def _refuse(self, error: Exception, request: Request, target: str | None, started: int) -> Answer:
        fault = self._framing.fault_of(error)
        if fault.status == INTERNAL.status:
            log.error("request for %s failed", target, exc_info=error)
        if isinstance(error, ArtifactBroken):
            self._recorder.count(BROKEN_ARTIFACTS)
        total_us = (time.perf_counter_ns() - started) // 1000
        # Only names that proved to exist get figures of their own; callers can invent any number of others.
        known = target if target is not None and target in self._cache else None
        self._recorder.invocation(known, None, total_us, None, fault.status)
        if self._journal is not None and self._journal.wants(fault.status):
            self._journal.write(
                Invocation(_request_id(request), target, fault.status, None, total_us, error=str(error))
            )
        refusal = self._framing.refusal(error, fault)
        if self._tap is not None:
            ended = started + total_us * 1000
            marks = started, ended, ended, ended, ended
            self._tap.take_failed(Exchange(request, refusal, target, "", None, 0, marks))
        return refusal


def _target(header: str | None, attributes: Mapping[str, str]) -> str:
    raw = header if header is not None else attributes.get(TARGET)
    if raw is None:
        raise TargetInvalid(
            None,
            "no target model: set TargetModel, or TargetModel=... in CustomAttributes where the endpoint refuses it",
        )
    return parse_target(as_sent(raw))


def _refuse_too_large(body: bytes, max_bytes: int) -> None:
    if len(body) > max_bytes:
        raise AnswerTooLarge(len(body), max_bytes)


def _request_id(request: Request) -> str:
    return request.headers.get(INFERENCE_ID_HEADER) or request.request_id


def _told(borrowed: Using, stages_us: tuple[tuple[str, int], ...]) -> str:
    """What the caller is told in the custom attributes: `cache=miss,load_ms=12`, and its stages when it asked."""
    told = "cache=hit" if borrowed.is_hit else f"cache=miss,load_ms={borrowed.wait_us // 1000}"
    return "".join([told, *(f",{stage}_us={us}" for stage, us in stages_us)])
