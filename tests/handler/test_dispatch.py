"""From a request to an answer, over a real cache and real boosters, without a socket."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from handler import errors
from handler.cache.model_cache import ModelCache
from handler.compiled import row
from handler.dispatch import SMALL_BODY_BYTES, Dispatcher, Named
from handler.error_responses import CONTAINER, FAULTS, SAGEMAKER, Framing, fault_of, refusal
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import pack
from handler.importer import import_booster
from handler.loading.loader import PreparedModel
from handler.messages import Request
from handler.payload import Conventions
from handler.predictor import Facts, HandlePool, Iterations
from handler.scoring import PlainScoring
from handler.telemetry.recorder import (
    FALLBACK_INVOCATIONS,
    INVOCATION_4XX_ERRORS,
    INVOCATIONS,
    MODEL_CACHE_HIT,
    Invocation,
    LiveRecorder,
)
from tests.rig import boosters
from tests.rig.fakes import InlineExecutor

X = boosters.rows(3, 6)
CSV = "\n".join(",".join(map(repr, map(float, row))) for row in X).encode()


BOOSTERS = {
    "a": boosters.segment(1),
    "class": boosters.train(objective="binary:logistic"),
    "linear": boosters.train(booster="gblinear"),
    "packed": boosters.segment(2),
}


class Stock:
    """Targets and their boosters; anything else is what `errors` says, or missing."""

    def __init__(self) -> None:
        self.boosters = BOOSTERS
        self.errors: dict[str, Exception] = {}

    def prepare(self, target: str) -> PreparedModel:
        if target in self.errors:
            raise self.errors[target]
        if target not in self.boosters:
            raise errors.ArtifactMissing(f"s3://b/{target}")
        objective = "binary:logistic" if target == "class" else "reg:squarederror"
        facts = Facts(objective, "gblinear" if target == "linear" else "gbtree", 6, 1, 1000)
        document = boosters.document(self.boosters[target])
        if target == "packed":
            document, facts = pack(import_booster(document, target).learner) or b"", replace(facts, is_forest=True)
        return PreparedModel("v", 1000, len(document), 1, 1, (document,), (facts,), facts, BoosterPool(HandlePool()))


class Journal:
    def __init__(self) -> None:
        self.lines: list[Invocation] = []

    def wants(self, status: int) -> bool:
        return True

    def write(self, record: Invocation) -> None:
        self.lines.append(record)


class Desk:
    """A dispatcher and all it leans on."""

    def __init__(self, **options: Any) -> None:
        self.stock, self.recorder, self.journal = Stock(), LiveRecorder(), Journal()
        self.cache = ModelCache(
            budget_bytes=10_000,
            prepare=self.stock.prepare,
            executor=InlineExecutor(),
            max_waiting=4,
            recorder=self.recorder,
        )
        self.dispatcher = Dispatcher(self.cache, self.recorder, self.journal, wait_s=1, **options)

    def ask(self, body: bytes = CSV, target: str | None = "a", **headers: str) -> Any:
        named = {"content-type": "text/csv"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if target is not None:
            named["x-amzn-sagemaker-target-model"] = target
        return self.dispatcher.answer(Request(named, body, "mms-id"))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def numbers(answer: Any) -> np.ndarray:
    return np.array([line.split(",") for line in answer.body.decode().split()], np.float32)


def test_scores_come_back_as_csv_by_default(desk: Desk) -> None:
    answer = desk.ask()
    assert (answer.status, answer.content_type) == (200, "text/csv")
    np.testing.assert_array_equal(numbers(answer), boosters.expected(boosters.segment(1), X))


def test_the_first_answer_says_cold_and_the_next_warm(desk: Desk) -> None:
    first, second = (dict(desk.ask().headers)["x-amzn-sagemaker-custom-attributes"] for _ in range(2))
    assert first.startswith("cache=miss,load_ms=")
    assert second == "cache=hit"


def test_json_when_asked_for(desk: Desk) -> None:
    answer = desk.ask(accept="application/json")
    assert len(json.loads(answer.body)["predictions"]) == 3


def test_one_line_csv_is_an_option() -> None:
    assert Desk(scoring=PlainScoring(Conventions(one_line=True))).ask().body.count(b"\n") == 0


def test_the_endpoint_says_what_an_answer_is_when_the_caller_does_not() -> None:
    desk = Desk(scoring=PlainScoring(Conventions(accept="application/json")))
    for accept, expected in ((None, "application/json"), ("*/*", "application/json"), ("text/csv", "text/csv")):
        assert desk.ask(**({} if accept is None else {"accept": accept})).content_type == expected


def test_names_are_positions_only_where_the_endpoint_says_so(desk: Desk) -> None:
    rows = json.dumps(dict.fromkeys("abcdef", 0.5)).encode()
    refused = desk.ask(rows, content_type="application/json")
    assert json.loads(refused.body)["OriginalStatusCode"] == 400
    assert "no feature names" in refused.body.decode()
    positional = Desk(scoring=PlainScoring(Conventions(is_positional=True))).ask(rows, content_type="application/json")
    assert positional.body == desk.ask(b"0.5,0.5,0.5,0.5,0.5,0.5").body


def test_the_header_wins_over_the_attribute(desk: Desk) -> None:
    assert desk.ask(x_amzn_sagemaker_custom_attributes="TargetModel=nothing").status == 200
    assert desk.ask(target=None, x_amzn_sagemaker_custom_attributes="TargetModel=a").status == 200


def test_outputs_are_chosen_per_request_or_per_endpoint() -> None:
    asked = Desk().ask(target="class", x_amzn_sagemaker_custom_attributes="Output=predicted_label|probability")
    assert asked.status == 200
    default = Desk(default_outputs=("predicted_label", "probability")).ask(target="class")
    assert default.body == asked.body
    labels = [int(line.split(b",")[0]) for line in asked.body.split()]
    assert set(labels) <= {0, 1}


@pytest.mark.parametrize(
    ("target", "output", "says"),
    [("a", "probability", "reg:squarederror"), ("class", "nonsense", "predicted_label"), ("linear", "leaf", "leaf")],
)
def test_an_output_the_model_does_not_have_is_refused(desk: Desk, target: str, output: str, says: str) -> None:
    answer = desk.ask(target=target, x_amzn_sagemaker_custom_attributes=f"Output={output}")
    assert answer.status == 424
    assert json.loads(answer.body)["OriginalStatusCode"] == 400
    assert says in json.loads(answer.body)["Message"]


def test_contributions_add_up_to_the_margin(desk: Desk) -> None:
    contribs = desk.ask(x_amzn_sagemaker_custom_attributes="Output=contribs", accept="application/json")
    rows = [row["contribs"] for row in json.loads(contribs.body)["predictions"]]
    np.testing.assert_allclose(np.sum(rows, axis=1), boosters.expected(boosters.segment(1), X)[:, 0], rtol=1e-4)


def test_timing_is_told_when_asked_for(desk: Desk) -> None:
    answer = desk.ask(x_amzn_sagemaker_custom_attributes="Timing=1")
    told = dict(answer.headers)["x-amzn-sagemaker-custom-attributes"]
    assert [pair.split("=")[0] for pair in told.split(",")] == [
        "cache", "load_ms", "wait_us", "decode_us", "predict_us", "encode_us",
    ]  # fmt: skip


def at_once(desk: Desk, body: bytes = CSV, target: str = "a", **headers: str) -> Any:
    named = {"content-type": "text/csv", "x-amzn-sagemaker-target-model": target}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    return desk.dispatcher.answer_at_once(Request(named, body, "mms-id"))


def test_a_small_request_for_a_model_in_memory_is_answered_at_once_and_the_same(desk: Desk) -> None:
    assert at_once(desk) is None  # cold: it would have to wait
    desk.ask()
    assert at_once(desk) == desk.ask()


def test_a_target_beyond_ascii_is_one_model_in_the_figures_cold_and_warm(desk: Desk) -> None:
    target = "fr/Orl\N{LATIN SMALL LETTER E WITH ACUTE}ans"
    desk.stock.boosters = {**BOOSTERS, target: boosters.segment(1)}
    as_mms_reads_it = target.encode().decode("latin-1")
    assert desk.ask(target=as_mms_reads_it).status == 200
    warm = Request({"content-type": "text/csv", "x-amzn-sagemaker-target-model": as_mms_reads_it}, CSV, "mms-id")
    for _ in range(2):
        answer = desk.dispatcher.answer_at_once(warm)
        assert answer is not None
        assert answer.status == 200
    assert [line.target for line in desk.journal.lines] == [target] * 3


def test_in_a_storm_of_first_calls_one_more_is_turned_away_at_once_and_warm_ones_are_answered(desk: Desk) -> None:
    desk.ask(target="class")
    desk.cache.waiting.n_waiting = 4  # as many as may wait do
    desk.cache.waiting._typical_s = 1.0  # and for long
    for _ in range(4):
        assert desk.cache.waiting._places.acquire(blocking=False)
    answer = at_once(desk)
    assert (answer.status, dict(answer.headers)["x-amzn-errortype"]) == (429, "ModelNotReadyException")
    assert at_once(desk, target="class").status == 200


def test_what_may_take_long_is_not_answered_at_once() -> None:
    desk = Desk()
    desk.ask()
    assert at_once(desk, body=(CSV + b"\n") * 20) is not None  # CSV is read fast
    assert at_once(desk, body=(CSV + b"\n") * 100) is None
    assert at_once(desk, body=(CSV + b"\n") * 20, content_type="text/libsvm") is None
    assert at_once(desk, x_amzn_sagemaker_custom_attributes="Output=contribs") is None
    asked = Desk(default_outputs=("contribs",))
    asked.ask()
    assert at_once(asked) is None


@pytest.mark.skipif(row is None, reason="there was no C compiler, or none of Python's headers")
def test_a_table_of_json_is_answered_at_once_where_its_rows_are_ordinary(desk: Desk) -> None:
    desk.ask(target="packed")
    table = X.tolist() * 10
    body = json.dumps(table).encode()
    assert len(body) > SMALL_BODY_BYTES
    answer = at_once(desk, body, "packed", content_type="application/json")
    assert answer == desk.ask(body, target="packed", content_type="application/json")
    assert answer.status == 200
    # To find out which cell is none, and to say so, may take milliseconds.
    n_before = len(desk.journal.lines)
    assert at_once(desk, json.dumps([*table, ["x"] * 6]).encode(), "packed", content_type="application/json") is None
    assert at_once(desk, json.dumps(table * 4).encode(), "packed", content_type="application/json") is None
    assert len(desk.journal.lines) == n_before
    assert [resident.borrowers for resident in desk.cache.residents()] == [0]


def test_an_error_at_once_is_the_same_error_and_gives_the_model_back(desk: Desk) -> None:
    desk.ask()
    assert at_once(desk, accept="image/png").status == 424
    assert at_once(desk, body=b"1,2").status == 424
    assert [resident.borrowers for resident in desk.cache.residents()] == [0]


def test_a_segment_without_a_model_is_answered_by_the_default_which_is_said_and_counted() -> None:
    desk = Desk(fallback="default")
    desk.stock.boosters = desk.stock.boosters | {"us/default": boosters.segment(7)}
    answers = [desk.ask(target="us/tx/none") for _ in range(2)]
    for answer in answers:
        np.testing.assert_array_equal(numbers(answer), boosters.expected(boosters.segment(7), X))
    told = [dict(answer.headers)["x-amzn-sagemaker-custom-attributes"] for answer in answers]
    assert re.fullmatch(r"cache=miss,load_ms=\d+,model=us/default", told[0])
    assert told[1] == "cache=hit,model=us/default"
    assert desk.recorder.collect().total(FALLBACK_INVOCATIONS) == 2
    assert {line.target for line in desk.journal.lines} == {"us/default"}


def test_a_segment_with_a_model_is_answered_by_its_own() -> None:
    desk = Desk(fallback="b")
    np.testing.assert_array_equal(numbers(desk.ask(target="a")), boosters.expected(boosters.segment(1), X))
    assert desk.recorder.collect().total(FALLBACK_INVOCATIONS) == 0


def test_without_a_default_either_it_is_the_segment_that_is_missing() -> None:
    answer = Desk(fallback="default").ask(target="us/none")
    assert (answer.status, "us/none" in answer.body.decode()) == (400, True)


@pytest.mark.parametrize("kind", [errors.ArtifactBroken, errors.ArtifactRefused, errors.ArtifactForbidden])
def test_only_what_is_missing_has_a_stand_in(kind: type[Exception]) -> None:
    desk = Desk(fallback="a")
    desk.stock.errors["bad"] = kind("s3://b/bad", "why")
    assert desk.ask(target="bad").status != 200


def test_a_default_that_does_not_fit_the_row_says_so() -> None:
    assert Desk(fallback="a").ask(b"1,2", target="none").status == 424


def test_off_by_default(desk: Desk) -> None:
    assert desk.ask(target="none").status == 400


class Surprise(Exception):
    pass


def test_rounds_are_those_the_request_asks_for_else_the_endpoints_else_the_models(desk: Desk) -> None:
    asked = []

    class Noting(PlainScoring):
        def score(self, *arguments: Any, is_brief: bool = False) -> Any:
            asked.append(arguments[-1])
            return super().score(*arguments, is_brief=is_brief)

    for default in (None, Iterations.ALL):
        one = Desk(scoring=Noting(), default_iterations=default)
        for text in ("Timing=1", "Iterations=best", "Iterations=All"):
            assert one.ask(x_amzn_sagemaker_custom_attributes=text).status == 200
    assert asked == [None, Iterations.BEST, Iterations.ALL, Iterations.ALL, Iterations.BEST, Iterations.ALL]
    for text in ("Iterations=", "Iterations=5"):
        answer = desk.ask(x_amzn_sagemaker_custom_attributes=text)
        assert answer.status == 424
        assert b"neither all nor best" in answer.body


EXAMPLES: list[tuple[Exception, int, str, int | None]] = [
    (errors.TargetInvalid("x", "why"), 400, "ValidationError", None),
    (errors.ArtifactMissing("u"), 400, "ValidationError", None),
    (errors.ArtifactForbidden("u", "AccessDenied"), 400, "ValidationError", None),
    (errors.ContentTypeUnsupported("x", ["y"]), 424, "ModelError", 415),
    (errors.AcceptUnsupported("x", ["y"]), 424, "ModelError", 406),
    (errors.PayloadInvalid("line 1", "why"), 424, "ModelError", 400),
    (errors.BodyEmpty(), 424, "ModelError", 400),
    (errors.FeatureMismatch("why"), 424, "ModelError", 400),
    (errors.AnswerTooLarge(2, 1), 424, "ModelError", 413),
    (errors.OutputUnsupported("x", "o", ["y"]), 424, "ModelError", 400),
    (errors.TooMuchWork("why"), 424, "ModelError", 413),
    (errors.IterationsUndecided("why"), 424, "ModelError", 400),
    (errors.HookFailed("input_fn", 413, "why"), 424, "ModelError", 413),
    (errors.ArtifactBroken("u", "why"), 424, "ModelError", 422),
    (errors.ArtifactChanged("u"), 503, "ServiceUnavailable", None),
    (errors.ArtifactRefused("u", "why"), 424, "ModelError", 422),
    (errors.ArtifactUnavailable("u", "SlowDown"), 503, "ServiceUnavailable", None),
    (errors.ModelNotReady("t", 1.0), 429, "ModelNotReadyException", None),
    (errors.NoRoom("t", 2, 1), 424, "ModelError", 507),
    (errors.TooManyModels("m", 3), 424, "ModelError", 507),
    (errors.ModelNotLoaded("m"), 503, "ServiceUnavailable", None),
    (errors.CallerGone(), 503, "ServiceUnavailable", None),
    (errors.UnloadedMeanwhile("m"), 503, "ServiceUnavailable", None),
    (errors.Unavailable("draining", 7), 503, "ServiceUnavailable", None),
    (Surprise("secret"), 500, "InternalFailure", None),
]


@pytest.mark.parametrize(("error", "status", "kind", "original"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status(desk: Desk, error: Exception, status: int, kind: str, original: int | None) -> None:
    desk.stock.errors["bad"] = error
    answer = desk.ask(target="bad")
    headers, body = dict(answer.headers), json.loads(answer.body)
    assert (answer.status, headers["x-amzn-errortype"]) == (status, kind)
    assert body.get("OriginalStatusCode") == original
    assert (str(error) in body["Message"]) == (status != 500)
    assert ("Retry-After" in headers) == (status == 503)


def test_every_error_class_is_one_of_the_examples() -> None:
    def leaves(kind: type) -> list[type]:
        return [leaf for child in kind.__subclasses__() for leaf in leaves(child)] or [kind]

    shown = {type(error) for error, *_ in EXAMPLES}
    assert {kind for kind in leaves(errors.ServingError) if kind.__module__ == "handler.errors"} <= shown
    assert all(fault_of(error).status for error, *_ in EXAMPLES)
    assert set(FAULTS) <= {parent for kind in shown for parent in kind.__mro__}


def test_an_unforeseen_error_tells_the_caller_nothing_of_our_insides() -> None:
    assert b"secret" not in refusal(Surprise("secret"), fault_of(Surprise())).body


@pytest.mark.parametrize("framing", [SAGEMAKER, CONTAINER])
def test_an_error_whose_words_no_json_can_hold_is_told_all_the_same(framing: Framing) -> None:
    error = errors.ArtifactBroken("s3://b/a", "member 'a\udcff' is none")  # as tarfile names one that is no UTF-8
    answer = framing.refusal(error, framing.fault_of(error))
    assert "member 'a\\\\udcff' is none" in answer.body.decode()


def test_headers_that_are_answered_are_single_printable_lines(desk: Desk) -> None:
    for headers in ({"x_amzn_sagemaker_custom_attributes": "Timing=1\r\nX: y"}, {"accept": "a/b\r\nX: y"}):
        for name, value in desk.ask(**headers).headers:
            assert (name + value).isprintable()


def test_what_was_answered_is_recorded_and_invented_names_fill_no_table(desk: Desk) -> None:
    desk.ask()
    desk.ask()
    for number in range(10):
        desk.ask(target=f"invented-{number}")
    totals = desk.recorder.collect()
    assert totals.count(INVOCATIONS) == 12
    assert (totals.total(MODEL_CACHE_HIT), totals.count(MODEL_CACHE_HIT)) == (1, 2)
    assert totals.total(INVOCATION_4XX_ERRORS) == 10
    assert [row.model for row in totals.traffic if not row.model.startswith("other")] == ["a"]


def test_the_journal_gets_the_callers_id_the_stages_and_the_errors(desk: Desk) -> None:
    desk.ask(x_amzn_sagemaker_inference_id="mine")
    desk.ask(target="none")
    good, bad = desk.journal.lines
    assert (good.request_id, good.target, good.status, good.is_hit) == ("mine", "a", 200, False)
    assert [stage for stage, _ in good.stages_us] == ["wait", "decode", "predict", "encode"]
    assert (bad.request_id, bad.status, bad.is_hit) == ("mms-id", 400, None)
    assert replace(bad, error=None) != bad


def test_an_answer_over_the_limit_is_refused_with_both_sizes_and_counted_as_the_callers() -> None:
    desk = Desk(max_answer_bytes=10)
    answer = desk.ask()
    assert (answer.status, json.loads(answer.body)["OriginalStatusCode"]) == (424, 413)
    n_bytes = len(Desk().ask().body)
    assert f"{n_bytes} bytes, the limit is 10" in json.loads(answer.body)["Message"]
    assert [(line.status, line.target) for line in desk.journal.lines] == [(424, "a")]


def if_warm(desk: Desk, own: Named | None = None, **headers: str) -> Any:
    named = {"content-type": "text/csv"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return desk.dispatcher.answer_if_warm(Request(named, CSV, "mms-id"), own)


def test_a_target_in_the_attributes_is_as_warm_as_one_in_the_header(desk: Desk) -> None:
    attributes = {"x_amzn_sagemaker_custom_attributes": "trace=7,TargetModel=a"}
    assert if_warm(desk, **attributes) is None
    assert if_warm(desk, **attributes) is None  # asking does not load it: that is for whoever waits
    first = desk.ask(target=None, **attributes)
    assert if_warm(desk, **attributes).body == first.body
    assert if_warm(desk, x_amzn_sagemaker_custom_attributes="TargetModel=a,TargetModel=b") is None
    assert if_warm(desk, x_amzn_sagemaker_custom_attributes="TargetModel=a,Output=contribs") is None
    assert if_warm(desk) is None


def test_a_model_may_be_asked_by_its_key_and_counts_under_its_name(desk: Desk) -> None:
    desk.ask()
    answer = if_warm(desk, Named("a", "known as"))
    assert answer.body == desk.ask().body
    assert [line.target for line in desk.journal.lines] == ["a", "known as", "a"]
    assert if_warm(desk, Named("gone", "known as")) is None


def test_who_would_be_turned_away_is_not_by_what_only_asks_for_warm_ones(desk: Desk) -> None:
    desk.cache.waiting.n_waiting = 4
    desk.cache.waiting._typical_s = 1.0
    assert desk.cache.waiting.is_crowded
    assert if_warm(desk, x_amzn_sagemaker_target_model="cold") is None


def test_a_model_that_is_known_not_to_be_had_is_refused_at_once_and_once_it_may_be_it_is_not() -> None:
    desk = Desk()
    known: dict[str, errors.ServingError] = {
        "gone": errors.ArtifactMissing("s3://b/gone"),
        "bad": errors.ArtifactBroken("s3://b/bad", "x"),
    }
    desk.cache = ModelCache(
        budget_bytes=10_000,
        prepare=desk.stock.prepare,
        executor=InlineExecutor(),
        max_waiting=4,
        recorder=desk.recorder,
        refused=known.get,
    )
    desk.dispatcher = Dispatcher(desk.cache, desk.recorder, desk.journal, wait_s=1)
    for target, status in (("gone", 400), ("bad", 424)):
        answer = if_warm(desk, x_amzn_sagemaker_target_model=target)
        assert answer.status == status
        assert answer == desk.ask(target=target) == at_once(desk, target=target)
        assert if_warm(desk, Named(target, "hosted")) is None  # that one is somebody's who holds it, or says why not
    known.clear()
    assert if_warm(desk, x_amzn_sagemaker_target_model="gone") is None
    with_fallback = Dispatcher(desk.cache, desk.recorder, desk.journal, wait_s=1, fallback="a")
    known["gone"] = errors.ArtifactMissing("s3://b/gone")
    asked = Request({"content-type": "text/csv", "x-amzn-sagemaker-target-model": "gone"}, CSV, "mms-id")
    assert with_fallback.answer_if_warm(asked) is None  # whose model may have to be loaded
