"""The file of a deployment: what should be, in TOML, read once and checked.

Rule: every key is a row of a table below, with what fits and what it is for; `init` writes the file from the same rows. A key
that is not there is refused with the nearest that is, and so is one that the file's kind would ignore.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from container.operate.deploy.trouble import FileInvalid

MULTI_MODEL, ZERO, SERVERLESS = "multi-model", "zero", "serverless"
KINDS = (MULTI_MODEL, ZERO, SERVERLESS)
WITH_INSTANCES = frozenset({MULTI_MODEL, ZERO})
ALL_AT_ONCE, CANARY, LINEAR, ROLLING = "all-at-once", "canary", "linear", "rolling"

# A model's name is the deployment's, a dash and ten digits, within SageMaker's 63. Source: botocore's ModelName.
MAX_NAME_CHARS = 50
# Source: botocore's ContainerDefinition, EnvironmentMap, which holds 100; of a component AWS documents 16.
MAX_VARIABLES, MAX_COMPONENT_VARIABLES = 100, 16
N_OWN_VARIABLES = 3  # see resources.py


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("a text")
    return value


def _matching(pattern: str, wanted: str) -> Callable[[object], str]:
    compiled = re.compile(pattern, re.ASCII)

    def parse(value: object) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(wanted)
        return value

    return parse


_NAME = re.compile(r"[a-zA-Z0-9-]+")
_VARIABLE = re.compile(r"[a-zA-Z_]\w*", re.ASCII)


def _name(value: object) -> str:
    if (
        not isinstance(value, str)
        or not 0 < len(value) <= MAX_NAME_CHARS
        or not _NAME.fullmatch(value)
        or value[0] == "-"
        or value[-1] == "-"
    ):
        raise ValueError(f"up to {MAX_NAME_CHARS} letters, digits and dashes, no dash first or last")
    return value


def _one_of(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in words:
            near = nearest(value, words) if isinstance(value, str) else ""
            raise ValueError(f"one of {', '.join(words)}{near}")
        return str(value)

    return parse


def _whole(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low:,} to {high:,}")
        return value

    return parse


def _number(low: float, high: float) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
            or math.isnan(value)
        ):
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)

    return parse


def _yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004  the kind that is told
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError('a list of texts, such as ["a", "b"]')  # noqa: TRY004  the kind that is told
    return tuple(_text(one) for one in value)


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError('a table of texts, such as MME_LOG_LEVEL = "info"')
    return tuple(sorted(value.items()))


def _timezone(value: object) -> str:
    if value != "UTC" and not (isinstance(value, str) and value in available_timezones()):
        raise ValueError("a time zone such as UTC or Europe/Berlin")
    return str(value)


_NIGHTS = re.compile(r"([01]\d|2[0-3])-([01]\d|2[0-3])")


def _nights(value: object) -> str:
    match = _NIGHTS.fullmatch(value) if isinstance(value, str) else None
    if value != "" and (match is None or match[1] == match[2]):
        raise ValueError('two hours, such as "22-06"')
    return str(value)


def _memory(value: object) -> int:
    """MiB; 0 is `auto`."""
    if value == "auto":
        return 0
    try:
        return _whole(128, 3_000_000)(value)
    except ValueError:
        raise ValueError('"auto" or MiB, 128 or more') from None


@dataclass(frozen=True, slots=True)
class Row:
    """One key. example: what `init` writes where there is no default; kinds: those that know it."""

    parse: Callable[[object], Any]
    what: str
    example: str = ""
    kinds: frozenset[str] = frozenset(KINDS)


def _key(
    parse: Callable[[object], Any],
    what: str,
    *,
    default: Any = MISSING,
    example: str = "",
    kinds: frozenset[str] = frozenset(KINDS),
) -> Any:
    metadata = {"row": Row(parse, what, example, kinds)}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


_TYPE = _matching(r"ml\.[a-z0-9-]+\.[a-z0-9]+", "an instance type such as ml.m5.large")
_ROLE = _matching(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+", "a role's ARN")
_MODELS = _matching(r"s3://[a-z0-9.-]+/.*(?<=/)", "an S3 prefix such as s3://bucket/models/, with its slash")
_ONLY_MULTI, _ONLY_ZERO = frozenset({MULTI_MODEL}), frozenset({ZERO})
_FETCHING = frozenset({ZERO, SERVERLESS})  # what fetches its models by itself
_NOT_ZERO = frozenset({MULTI_MODEL, SERVERLESS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Instances:
    """[instances]: the machines, how few and how many."""

    type: str = _key(_TYPE, "each machine", example='"ml.m5.large"', kinds=WITH_INSTANCES)
    least: int = _key(
        _whole(1, 1000), "machines at least; two or more let an update go step by step", default=1, kinds=_ONLY_MULTI
    )
    most: int = _key(_whole(1, 1000), "machines at most; the bill's upper bound", example="2", kinds=WITH_INSTANCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """[scaling]: when there are more or fewer of them."""

    calls_a_minute: float = _key(
        _number(0.01, 1e9),
        "calls a minute that one instance, or one copy, shall get",
        default=6000.0,
        kinds=WITH_INSTANCES,
    )
    out_s: int = _key(_whole(0, 3600), "seconds from one more to the next", default=60, kinds=WITH_INSTANCES)
    in_s: int = _key(_whole(0, 3600), "seconds from one fewer to the next", default=300, kinds=WITH_INSTANCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Zero:
    """[zero]: the component that is there when it is called, and not when it is not."""

    copies: int = _key(_whole(1, 1000), "copies at most, over all machines", default=1, kinds=_ONLY_ZERO)
    memory: int = _key(
        _memory,
        'MiB that a copy reserves; "auto" works it out from the machine and the models',
        default=0,
        kinds=_ONLY_ZERO,
    )
    cores: float = _key(_number(0.25, 512), "processors that a copy reserves", default=1.0, kinds=_ONLY_ZERO)
    start_s: int = _key(_whole(60, 3600), "seconds that a copy has to become healthy", default=300, kinds=_ONLY_ZERO)
    nights: str = _key(_nights, 'hours without any, whoever calls, such as "22-06"', default="", kinds=_ONLY_ZERO)
    timezone: str = _key(_timezone, "whose hours", default="UTC", kinds=_ONLY_ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Serverless:
    """[serverless]: how large and how many at once."""

    memory_gb: int = _key(_whole(1, 6), "GB of each", default=3, kinds=frozenset({SERVERLESS}))
    concurrency: int = _key(
        _whole(1, 200), "calls at once at most; the bill's upper bound", example="3", kinds=frozenset({SERVERLESS})
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """[update]: how a new fleet takes over from the old one."""

    way: str = _key(
        _one_of(ALL_AT_ONCE, CANARY, LINEAR, ROLLING),
        "all-at-once, canary, linear or rolling",
        default=CANARY,
        kinds=_ONLY_MULTI,
    )
    step_percent: int = _key(
        _whole(5, 50), "share of the fleet in the first, or in each, step", default=50, kinds=_ONLY_MULTI
    )
    wait_s: int = _key(_whole(0, 3600), "seconds of each step, in which alarms may stop it", default=300)
    old_s: int = _key(_whole(0, 3600), "seconds that the old fleet stays after that", default=300, kinds=_NOT_ZERO)
    most_s: int = _key(_whole(600, 28_800), "seconds after which it is rolled back", default=3600)
    warm: tuple[str, ...] = _key(
        _texts, "targets to call on the new fleet before the old one goes, with a release's golden rows", default=(),
        kinds=_NOT_ZERO,
    )  # fmt: skip
    keep: int = _key(_whole(1, 50), "configs before this one that stay, to go back to", default=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarms:
    """[alarms]: what stops an update and tells somebody afterwards. 0 is no such alarm."""

    errors_5xx: int = _key(_whole(0, 1_000_000), "5XX answers a minute", default=1)
    model_errors: int = _key(_whole(0, 1_000_000), "calls a minute that the model did not answer", default=20)
    latency_ms: int = _key(_whole(0, 60_000), "milliseconds of the slowest hundredth", default=0)
    minutes: int = _key(_whole(1, 60), "minutes in a row", default=1)
    idle_hours: int = _key(
        _whole(0, 24),
        "hours without a call since the last; of zero, hours without zero",
        default=24,
        kinds=WITH_INSTANCES,
    )
    tell: tuple[str, ...] = _key(_texts, "SNS topics, by ARN", default=())


TABLES: dict[str, tuple[type, frozenset[str]]] = {
    "instances": (Instances, WITH_INSTANCES),
    "scaling": (Scaling, WITH_INSTANCES),
    "zero": (Zero, _ONLY_ZERO),
    "serverless": (Serverless, frozenset({SERVERLESS})),
    "update": (Update, frozenset(KINDS)),
    "alarms": (Alarms, frozenset(KINDS)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What should be. A group that the kind does not know is None."""

    kind: str = _key(
        _one_of(*KINDS),
        "multi-model: machines that SageMaker puts models on; zero: none while nobody calls; serverless",
    )
    name: str = _key(_name, "the endpoint's name, and the beginning of all names under it", example='"prices"')
    image: str = _key(
        _matching(r"\S{1,255}", "an image's address"), "the image, by digest or by a tag that never moves",
        example='"111122223333.dkr.ecr.us-east-1.amazonaws.com/mme:1.0"',
    )  # fmt: skip
    models: str = _key(_MODELS, "the live prefix", example='"s3://acme/prod/"')
    role: str = _key(_ROLE, "the execution role", example='"arn:aws:iam::111122223333:role/mme-execution"')
    month_usd: float = _key(
        _number(0.01, 1e9), "USD that a month may cost at most; what may cost more is refused", example="500"
    )
    region: str = _key(_matching(r"|[a-z]{2}(-[a-z]+)+-\d", "a region"), "else this machine's", default="")
    warm_list: bool = _key(
        _yes_or_no, "it notes its busiest models beside the live prefix, and has them in memory before it is ready",
        default=True, kinds=_FETCHING,
    )  # fmt: skip
    environment: tuple[tuple[str, str], ...] = _key(
        _pairs, "variables of the container, as mme serve --help has them", default=()
    )
    tags: tuple[tuple[str, str], ...] = _key(_pairs, "put on everything that can carry tags", default=())
    instances: Instances | None = None
    scaling: Scaling | None = None
    zero: Zero | None = None
    serverless: Serverless | None = None
    update: Update = Update()
    alarms: Alarms = Alarms()

    @property
    def is_scaled(self) -> bool:
        """Application Auto Scaling has something to do."""
        if self.kind == ZERO:
            return True
        return self.instances is not None and self.instances.most > self.instances.least


