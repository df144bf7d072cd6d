"""Every regular expression that meets a text from outside: its time grows with the text's length and no faster.

Rule: each compiled expression of the house is in the table below, with the way it is used; a new one is not forgotten.
"""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from handler.patterns import Patterns

ROOT = Path(__file__).parents[1]

MAX_GROWTH = 64  # for sixteen times the length; the square would be 256
FLOOR_S = 0.003
LENGTHS = (4_000, 16_000, 64_000, 256_000, 1_024_000)

# What is never given a text of a caller, an artifact or a store.
OPERATORS = {
    "container.image.ecr", "container.image.sbom", "container.image.wheel",  # the person who builds
    "container.settings", "container.environments",  # the operator's own environment
    "container.operate.deploy.file",  # and file
}  # fmt: skip

# How each is used. "match" and "fullmatch" start at the text's first character, "search" and "sub" at every one.
USES = {
    "container.capture.layout._ODD": "sub",
    "container.worker.warm._ODD": "sub",
    "container.operate.drift.command._SPAN": "fullmatch",
    "container.operate.fleet.kubernetes._MEMORY": "fullmatch",
    "container.operate.fleet.kubernetes._NAME": "fullmatch",
    "container.operate.fleet.replicas._ADDRESS": "fullmatch",
    "handler.stores.location.BUCKET": "fullmatch",
    "handler.stores.location.ACCESS_POINT": "match",
    "handler.stores.directory_writing._IS_PART": "fullmatch",
    "handler.hooks.module._UNPICKLING": "search",
    "handler.importer.foreign._DUMP": "match",
    "handler.importer.foreign._PMML": "match",
    "handler.importer.foreign._ONNX": "match",
    "handler.importer.predicting._CLASS": "fullmatch",
    "handler.importer.pickles._DTYPE": "fullmatch",
    "handler.stores.location.SCHEME": "match",
    "handler.patterns._WILD": "search",
    "handler.archives.members.MODEL_NAME": "fullmatch",
    "handler.archives.members.FOLD_NAME": "fullmatch",
    "handler.payload.numbers._NUMBER": "fullmatch",
    "handler.payload.numbers._MISSING": "fullmatch",
    "handler.payload.numbers._INFINITY": "fullmatch",
    "handler.payload.delimited._MISSING": "sub",
    "handler.payload.npy._DESCR": "search",
    "handler.payload.npy._ORDER": "search",
    "handler.payload.npy._SHAPE": "search",
    "handler.payload.jsonbody._HEAD": "match",
    "handler.payload.libsvm._INDEX": "fullmatch",
    "handler.payload.libsvm._COMMENT": "sub",
    "handler.importer.json_text._STRING": "sub",
    "handler.importer.document.NUMBER": "fullmatch",
    "handler.importer.document.COUNT": "fullmatch",
    "handler.importer.document.WHOLE": "fullmatch",
    "handler.importer.formats.BINARY_HEAD": "match",
    "handler.importer.formats.OLD_PICKLE": "match",
    "handler.importer.pickles._INT": "fullmatch",
    "container.metrics.access_log._NOT_TOKEN": "sub",
    "container.operate.release.manifest.ID": "fullmatch",
    "container.operate.release.manifest.MORE_IS_BETTER": "fullmatch",
    "container.operate.release.sources._SUFFIX": "search",
    "container.worker.connection._IO_NAME": "fullmatch",
    "container.worker.hosted.gates._QUESTION": "fullmatch",
    "container.launch.binder._LINE": "fullmatch",
    "container.launch.stubs._REQUEST": "fullmatch",
    "container.platform.hosting.front._PATH": "fullmatch",
    "container.platform.service.reading._IN_BRACKETS": "sub",
    "container.platform.scaling.formulas._TOKEN": "match",
    "container.platform.scaling.resources._VARIANT": "fullmatch",
    "container.platform.scaling.resources._COMPONENT": "fullmatch",
    "container.platform.scaling.schedules._AT": "fullmatch",
    "container.platform.scaling.schedules._RATE": "fullmatch",
    "container.platform.scaling.schedules._CRON": "fullmatch",
}

