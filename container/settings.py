"""What an operator may set, read once and checked.

Rule: nothing else reads a setting from the environment. A flag of `mme serve` and a variable of the same meaning are one
setting; the flag wins. A bad value is refused with where it came from, what came and what fits; so is a setting that the
chosen mode would ignore.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from handler.archives.limits import ARTIFACT_MAX_BYTES
from handler.attributes import OUTPUTS
from handler.errors import StartRefused

# InvokeEndpoint's limit for a body and an answer. Source: SageMaker guide, hosting FAQs.
MAX_BODY_BYTES = 25 * 1024 * 1024
# What a frame holds besides the body: headers, at most 8 KiB in Netty, with their lengths, and the request's id.
FRAME_EXTRA_BYTES = 64 * 1024
# MMS refuses ports from here on: Connector.java compares with Short.MAX_VALUE.
PORT_LIMIT = 32767

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[kKMGT]i?B?)?")
_UNITS = {
    "": 1,
    "B": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "KI": 2**10,
    "MI": 2**20,
    "GI": 2**30,
    "TI": 2**40,
}


class SettingInvalid(StartRefused):
    """A setting that cannot be used: which one, what came, what fits."""

    def __init__(self, name: str, value: str, wanted: str) -> None:
        super().__init__(f"{name}: {value!r} is not {wanted}")


def size_bytes(text: str) -> int:
    """`2GiB`, `512MB`, `1.5G` or plain bytes."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("a size such as 2GiB, 512MB or 1073741824")
    number, unit = match[1], (match[2] or "").upper().removesuffix("B")
    size = int(float(number) * _UNITS[unit]) if "." in number else int(number) * _UNITS[unit]
    if not 0 < size < 2**60:
        raise ValueError("a size above zero")
    return size