def read(path: Path) -> Wanted:
    """Raises FileInvalid."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise FileInvalid(str(path), getattr(error, "strerror", None) or str(error)) from error
    return parse(text, str(path))


def parse(text: str, path: str = "the file") -> Wanted:
    """Raises FileInvalid."""
    try:
        told = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileInvalid(path, str(error)) from error
    if "kind" not in told:
        raise FileInvalid(path, f"kind is missing: one of {', '.join(KINDS)}")
    try:
        kind = _row(Wanted, "kind").parse(told["kind"])
        groups = _groups(told, kind)
        wanted = Wanted(**_values(Wanted, told, kind, ""), **groups)
        _check(wanted)
    except ValueError as error:
        raise FileInvalid(path, str(error)) from error
    return wanted


def nearest(word: str, known: Any) -> str:
    """`; did you mean most?`, or nothing."""
    near = difflib.get_close_matches(word, list(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def rows(table: type) -> dict[str, tuple[Field[Any], Row]]:
    return {one.name: (one, one.metadata["row"]) for one in fields(table) if "row" in one.metadata}


def _row(table: type, name: str) -> Row:
    return rows(table)[name][1]


def _groups(told: dict[str, Any], kind: str) -> dict[str, Any]:
    """Taken out of `told`. Raises ValueError."""
    groups = {}
    for name, (table, kinds) in TABLES.items():
        values = told.pop(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"{name} is a table: [{name}]")  # noqa: TRY004  the kind that is told
        if kind in kinds:
            groups[name] = table(**_values(table, values, kind, f"{name}."))
        elif values:
            raise ValueError(f"[{name}] means nothing where kind is {kind}")
    return groups


def _values(table: type, told: dict[str, Any], kind: str, prefix: str) -> dict[str, Any]:
    known = rows(table)
    usable = [name for name, (_, row) in known.items() if kind in row.kinds]
    values = {}
    for name, value in told.items():
        if name not in known:
            others = usable + ([*TABLES] if not prefix else [])
            raise ValueError(f"there is no key {prefix}{name}{nearest(name, others)}")
        if name not in usable:
            raise ValueError(f"{prefix}{name} means nothing where kind is {kind}")
        try:
            values[name] = known[name][1].parse(value)
        except ValueError as error:
            raise ValueError(f"{prefix}{name}: {value!r} is not {error}") from None
    for name in usable:
        if name not in values and known[name][0].default is MISSING:
            raise ValueError(f"{prefix}{name} is missing: {known[name][1].what}")
    if table is Instances and kind == ZERO:
        values["least"] = 0
    return values


def _check(wanted: Wanted) -> None:
    """What single keys cannot say. Raises ValueError."""
    instances, update = wanted.instances, wanted.update
    if instances is not None and instances.least > instances.most:
        raise ValueError(f"instances.least is {instances.least}, more than instances.most, {instances.most}")
    n_steps = math.ceil(100 / update.step_percent) if update.way in (LINEAR, ROLLING) else 1
    waits_s = update.wait_s * n_steps + update.old_s
    if update.most_s <= waits_s:  # AWS refuses it; source: botocore, MaximumExecutionTimeoutInSeconds
        raise ValueError(f"update.most_s is {update.most_s}, and the waits of an update alone take {waits_s} s")
    if update.way == LINEAR and update.step_percent < 10:
        raise ValueError("update.step_percent is 10 to 50 where update.way is linear")
    most = MAX_COMPONENT_VARIABLES if wanted.kind == ZERO else MAX_VARIABLES
    if len(wanted.environment) > most - N_OWN_VARIABLES:
        raise ValueError(f"environment has {len(wanted.environment)} variables; {most - N_OWN_VARIABLES} is the most")
    for name, _ in wanted.environment:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"environment.{name} is no variable's name")
        if name in ("MME_MODELS", "MME_HOSTED", "SAGEMAKER_MULTI_MODEL"):
            raise ValueError(f"environment.{name} is the deployment's own")
    for name, _ in wanted.tags:
        if name.startswith(("aws:", "mme.")):
            raise ValueError(f"tags.{name}: names that begin with aws: or mme. are not yours")