# Repeated to any length, with an end that does not fit, they make an expression that can try twice try for ever.
PARTS = (
    *(
        "1",
        "1.",
        "a",
        "a.",
        ".",
        " ",
        "-",
        "+",
        "e1",
        "nan",
        "null",
        "inf",
        '"',
        "\\",
        "#",
        ":",
        "/",
        "a/",
        "_",
        "\n",
        "\0",
        ",",
    ),
    *("'shape': (1, ", "'descr': '", "'fortran_order':  ", "'shape':  ( 1 , 1  ", "c.", "i.", "(", "]q", "binf"),
    *(
        "xgboost-model-1",
        "W-1",
        "Model a unregistered",
        "bind 1",
        ".mms.sock.1 reply.1 ",
        "/endpoints/a",
        "a://",
        "A0+.-",
        "endpoint/a/variant/a-",
        "inference-component/a-",
        "cron(0 ",
        "rate(1",
    ),
)
ENDS = ("", "!", "x", "\n", "1", " ")


def sources() -> dict[str, Path]:
    """Every module of the house, by name."""
    found = [path for package in ("container", "handler") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in found if path.stem[:2] != "__"}


def expressions() -> dict[str, re.Pattern[Any]]:
    """Every expression that a module made when it was imported, by the name that module has for it."""
    found: dict[int, tuple[str, re.Pattern[Any]]] = {}
    for name, path in sources().items():
        if "re.compile(" in path.read_text():
            for attribute, value in vars(importlib.import_module(name)).items():
                if isinstance(value, re.Pattern) and re.search(
                    rf"^{attribute}\b.*= re.compile", path.read_text(), re.M
                ):
                    found[id(value)] = (f"{name}.{attribute}", value)
    return dict(found.values())


def test_no_expression_is_forgotten() -> None:
    found = {name for name in expressions() if name.rpartition(".")[0] not in OPERATORS}
    assert found == set(USES)


def test_none_is_made_or_used_on_the_fly() -> None:
    """`re.match(...)` in the middle of a function would be in no table."""
    made = {
        f"{name}:{node.func.attr}"
        for name, path in sources().items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "re"
        and node.func.attr != "compile"
        and name not in OPERATORS
    }
    assert made == {"container.metrics.prometheus:findall"}  # the names of our own metrics


def seconds(work: Callable[[], object], enough_s: float) -> float:
    """On this thread's own clock, so that others who use the processor do not count; the shortest of three if it was long."""
    taken: list[float] = []
    while not taken or (len(taken) < 3 and taken[-1] > enough_s):
        started = time.thread_time()
        work()
        taken.append(time.thread_time() - started)
    return min(taken)


def grows_no_faster(work: Callable[[str], object], part: str, end: str) -> None:
    before, last = FLOOR_S, FLOOR_S
    for length in LENGTHS:
        taken = seconds(partial(work, part * (length // len(part)) + end), MAX_GROWTH * before)
        assert taken < MAX_GROWTH * before, (
            f"{part!r} and {end!r}, {length} characters: {taken:.3f} s, was {before:.3f} s"
        )
        before, last = last, max(taken, FLOOR_S)
        if taken < FLOOR_S / 100:
            break  # it gave up at once, and will with more of the same


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", USES)
def test_its_time_grows_with_the_text_and_no_faster(name: str) -> None:
    expression = expressions()[name]
    use = getattr(expression, USES[name])
    is_bytes = isinstance(expression.pattern, bytes)

    def work(text: str) -> object:
        subject: Any = text.encode() if is_bytes else text
        return use(subject[:0], subject) if USES[name] == "sub" else use(subject)

    for part in PARTS:
        for end in ENDS:
            grows_no_faster(work, part, end)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", ["*a*a*a*b", "a*a*a*a*?", "*.*.*", "[a-z]*[0-9]*!", "*" * 40 + "b"])
def test_a_callers_target_meets_an_operators_pattern_in_linear_time(pattern: str) -> None:
    for part in ("a", "a.", "1", "az09"):
        for end in ENDS:
            grows_no_faster(Patterns([pattern]).match, part, end)