def _mebibytes(least: int) -> Callable[[str], int]:
    """A size from so many MiB on."""

    def parse(text: str) -> int:
        size = size_bytes(text)
        if size < least << 20:
            raise ValueError(f"a size of {least}MiB or more")
        return size

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        wanted = f"a whole number from {low} to {high}"
        try:
            value = int(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not low <= value <= high:
            raise ValueError(wanted)
        return value

    return parse


def _seconds(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        wanted = f"seconds from {low:g} to {high:g}"
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        if not low <= value <= high or math.isnan(value):
            raise ValueError(wanted)
        return value

    return parse


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError("a share from 0 to 1")
    return value


def _text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("a printable text")
    return text.strip()


def _key(text: str) -> str:
    parts = text.split("/")
    if not text.isprintable() or text != text.strip() or "\\" in text or any(part in ("", ".", "..") for part in parts):
        raise ValueError("a key below the models' location, such as _default.tar.gz or us/_default.tar.gz")
    return text


def _namespace(text: str) -> str:
    # CloudWatch API, PutMetricData: 1 to 255 of these, no colon first; AWS/ is for AWS's own services.
    if not re.fullmatch(r"(?!:|AWS/)[\w.\-/#: ]{1,255}", text.strip(), re.ASCII):
        raise ValueError(
            "a CloudWatch namespace: up to 255 letters, digits, spaces and ._-/#:, not beginning with AWS/"
        )
    return text.strip()


def _yes_or_no(text: str) -> bool:
    if text.strip().lower() in {"1", "true", "yes", "on"}:
        return True
    if text.strip().lower() in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError("true or false")


def _level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("debug, info, warning or error")
    return text.upper()


# What an answer may be written as; handler/payload/media.py has the writers.
ANSWER_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    **{name: name for name in ("text/csv", "application/json", "application/jsonlines", "application/x-npy")},
    "application/x-recordio-protobuf": "application/x-recordio-protobuf",
}


def _one_of(words: Mapping[str, str]) -> Callable[[str], str]:
    """One of some words, and what it means."""

    def parse(text: str) -> str:
        try:
            return words[text.strip().lower()]
        except KeyError:
            raise ValueError(f"one of {', '.join(words)}") from None

    return parse


def _outputs(text: str) -> str:
    unknown = [name for name in text.replace(" ", "").lower().split(",") if name not in OUTPUTS]
    if unknown:
        raise ValueError(f"a list of outputs: there is no {unknown[0]!r}; there are {', '.join(OUTPUTS)}")
    return _text(text)


# The modes in which a setting means something. Where it means nothing it is refused, so that nobody believes in it.
HOSTED, STANDALONE = frozenset({"hosted"}), frozenset({"standalone"})


def _setting(
    help: str,
    parse: Callable[[str], Any],
    *variables: str,
    default: Any,
    flag: str,
    modes: frozenset[str] = HOSTED | STANDALONE,
    needs: str = "",
) -> Any:
    """needs   the setting without which it means nothing in hosted mode"""
    metadata = {"help": help, "parse": parse, "variables": variables, "flag": flag, "modes": modes, "needs": needs}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """Where requests come in, how many, how large, and how long they have."""

    hosted: bool = _setting(
        "serve behind SageMaker's Mode=MultiModel: the platform downloads, names and unloads models",
        _yes_or_no,
        "MME_HOSTED",
        "SAGEMAKER_MULTI_MODEL",
        default=False,
        flag="--hosted",
    )
    host: str = _setting("address to listen on; 0.0.0.0 for all", _text, "MME_HOST", default="127.0.0.1", flag="--host")
    port: int = _setting(
        "port to listen on",
        _whole(1, PORT_LIMIT - 1),
        "MME_PORT",
        "SAGEMAKER_BIND_TO_PORT",
        default=8080,
        flag="--port",
    )
    workers: int = _setting(
        "requests answered at the same time",
        _whole(1, 512),
        "MME_WORKERS",
        default=32,
        flag="--workers",
        modes=STANDALONE,
    )
    queue: int = _setting(
        "requests that may wait for a worker; one more gets 503", _whole(1, 100_000), "MME_QUEUE", default=1000,
        flag="--queue",
    )  # fmt: skip
    wait_s: float = _setting(
        "seconds a request waits for its model to load before it gets ModelNotReadyException",
        _seconds(0, 55),  # InvokeEndpoint ends after 60
        "MME_WAIT_S",
        default=30.0,
        flag="--wait",
        modes=STANDALONE,
    )
    drain_s: float = _setting(
        "seconds that requests in flight have after SIGTERM; the last fifth of them without new connections",
        _seconds(0, 25),
        "MME_DRAIN_S",
        default=20.0,
        flag="--drain",
    )
    idle_s: float = _setting(
        "seconds after which a connection without a request is closed, or within twice as many; longer than a balancer's",
        _seconds(1, 86_400),
        "MME_IDLE_S",
        default=300.0,
        flag="--idle",
    )
    max_body_bytes: int = _setting(
        "largest request body and answer", size_bytes, "MME_MAX_BODY", default=MAX_BODY_BYTES, flag="--max-body"
    )
    jvm_heap_bytes: int = _setting(
        "heap of the Java front end", size_bytes, "MME_JVM_HEAP", default=192 * 2**20, flag="--jvm-heap"
    )
    max_models: int | None = _setting(
        "models loaded at once, each with threads and descriptors of its own; else what the limits allow",
        _whole(1, 20_000),
        "MME_MAX_MODELS",
        default=None,
        flag="--max-models",
        modes=HOSTED,
    )
    scratch: str | None = _setting(
        "writable directory for sockets and temporary files; else the system's", _text, "MME_SCRATCH", default=None,
        flag="--scratch",
    )  # fmt: skip
    log_level: str = _setting(
        "debug, info, warning or error", _level, "MME_LOG_LEVEL", default="INFO", flag="--log-level"
    )

    @property
    def jvm_direct_bytes(self) -> int:
        """What Netty may hold outside the heap: bodies on their way through."""
        return self.jvm_heap_bytes // 2

    @property
    def heavy_requests(self) -> int:
        """Requests that take a core or much memory for long, at the same time. Cold calls fill three quarters of the workers
        at most (container/assembly.py); this is half of what they leave, so that both leave some for light calls."""
        return max(1, self.workers // 8)

    @property
    def max_frame_bytes(self) -> int:
        return self.max_body_bytes + FRAME_EXTRA_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifacts:
    """Where artifacts are, and what is kept of them."""

    models: str = _setting(
        "where the artifacts are: s3://bucket/prefix/ or a directory; hosted, what the platform unpacks from: overwritten "
        "ones are noticed then",
        _text,
        "MME_MODELS",
        default="",
        flag="--models",
    )
    endpoint_url: str | None = _setting(
        "another S3 than Amazon's, such as http://127.0.0.1:5000",
        _text,
        "MME_S3_ENDPOINT_URL",
        default=None,
        flag="--s3-endpoint-url",
        needs="models",
    )
    max_artifact_bytes: int = _setting(
        "largest artifact fetched", size_bytes, "MME_MAX_ARTIFACT", default=ARTIFACT_MAX_BYTES, flag="--max-artifact"
    )
    ignore_code: bool = _setting(
        "serve archives that carry a code/ directory, without that code",
        _yes_or_no,
        "MME_IGNORE_CODE",
        default=False,
        flag="--ignore-code",
    )
    max_age_s: float = _setting(
        "seconds within which every model in memory is compared with its artifact, behind the calls; 0 for never",
        _seconds(0, 86_400),
        "MME_MAX_AGE_S",
        default=60.0,
        flag="--max-age",
        needs="models",
    )
    disk_dir: str | None = _setting(
        "directory in which examined models are kept, so that a reload needs no S3; none without it",
        _text,
        "MME_DISK_DIR",
        default=None,
        flag="--disk-dir",
        modes=STANDALONE,
    )
    disk_bytes: int = _setting(
        "how much of it models may take",
        size_bytes,
        "MME_DISK",
        default=10 * 2**30,
        flag="--disk",
        modes=STANDALONE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Which models are in memory, and how many."""

    memory_bytes: int | None = _setting(
        "memory for models, such as 2GiB; else what the container's limit leaves",
        size_bytes,
        "MME_MEMORY",
        default=None,
        flag="--memory",
    )
    loaders: int = _setting(
        "models loaded at the same time; fewer disturb calls of models in memory less",
        _whole(1, 64),
        "MME_LOADERS",
        default=4,
        flag="--loaders",
    )
    preload: str = _setting(
        "models to load before the endpoint says that it is ready: patterns such as eu/*,us/Houston* or all",
        _text,
        "MME_PRELOAD",
        default="",
        flag="--preload",
        modes=STANDALONE,
    )
    pin: str = _setting(
        "models to load first and never evict: patterns as for --preload",
        _text,
        "MME_PIN",
        default="",
        flag="--pin",
        modes=STANDALONE,
    )
    warm: str = _setting(
        "where the endpoint notes its busiest models now and then, to have them in memory before the next start is ready: a "
        "location, or beside for the models' own with .warm behind it",
        _text,
        "MME_WARM",
        default="",
        flag="--warm",
        modes=STANDALONE,
    )
    warm_models: int = _setting(
        "how many of them; each takes a start some milliseconds",
        _whole(1, 100_000),
        "MME_WARM_MODELS",
        default=1000,
        flag="--warm-models",
        modes=STANDALONE,
    )
    warm_interval_s: float = _setting(
        "seconds between two notes",
        _seconds(1, 86_400),
        "MME_WARM_INTERVAL_S",
        default=60.0,
        flag="--warm-interval",
        modes=STANDALONE,
    )
    min_residence_s: float = _setting(
        "seconds for which a model just loaded is not evicted",
        _seconds(0, 3600),
        "MME_MIN_RESIDENCE_S",
        default=0.0,
        flag="--min-residence",
        modes=STANDALONE,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What is answered."""

    outputs: str = _setting(
        "what to predict when a request does not say, such as predicted_label,probability; else the score",
        _outputs,
        "MME_OUTPUT",
        "SAGEMAKER_INFERENCE_OUTPUT",
        default="",
        flag="--output",
    )
    csv_one_line: bool = _setting(
        "write CSV answers as AWS's XGBoost image does behind a multi-model endpoint: all scores on one line",
        _yes_or_no,
        "MME_CSV_ONE_LINE",
        default=False,
        flag="--csv-one-line",
    )
    like: str = _setting(
        "aws: answer, and read bodies, as AWS's XGBoost image does behind a multi-model endpoint",
        _one_of({"aws": "aws"}),
        "MME_LIKE",
        default="",
        flag="--like",
    )
    accept: str = _setting(
        "what to answer when a request does not say; else text/csv, and application/json with --like aws",
        _one_of(ANSWER_TYPES),
        "MME_ACCEPT",
        "SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT",
        default="",
        flag="--accept",
    )
    columns: str = _setting(
        "positional: take named columns in the order they come where a model has no names; else they must be f0, f1, ...",
        _one_of({"named": "named", "positional": "positional"}),
        "MME_COLUMNS",
        default="named",
        flag="--columns",
    )
    folds: str = _setting(
        "first: of an archive with several boosters answer with the first alone; else with all, as one",
        _one_of({"all": "all", "first": "first", "true": "all", "false": "first"}),
        "MME_FOLDS",
        "SAGEMAKER_INFERENCE_ENSEMBLE",
        default="all",
        flag="--folds",
    )
    fallback: str | None = _setting(
        "model that answers for a segment without one, such as _default.tar.gz: the nearest of that name up the key's path; "
        "hosted, the platform refuses such a call itself",
        _key,
        "MME_FALLBACK",
        default=None,
        flag="--fallback",
        modes=STANDALONE,
    )
    iterations: str = _setting(
        "rounds that answer for models that stopped early: all, or those up to the best; else as each model's own predict",
        _one_of({"all": "all", "best": "best"}),
        "MME_ITERATIONS",
        default="",
        flag="--iterations",
    )
    hooks_program: str | None = _setting(
        "a Python file with model_fn, input_fn, predict_fn, output_fn or transform_fn in the place of ours",
        _text,
        "SAGEMAKER_PROGRAM",
        default=None,
        flag="--hooks",
    )
    hooks_directory: str | None = _setting(
        "where that file and its modules are; else here or /opt/ml/model/code",
        _text,
        "SAGEMAKER_SUBMIT_DIRECTORY",
        default=None,
        flag="--hooks-directory",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """What is told about it all, and to whom."""

    admin_port: int | None = _setting(
        "port of the status page, health, models and Prometheus metrics; none without it",
        _whole(1, 65535),
        "MME_ADMIN_PORT",
        default=None,
        flag="--admin-port",
    )
    admin_host: str = _setting(
        "address of that port", _text, "MME_ADMIN_HOST", default="127.0.0.1", flag="--admin-host"
    )
    emf: bool = _setting(
        "write CloudWatch metrics to stdout, in Embedded Metric Format",
        _yes_or_no,
        "MME_EMF",
        default=False,
        flag="--emf",
    )
    cloudwatch: bool = _setting(
        "send CloudWatch metrics with PutMetricData, where nobody reads stdout",
        _yes_or_no,
        "MME_CLOUDWATCH",
        default=False,
        flag="--cloudwatch",
    )
    cloudwatch_endpoint_url: str | None = _setting(
        "another CloudWatch than Amazon's", _text, "MME_CLOUDWATCH_ENDPOINT_URL", default=None,
        flag="--cloudwatch-endpoint-url",
    )  # fmt: skip
    metrics_namespace: str = _setting(
        "CloudWatch namespace",
        _namespace,
        "MME_METRICS_NAMESPACE",
        default="MultiModelEndpoint",
        flag="--metrics-namespace",
    )
    metrics_interval_s: float = _setting(
        "seconds between reports to CloudWatch",
        _seconds(1, 3600),
        "MME_METRICS_INTERVAL_S",
        default=60.0,
        flag="--metrics-interval",
    )
    metrics_per_model: bool = _setting(
        "also report the busiest models one by one; CloudWatch bills each as a metric",
        _yes_or_no,
        "MME_METRICS_PER_MODEL",
        default=False,
        flag="--metrics-per-model",
    )
    top_models: int = _setting(
        "models with figures of their own; the others share one row",
        _whole(1, 1000),
        "MME_TOP_MODELS",
        default=50,
        flag="--top-models",
    )
    endpoint_name: str = _setting(
        "metrics dimension EndpointName", _text, "MME_ENDPOINT_NAME", default="local", flag="--endpoint-name"
    )
    variant_name: str = _setting(
        "metrics dimension VariantName", _text, "MME_VARIANT_NAME", default="AllTraffic", flag="--variant-name"
    )
    replica: str | None = _setting(
        "name of this endpoint among those that share its name; else the host's", _text, "MME_REPLICA", default=None,
        flag="--replica",
    )  # fmt: skip
    capture: str | None = _setting(
        "where calls are written down as SageMaker's data capture does, with their models: s3://bucket/prefix/ or a "
        "directory; nothing without it",
        _text,
        "MME_CAPTURE",
        default=None,
        flag="--capture",
    )
    capture_share: float = _setting(
        "share of the answered calls captured, 0 to 1", _share, "MME_CAPTURE_SHARE", default=1.0, flag="--capture-share"
    )
    capture_models: str = _setting(
        "models whose calls are captured: patterns as for --preload; else all",
        _text,
        "MME_CAPTURE_MODELS",
        default="",
        flag="--capture-models",
    )
    capture_errors: bool = _setting(
        "capture calls that failed, too", _yes_or_no, "MME_CAPTURE_ERRORS", default=False, flag="--capture-errors"
    )
    capture_interval_s: float = _setting(
        "seconds after which a captured call is where it goes",
        _seconds(1, 3600),
        "MME_CAPTURE_INTERVAL_S",
        default=60.0,
        flag="--capture-interval",
    )
    capture_bytes: int = _setting(
        "memory for captured calls on their way", _mebibytes(1), "MME_CAPTURE_MEMORY", default=64 * 2**20,
        flag="--capture-memory",
    )  # fmt: skip
    otlp: str | None = _setting(
        "a collector of OpenTelemetry's, such as http://127.0.0.1:4318, that gets a span of each call with its stages",
        _text,
        "MME_OTLP",
        default=None,
        flag="--otlp",
    )
    otlp_share: float = _setting(
        "share of the calls without a traceparent that become spans, 0 to 1; one with it says so itself",
        _share,
        "MME_OTLP_SHARE",
        default=1.0,
        flag="--otlp-share",
    )
    access_log: float | None = _setting(
        "share of answered requests written to the access log, 0 to 1; errors always; no log without it",
        _share,
        "MME_ACCESS_LOG",
        default=None,
        flag="--access-log",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One endpoint's settings, all checked."""

    front: Front = Front()
    artifacts: Artifacts = Artifacts()
    memory: Memory = Memory()
    answers: Answers = Answers()
    metrics: Metrics = Metrics()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        read = json.loads(text)
        return cls(**{name: group(**read[name]) for name, group in _GROUPS.items()})


_GROUPS: dict[str, type[Any]] = {
    "front": Front,
    "artifacts": Artifacts,
    "memory": Memory,
    "answers": Answers,
    "metrics": Metrics,
}


def every_setting() -> Iterator[Field[Any]]:
    """The fields of all groups, in the order of `--help`; their names are told apart across groups, too."""
    for group in _GROUPS.values():
        yield from fields(group)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting, in groups; each one's help names its variable."""
    for name, group in _GROUPS.items():
        assert group.__doc__ is not None
        titled = parser.add_argument_group(name, group.__doc__)
        for one in fields(group):
            _add_flag(titled, one)


def _add_flag(group: argparse._ArgumentGroup, one: Field[Any]) -> None:
    meta = one.metadata
    default = "" if one.default is None else f"; default {one.default}"
    only = "" if len(meta["modes"]) > 1 else f"; {next(iter(meta['modes']))} only"
    text = f"{meta['help']} ({meta['variables'][0]}{default}{only})"
    if one.type == "bool":
        group.add_argument(meta["flag"], dest=one.name, action="store_const", const="true", help=text)
    else:
        group.add_argument(meta["flag"], dest=one.name, metavar=meta["flag"][2:].upper(), help=text)


def read(flags: Mapping[str, str | None], environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags (by field name), then the environment, then the defaults. Raises SettingInvalid."""
    environ = os.environ if environ is None else environ
    given = {one.name: _given(one, flags.get(one.name), environ) for one in every_setting()}
    values = {
        name: {one.name: _value(one, given[one.name]) for one in fields(group)} for name, group in _GROUPS.items()
    }
    settings = Settings(**{name: group(**values[name]) for name, group in _GROUPS.items()})
    _refuse_ignored(settings.front.hosted, given)
    if not settings.front.hosted and not settings.artifacts.models:
        raise SettingInvalid("--models (or MME_MODELS)", "", "where the artifacts are, or --hosted")
    return settings


def read_one(name: str, flag: str | None, environ: Mapping[str, str] | None = None) -> Any:
    """One setting by its field name, for a command that does not need the others. Raises SettingInvalid."""
    one = next(one for one in every_setting() if one.name == name)
    return _value(one, _given(one, flag, os.environ if environ is None else environ))


@dataclass(frozen=True, slots=True)
class _Given:
    """What somebody wrote: where, and what."""

    where: str
    text: str


def _given(one: Field[Any], flag: str | None, environ: Mapping[str, str]) -> _Given | None:
    if flag is not None:
        return _Given(one.metadata["flag"], flag)
    return next((_Given(name, environ[name]) for name in one.metadata["variables"] if environ.get(name)), None)


def _value(one: Field[Any], given: _Given | None) -> Any:
    if given is None:
        return one.default
    try:
        return one.metadata["parse"](given.text)
    except ValueError as error:
        raise SettingInvalid(given.where, given.text, str(error)) from None


def _refuse_ignored(hosted: bool, given: Mapping[str, _Given | None]) -> None:
    mode = "hosted" if hosted else "standalone"
    for one in every_setting():
        wrote = given[one.name]
        if wrote is not None and mode not in one.metadata["modes"]:
            raise SettingInvalid(wrote.where, wrote.text, f"a setting of {mode} mode, which would ignore it")
        needed = one.metadata["needs"]
        if hosted and wrote is not None and needed and given[needed] is None:
            raise SettingInvalid(wrote.where, wrote.text, f"used in hosted mode without --{needed}")
