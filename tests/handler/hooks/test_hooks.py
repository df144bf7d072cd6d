"""The endpoint's own code in the place of ours: found, checked, called, and kept from harming anyone."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from container.limits.libc import allocated_bytes
from handler.cache.model_cache import ModelCache
from handler.dispatch import Dispatcher
from handler.error_responses import plain_fault_of
from handler.errors import ArtifactMissing, HookFailed
from handler.forest.booster_pool import BoosterPool
from handler.hooks.module import Hooks, HooksInvalid, load_hooks
from handler.hooks.scoring import HookedScoring, ObjectMaker
from handler.loading.loader import PreparedModel
from handler.messages import Request
from handler.predictor import Facts, HandlePool
from handler.telemetry.recorder import LiveRecorder
from tests.rig import boosters
from tests.rig.fakes import InlineExecutor

X = boosters.rows(3, 6)
CSV = "\n".join(",".join(map(repr, map(float, row))) for row in X)
EXPECTED = boosters.expected(boosters.segment(1), X)
FOLDS = [boosters.segment(number) for number in (1, 2)]
BOOSTERS = {"a": [boosters.segment(1)], "folds": FOLDS, "linear": [boosters.train(booster="gblinear")]}

Write = Callable[..., Hooks]


@pytest.fixture(autouse=True)
def _leave_the_interpreter_as_it_was() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("sagemaker_program", "beside")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """The hooks of a module with this text."""

    def hooks_of(text: str, name: str = "inference.py", **beside: str) -> Hooks:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        for module, source in beside.items():
            (folder / f"{module}.py").write_text(dedent(source))
        (folder / name).write_text(dedent(text))
        return load_hooks(name, str(folder))

    return hooks_of


class Desk:
    """A dispatcher with hooks, over a real cache and real boosters."""

    def __init__(self, hooks: Hooks, scratch: Path, **options: Any) -> None:
        self.maker = ObjectMaker(hooks, scratch, allocated_bytes)
        self.hooks = hooks
        self.recorder = LiveRecorder()
        self.cache = ModelCache(
            budget_bytes=1 << 20,
            prepare=self.prepare,
            executor=InlineExecutor(),
            max_waiting=40,
            recorder=self.recorder,
        )
        self.dispatcher = Dispatcher(self.cache, self.recorder, wait_s=1, scoring=HookedScoring(hooks), **options)

    def prepare(self, target: str) -> PreparedModel:
        if target not in BOOSTERS:
            raise ArtifactMissing(f"s3://b/{target}")
        kind = "gblinear" if target == "linear" else "gbtree"
        facts = Facts("reg:squarederror", kind, 6, 1, 5000)
        documents = tuple(boosters.document(one) for one in BOOSTERS[target])
        prepared = PreparedModel(
            "v", 6000, 1, 1, 1, documents, (facts,) * len(documents), facts, BoosterPool(HandlePool())
        )
        return self.maker.hook(target, prepared) if self.hooks.needs_objects else prepared

    def ask(self, body: str | bytes = CSV, target: str = "a", **headers: str) -> Any:
        named = {"content-type": "text/csv", "x-amzn-sagemaker-target-model": target}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.dispatcher.answer(Request(named, body.encode() if isinstance(body, str) else body, "mms-id"))


@pytest.fixture
def desk(write: Write, tmp_path: Path) -> Callable[..., Desk]:
    def make(text: str, **options: Any) -> Desk:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return Desk(write(text), scratch, **options)

    return make


Open = Callable[..., Desk]


def numbers(answer: Any) -> np.ndarray:
    assert answer.status == 200, answer.body
    return np.array([line.split(",") for line in answer.body.decode().split()], np.float32)


def refused(answer: Any) -> tuple[int, str]:
    """The status inside a ModelError, and its message."""
    assert answer.status == 424, answer
    fields = json.loads(answer.body)
    assert dict(answer.headers)["x-amzn-errortype"] == "ModelError"
    return fields["OriginalStatusCode"], fields["Message"]


# -- one by one --------------------------------------------------------------------------------------------------------


def test_input_fn_alone_feeds_our_prediction(desk: Open) -> None:
    one = desk("""
        import json
        def input_fn(body, content_type):
            assert content_type == "application/json" and isinstance(body, str)
            return json.loads(body)["rows"]
        """)
    answer = one.ask(json.dumps({"rows": X.tolist()}), content_type="application/json")
    np.testing.assert_array_equal(numbers(answer), EXPECTED)


def test_a_body_that_is_no_csv_or_json_reaches_input_fn_as_bytes(desk: Open) -> None:
    one = desk("""
        import numpy as np
        def input_fn(body, content_type):
            return np.frombuffer(body, np.float32).reshape(-1, 6)
        """)
    np.testing.assert_array_equal(numbers(one.ask(X.tobytes(), content_type="application/x-floats")), EXPECTED)


@pytest.mark.parametrize(
    "made",
    [
        "x",
        "x.astype(float)",
        "x.tolist()",
        "xgboost.DMatrix(x)",
        "scipy.sparse.csr_matrix(x)",
        "scipy.sparse.coo_matrix(x)",
        "np.asfortranarray(x)",
    ],
)
def test_what_input_fn_may_return(desk: Open, made: str) -> None:
    one = desk(f"""
        import numpy as np, scipy.sparse, xgboost
        def input_fn(body, content_type):
            x = np.array([line.split(",") for line in body.splitlines()], np.float32)
            return {made}
        """)
    np.testing.assert_array_equal(numbers(one.ask()), EXPECTED)


def test_what_a_sparse_matrix_leaves_out_is_missing_as_in_a_dmatrix(desk: Open) -> None:
    one = desk("""
        import numpy as np, xgboost
        def input_fn(body, content_type):
            return xgboost.DMatrix(np.array([[0.1, np.nan, 0, 0.4, np.nan, 0.6]]))
        """)
    row = np.array([[0.1, np.nan, 0, 0.4, np.nan, 0.6]], np.float32)
    np.testing.assert_array_equal(numbers(one.ask()), boosters.expected(boosters.segment(1), row))


@pytest.mark.parametrize(
    ("made", "status", "says"),
    [
        ("[[1, 2, 3]]", 400, "6 features"),
        ("[]", 500, "1 axes"),
        ("[[1, 2], [3]]", 400, "no numbers"),
        ("[['a'] * 6]", 400, "no numbers"),
        ("[[float('inf')] * 6]", 400, "infinite"),
        ("object()", 500, "gave a object"),
        ("[1, 2, 3, 4, 5, 6]", 500, "1 axes"),
        ("xgboost.DMatrix([[1, 2, 3, 4, 5, 6]], base_margin=[1.0])", 500, "base_margin"),
    ],
)
def test_what_does_not_fit_our_prediction_is_refused(desk: Open, made: str, status: int, says: str) -> None:
    one = desk(f"import xgboost\ndef input_fn(body, content_type): return {made}")
    got, message = refused(one.ask())
    assert (got, says in message) == (status, True), message


def test_predict_fn_alone_is_handed_rows_and_a_booster(desk: Open) -> None:
    one = desk("""
        import numpy as np, xgboost
        def predict_fn(data, model):
            assert isinstance(model, xgboost.Booster) and data.dtype == np.float32
            return model.inplace_predict(data) * 2
        """)
    np.testing.assert_array_equal(numbers(one.ask()), EXPECTED * 2)
    assert json.loads(one.ask(accept="application/json").body)["predictions"][0]["score"] == EXPECTED[0, 0] * 2


def test_the_folds_of_an_archive_are_a_list_of_boosters(desk: Open) -> None:
    one = desk("def predict_fn(data, model): return sum(m.inplace_predict(data) for m in model)")
    wanted = sum(boosters.expected(fold, X) for fold in FOLDS)
    np.testing.assert_allclose(numbers(one.ask(target="folds")), wanted, rtol=1e-6)


def test_output_fn_alone_is_handed_scores_as_booster_predict_gives_them(desk: Open) -> None:
    one = desk("""
        def output_fn(prediction, accept):
            return f"{accept} {prediction.shape} {prediction.dtype}"
        """)
    answer = one.ask(accept="text/x-mine")
    assert (answer.status, answer.content_type, answer.body) == (200, "text/x-mine", b"text/x-mine (3,) float32")


def test_output_fn_may_say_its_content_type_and_is_told_csv_for_anything(desk: Open) -> None:
    one = desk("def output_fn(prediction, accept): return b'\\x00' + accept.encode(), 'application/x-mine'")
    for headers in ({}, {"accept": "*/*"}):
        answer = one.ask(**headers)
        assert (answer.content_type, answer.body) == ("application/x-mine", b"\x00text/csv")


def test_named_outputs_reach_output_fn_by_name(desk: Open) -> None:
    one = desk("def output_fn(prediction, accept): return ','.join(prediction)", default_outputs=("score", "leaf"))
    assert one.ask().body == b"score,leaf"


def test_model_fn_alone_makes_what_predicts(desk: Open, tmp_path: Path) -> None:
    one = desk("""
        import os, xgboost
        class Doubled:
            def __init__(self, folder):
                assert os.listdir(folder) == ["xgboost-model"]
                self.booster = xgboost.Booster(model_file=os.path.join(folder, "xgboost-model"))
            def predict(self, rows):
                return 2 * self.booster.inplace_predict(rows)
        def model_fn(model_dir):
            return Doubled(model_dir)
        """)
    np.testing.assert_array_equal(numbers(one.ask()), EXPECTED * 2)
    assert os.listdir(tmp_path / "scratch") == []


def test_a_booster_from_model_fn_predicts_as_ours(desk: Open) -> None:
    one = desk("""
        import xgboost
        def model_fn(model_dir):
            return xgboost.Booster(model_file=model_dir + "/xgboost-model")[:3]
        """)
    np.testing.assert_array_equal(numbers(one.ask()), boosters.expected(boosters.segment(1)[:3], X))


def test_all_four_together(desk: Open) -> None:
    one = desk("""
        def model_fn(model_dir): return 10
        def input_fn(body, content_type): return len(body.splitlines())
        def predict_fn(data, model): return data * model
        def output_fn(prediction, accept): return str(prediction)
        """)
    assert one.ask().body == b"30"


def test_transform_fn_stands_for_all_three(desk: Open) -> None:
    one = desk("""
        def transform_fn(model, body, content_type, accept):
            return f"{model.num_features()} {len(body)} {content_type} {accept}", "text/plain"
        """)
    answer = one.ask(accept="text/x-any")
    assert (answer.content_type, answer.body.decode()) == ("text/plain", f"6 {len(CSV)} text/csv text/x-any")


def test_a_context_is_handed_to_whoever_takes_one_more_argument(desk: Open) -> None:
    one = desk("""
        def model_fn(model_dir, context):
            assert context.system_properties["model_dir"] == model_dir
            return context.model_name
        def input_fn(body, content_type, context): return context.get_request_header(0, "X-Trace")
        def predict_fn(data, model, context): return [data, model, context.get_request_id(0)]
        def output_fn(prediction, accept, context):
            context.set_response_content_type(0, "text/x-set")
            properties = context.request_processor[0].get_request_properties()
            return " ".join([*prediction, properties.get("Content-Type")])
        """)
    answer = one.ask(x_trace="t7")
    assert (answer.body, answer.content_type) == (b"t7 a mms-id text/csv", "text/x-set")


def test_the_caller_is_told_cold_from_warm_and_the_stages_as_ever(desk: Open) -> None:
    one = desk("def predict_fn(data, model): return model.inplace_predict(data)")
    cold, warm = (dict(one.ask().headers)["x-amzn-sagemaker-custom-attributes"] for _ in range(2))
    assert cold.startswith("cache=miss,load_ms=")
    assert warm == "cache=hit"
    told = dict(one.ask(x_amzn_sagemaker_custom_attributes="Timing=1").headers)["x-amzn-sagemaker-custom-attributes"]
    assert "predict_us=" in told


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "status", "says"),
    [
        ("ValueError('line 3 has no price')", 400, "input_fn: line 3 has no price"),
        ("errors.BaseInferenceToolkitError(413, 'too long', 'phrase')", 413, "input_fn: too long"),
        ("errors.GenericInferenceToolkitError(422)", 422, "Invalid Request"),
        ("errors.BaseInferenceToolkitError(507, 'm', 'p')", 500, "input_fn: m"),
        ("errors.BaseInferenceToolkitError('x', 'm', 'p')", 500, "input_fn: m"),
        ("errors.UnsupportedFormatError('text/x')", 415, "text/x"),
        ("KeyError('secret')", 500, "input_fn: it failed; the endpoint's log has the trace"),
        ("MemoryError()", 500, "it failed"),
        ("SystemExit(1)", 500, "it failed"),
        ("KeyboardInterrupt()", 500, "it failed"),
    ],
)
def test_what_a_hook_raises_is_the_callers_or_the_logs(
    desk: Open, caplog: pytest.LogCaptureFixture, raised: str, status: int, says: str
) -> None:
    one = desk(f"""
        from sagemaker_inference import errors
        def input_fn(body, content_type):
            if body == "good":
                return [[0.5] * 6]
            raise {raised}
        """)
    with caplog.at_level(logging.ERROR):
        got, message = refused(one.ask("bad"))
    assert (got, says in message) == (status, True), message
    assert "secret" not in message
    if says.endswith("trace"):
        assert "KeyError: 'secret'" in caplog.text
    assert one.ask("good").status == 200


def test_hosted_a_hooks_status_is_the_answers_own() -> None:
    fault = plain_fault_of(HookFailed("input_fn", 413, "too long"))
    assert (fault.status, fault.type) == (413, "HookFailed")


def test_a_model_fn_that_fails_is_an_error_of_its_target_alone(desk: Open, tmp_path: Path) -> None:
    one = desk("""
        def model_fn(model_dir, context):
            if context.model_name == "linear":
                raise KeyError("no such thing")
            return 1
        def predict_fn(data, model): return data[:, 0]
        """)
    assert refused(one.ask(target="linear"))[0] == 500
    assert one.ask().status == 200
    assert one.ask(target="missing").status == 400
    assert os.listdir(tmp_path / "scratch") == []
    assert "linear" not in one.cache


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def predict_fn(data, model): return {'a': 1}", "gave a dict"),
        ("def predict_fn(data, model): return None", "gave a NoneType"),
        ("def predict_fn(data, model): return [[1], [1, 2]]", "its rows differ"),
        ("def predict_fn(data, model): return data[None]", "shape (1, 3, 6)"),
        ("def predict_fn(data, model): return []", "shape (0,)"),
        ("def output_fn(prediction, accept): return {'a': 1}", "gave a dict"),
        ("def output_fn(prediction, accept): return prediction", "gave a ndarray"),
        ("def output_fn(prediction, accept): return 'a', 'b', 'c'", "a tuple of 3"),
        ("def output_fn(prediction, accept): return 'a', 'text/csv\\r\\nx: y'", "no header can hold"),
        ("def output_fn(prediction, accept): return '\\ud800'", "surrogate"),
        ("def model_fn(model_dir): return 1", "has no predict()"),
    ],
)
def test_what_a_hook_returns_is_looked_at(desk: Open, text: str, says: str) -> None:
    status, message = refused(desk(text).ask())
    assert (status, says in message) == (500, True), message


def test_a_body_that_is_no_text_is_told_before_a_hook_sees_it(desk: Open) -> None:
    one = desk("def input_fn(body, content_type): raise SystemExit")
    assert refused(one.ask(b"1,2,\xff"))[0] == 400


def test_an_answer_nobody_can_write_is_refused_before_anything_is_predicted(desk: Open) -> None:
    one = desk("def predict_fn(data, model): raise SystemExit")
    assert refused(one.ask(accept="image/png"))[0] == 406


# -- threads and memory ------------------------------------------------------------------------------------------------


def test_requests_run_hooks_side_by_side_each_with_its_own_context(desk: Open) -> None:
    one = desk("""
        import threading
        meeting = threading.Barrier(4, timeout=10)
        def input_fn(body, content_type, context):
            meeting.wait()
            return [[float(context.get_request_header(0, "x-row"))] * 6]
        """)
    one.ask(content_type="text/csv", body="x", target="missing")

    def call(number: int) -> bool:
        row = np.full((1, 6), number / 4, np.float32)
        return bool((numbers(one.ask(x_row=str(number / 4))) == boosters.expected(boosters.segment(1), row)).all())

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(call, range(4)))


def test_a_booster_that_is_not_safe_on_many_threads_predicts_for_one_at_a_time(desk: Open) -> None:
    one = desk("""
        import threading, time
        inside, most = 0, 0
        def predict_fn(data, model):
            global inside, most
            inside += 1; most = max(most, inside); time.sleep(0.01); inside -= 1
            return data[:, 0] * 0 + most
        """)
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: numbers(one.ask(target="linear")), range(8)))
    assert max(answer.max() for answer in answers) == 1


def test_a_booster_of_a_hook_is_on_the_book_with_what_it_takes() -> None:
    """Native memory by mallinfo2, 20 boosters at once; the objects around them are estimated."""
    document = boosters.document(boosters.train(n_rounds=100, max_depth=6))
    from handler.hooks.scoring import _booster

    native = HandlePool()
    kept: list[Any] = [_booster(document), native.load(document)]
    before = allocated_bytes()
    kept += [native.load(document) for _ in range(20)]
    between = allocated_bytes()
    kept += [_booster(document) for _ in range(20)]
    after = allocated_bytes()
    assert (after - between) / (between - before) == pytest.approx(1, abs=0.1)


def test_a_model_fn_that_unpickles_is_told_what_the_file_is_now(desk: Open, caplog: pytest.LogCaptureFixture) -> None:
    one = desk("""
        import os, pickle

        def model_fn(model_dir):
            with open(os.path.join(model_dir, "xgboost-model"), "rb") as file:
                return pickle.load(file)
        """)
    assert "model_fn seems to unpickle" in caplog.text
    status, message = refused(one.ask())
    assert status == 500
    assert "it unpickles xgboost-model, UBJSON here: xgboost.Booster(model_file=...) reads it" in message


def test_a_model_fn_that_only_names_pickle_is_left_alone(desk: Open, caplog: pytest.LogCaptureFixture) -> None:
    desk("""
        import pickle

        def model_fn(model_dir):
            return open(model_dir + "/xgboost-model").read()
        """)
    assert caplog.text == ""


def test_model_fns_growth_is_the_estimate_for_the_next(write: Write, tmp_path: Path) -> None:
    hooks = write("""
        import ctypes
        malloc = ctypes.CDLL(None).malloc
        def model_fn(model_dir):
            return malloc(400_000)
        """)
    maker = ObjectMaker(hooks, tmp_path, allocated_bytes)
    facts = Facts("reg:squarederror", "gbtree", 6, 1, 10_000)
    prepared = PreparedModel("v", 12_000, 1, 1, 1, (b"document",), (facts,), facts, BoosterPool(HandlePool()))
    first = maker.hook("a", prepared)
    assert 12_000 <= first.n_bytes < 20_000
    first.load()
    assert maker.hook("b", prepared).n_bytes == pytest.approx(400_000, rel=0.1)


# -- the module --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("x = 1\ndef input_fn(:\n", 2, "SyntaxError"),
        ("x = 1\n\nimport no_such_module\n", 3, "No module named 'no_such_module'"),
        ("x = 1\nraise SystemExit(3)\n", 2, "SystemExit: 3"),
        ("x = 1\n1 / 0\n", 2, "ZeroDivisionError"),
        ("import sys\n", None, "defines none of model_fn, input_fn"),
        ("\ndef input_fn(body): pass\n", 2, "input_fn has other arguments than the 2"),
        ("def input_fn(*args): pass\n", 1, "other arguments"),
        ("def input_fn(body, kind, *, context): pass\n", 1, "other arguments"),
        ("def model_fn(a, b, c): pass\n", 1, "model_fn has other arguments than the 1"),
        ("input_fn = 3\n", None, "no function"),
        ("async def input_fn(a, b): pass\n", 1, "coroutine"),
        ("def transform_fn(a, b, c, d): pass\ndef input_fn(a, b): pass\n", None, "transform_fn stands for"),
    ],
)
def test_a_module_that_cannot_be_used_is_told_with_its_line(
    write: Write, text: str, line: int | None, says: str
) -> None:
    path = list(sys.path)
    with pytest.raises(HooksInvalid) as raised:
        write(text)
    assert says in str(raised.value)
    assert "inference.py" in str(raised.value)
    assert raised.value.line == line
    if "Error" in says or "Exit" in says:
        assert sys.path == path


def test_an_error_in_a_module_beside_it_is_told_with_that_ones_line(write: Write) -> None:
    with pytest.raises(HooksInvalid, match=r"beside_bad\.py, line 3: ZeroDivisionError"):
        write("import beside_bad", beside_bad="\n\n1 / 0\n")


def test_a_program_may_be_named_without_its_ending_and_import_what_is_beside_it(write: Write, tmp_path: Path) -> None:
    write("import beside_it\ninput_fn = beside_it.read", beside_it="def read(body, content_type): return 7")
    hooks = load_hooks("inference", str(tmp_path / "code"))
    assert hooks.names == ["input_fn"]
    assert not hooks.needs_objects


def test_a_file_there_takes_the_place_of_no_module_of_ours(write: Write) -> None:
    write("def input_fn(body, content_type): pass", name="handler.py", numpy="raise SystemExit")
    import handler

    assert not hasattr(handler, "input_fn")


@pytest.mark.parametrize(
    ("program", "directory", "says"),
    [
        ("none.py", None, "no such file"),
        ("none.py", "/no/such/place", "no such file in /no/such/place"),
        ("a.py", "s3://b/source.tar.gz", "must be a directory"),
    ],
)
def test_a_program_that_is_not_there(program: str, directory: str | None, says: str) -> None:
    with pytest.raises(HooksInvalid, match=says):
        load_hooks(program, directory)


def test_what_the_toolkit_would_also_call_is_told_to_be_left_out(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("def pre_model_fn(d): pass\ndef input_fn(b, c): pass")
    assert "pre_model_fn is not called" in caplog.text
