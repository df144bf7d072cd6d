"""`mme deploy trial`: the proof on an account, for whoever has one: what is seen, held against what is said of SageMaker.

Rule: it makes everything under names of its own, spends at most what it may, and takes everything down whatever happens. What
it saw is written as it was; whether that is as documented, measured by others or inferred stands beside it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from container.operate.deploy.apply import Carrier, Pace, Tell, apply
from container.operate.deploy.aws import Aws, AwsRefused
from container.operate.deploy.back import delete
from container.operate.deploy.cost import cost_of
from container.operate.deploy.file import MULTI_MODEL, ZERO, Wanted
from container.operate.deploy.health import examine
from container.operate.deploy.names import Json
from container.operate.deploy.plan import COMPONENT_SETTLED, Step
from container.operate.deploy.policies import partition_of
from container.operate.deploy.resources import invocation
from container.operate.deploy.trouble import NotAsAsked
from container.operate.endpoint import waking
from container.operate.exits import CommandFailed
from container.operate.troubles import NotNow, Refused
from container.platform.bill.prices import HOURS_PER_MONTH, PriceUnknown

DOCUMENTED, MEASURED, INFERRED = "documented", "measured by others", "inferred"
MOST_H = 2.0  # that a trial may take, taking it down included
LOOK_H = 1.5  # after which nothing is waited for any more but its end
TARGET, OTHER = "de.tar.gz", "fr.tar.gz"
WAIT_S = 1800.0
ANSWER_S = 120.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing looked at. source: what says that it should be so; is_so: None where it could not be seen."""

    what: str
    expected: str
    source: str
    seen: str
    is_so: bool | None
    took_s: float


@dataclass(slots=True)
class Report:
    """endpoint and bucket: names of the trial's own, gone by now unless `left` says otherwise."""

    endpoint: str
    bucket: str
    seen: list[Seen] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def is_as_expected(self) -> bool:
        return not self.left and all(one.is_so is not False for one in self.seen)

    def facts(self) -> Json:
        return asdict(self)


def trial(aws: Aws, wanted: Wanted, *, most_usd: float, models: dict[str, bytes], body: bytes, answers: dict[str, bytes],
          tell: Tell, pace: Pace) -> Report:  # fmt: skip
    """models: archives by target, TARGET, OTHER and `next`, which is put over TARGET; answers: what each says to `body`.

    raises   Refused when it could cost more than it may
    """
    refuse_cost(wanted, aws.region, most_usd)
    name = f"{wanted.name[:32].rstrip('-')}-trial-{uuid.uuid4().hex[:6]}"
    run = _Trial(aws, wanted, name, models, body, answers, tell, pace)
    return run.run()


def refuse_cost(wanted: Wanted, region: str, most_usd: float) -> float:
    """What it costs at most, in USD: all machines, and a second fleet, for as long as it may take. Raises Refused."""
    try:
        an_hour = cost_of(_awake(wanted), region).most_month / HOURS_PER_MONTH
    except PriceUnknown as error:
        raise Refused(f"there is no upper bound for its bill: {error}") from error
    usd = an_hour * MOST_H * (2 if wanted.kind == MULTI_MODEL else 1)
    if usd > most_usd:
        raise Refused(
            f"a trial may cost {usd:.2f} USD, more than --most-usd {most_usd:g}; smaller or fewer machines do"
        )
    return usd


def _awake(wanted: Wanted) -> Wanted:
    """Without nights: a trial is billed at any hour, and has to be answered."""
    return wanted if wanted.zero is None else replace(wanted, zero=replace(wanted.zero, nights=""))


class _Trial:
    def __init__(
        self, aws: Aws, wanted: Wanted, name: str, models: dict[str, bytes], body: bytes, answers: dict[str, bytes],
        tell: Tell, pace: Pace,
    ) -> None:  # fmt: skip
        self._aws, self._models, self._body, self._answers = aws, models, body, answers
        self._tell, self._pace_down = tell, pace
        self._until_looked = pace.monotonic() + LOOK_H * 3600
        self._pace = replace(pace, sleep=self._sleep)
        self._report = Report(name, name)
        self._wanted = replace(
            _awake(wanted),
            name=name,
            models=f"s3://{name}/models/",
            update=replace(wanted.update, wait_s=60, old_s=60, most_s=1800, warm=()),
        )

    def run(self) -> Report:
        try:
            self._prepare()
            self._look_at_all()
        except CommandFailed as error:
            self._note("the trial", "comes to its end", DOCUMENTED, str(error), is_so=False)
        finally:  # Ctrl-C as well
            self._take_down()
        return self._report

    def _look_at_all(self) -> None:
        self._timed("apply", "makes it", DOCUMENTED, lambda: self._apply(self._wanted))
        self._answers_right("the first call", TARGET)
        self._answers_right("a call of another model", OTHER)
        self._missing_target()
        if self._wanted.kind == ZERO:
            self._sleep_and_wake()
        self._overwritten()
        changed = replace(self._wanted, environment=(*self._wanted.environment, ("MME_LOG_LEVEL", "warning")))
        self._timed(
            "apply of a changed file", "updates it, and it answers then", DOCUMENTED, lambda: self._apply(changed)
        )
        self._wanted = changed
        self._answers_right("a call after the update", OTHER)
        self._timed("a second apply", "has nothing to do", DOCUMENTED, self._nothing_to_do)
        self._figures()

    # what is looked at

    def _answers_right(self, what: str, target: str) -> None:
        expected = self._answers[target]

        def seen() -> str:
            got = self._ask(target)
            if got.strip() != expected.strip():
                raise NotAsAsked(got.decode(errors="replace"))
            return got.decode().strip()

        self._timed(what, expected.decode().strip(), DOCUMENTED, seen)

    def _missing_target(self) -> None:
        words = "Failed to download model data"
        # SageMaker fetches for a multi-model endpoint; of another one, the container says it in its own answer.
        expected = "ValidationError" if self._wanted.kind == MULTI_MODEL else "ModelError"

        def seen() -> str:
            try:
                self._invoke("nobody.tar.gz")
            except AwsRefused as error:
                text = f"{error.code}: {error.message}"
                if error.code != expected or words not in error.message:
                    raise NotAsAsked(text) from error
                return text
            raise NotAsAsked("an answer")

        self._timed("a target that is not there", f"{expected}: {words} ...", DOCUMENTED, seen)

    def _overwritten(self) -> None:
        """What fetches by itself compares with the object now and then; SageMaker's multi-model mode never does."""
        self._put(TARGET, self._models["next"])
        is_ours = self._wanted.kind != MULTI_MODEL
        expected = self._answers["next" if is_ours else TARGET]

        def seen() -> str:
            until = self._pace.monotonic() + ANSWER_S
            while True:
                got = self._ask(TARGET).strip()
                if not is_ours or got == expected.strip() or self._pace.monotonic() > until:
                    break
                self._pace.sleep(self._pace.poll_s)
            if got != expected.strip():
                raise NotAsAsked(got.decode(errors="replace"))
            return got.decode()

        source = INFERRED if is_ours else DOCUMENTED
        self._timed("a model put over another", expected.decode().strip(), source, seen)

    def _sleep_and_wake(self) -> None:
        name = self._wanted.name
        to_zero = Step(
            "to zero", "sagemaker", "UpdateInferenceComponentRuntimeConfig",
            {"InferenceComponentName": name, "DesiredRuntimeConfig": {"CopyCount": 0}}, COMPONENT_SETTLED,
        )  # fmt: skip
        Carrier(self._aws, self._wanted, self._tell, self._pace).carry_out((to_zero,))
        self._timed(
            "a copy count of 0", "no copy is left", DOCUMENTED, lambda: self._until(lambda: self._copies() == 0)
        )

        def refused() -> str:
            try:
                self._invoke(TARGET)
            except AwsRefused as error:
                if not waking.is_asleep(error.code, error.message):
                    raise NotAsAsked(f"{error.code}: {error.message}") from error
                return f"{error.code}: {error.message}"
            raise NotAsAsked("an answer")

        self._timed("a call at zero", f"ValidationError: ... {waking.ASLEEP} ...", MEASURED, refused)
        self._timed("the wake", "answers within 30 minutes", MEASURED, lambda: self._until(self._is_awake))

    def _is_awake(self) -> bool:
        try:
            self._invoke(TARGET)
        except AwsRefused as error:
            if waking.is_asleep(error.code, error.message) or error.status >= 429:
                return False
            raise
        return True

    def _figures(self) -> None:
        def calls() -> bool:
            return (examine(self._aws, self._wanted).calls or 0) > 0

        self._timed("CloudWatch's Invocations", "counts the calls", DOCUMENTED, lambda: self._until(calls))
        health = examine(self._aws, self._wanted)
        seen = "is there" if health.has_log else "is not there" if health.has_log is not None else "may not be read"
        self._note("the log group", "is there", DOCUMENTED, seen, is_so=health.has_log)

    # how

    def _sleep(self, seconds: float) -> None:
        """Every wait but those for its end. Each has an end of its own; all of them together have this one."""
        if self._pace_down.monotonic() >= self._until_looked:
            raise NotNow(f"the trial has taken {LOOK_H:g} h, and may take {MOST_H:g} with its end")
        self._pace_down.sleep(seconds)

    def _prepare(self) -> None:
        bucket = self._report.bucket
        region = self._aws.region
        where: Json = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self._tell(f"make the bucket {bucket}")
        self._aws.call("s3", "CreateBucket", {"Bucket": bucket, **where})
        at = f"arn:{partition_of(self._wanted.role)}:s3:::{bucket}"
        # The role is the file's, which knows another bucket; this one lets it in by itself.
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": self._wanted.role},
                    "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
                    "Resource": [at, f"{at}/*"],
                }
            ],
        }
        self._aws.call("s3", "PutBucketPolicy", {"Bucket": bucket, "Policy": json.dumps(policy)})
        for target in (TARGET, OTHER):
            self._put(target, self._models[target])

    def _put(self, target: str, archive: bytes) -> None:
        self._aws.call("s3", "PutObject", {"Bucket": self._report.bucket, "Key": f"models/{target}", "Body": archive})

    def _apply(self, wanted: Wanted) -> str:
        return f"{apply(self._aws, wanted, tell=self._tell, pace=self._pace).n_calls} calls"

    def _nothing_to_do(self) -> str:
        n_calls = apply(self._aws, self._wanted, tell=self._tell, pace=self._pace).n_calls
        if n_calls:
            raise NotAsAsked(f"{n_calls} calls")
        return "nothing"

    def _invoke(self, target: str) -> bytes:
        return self._aws.invoke(invocation(self._wanted, target, self._body))

    def _ask(self, target: str) -> bytes:
        """An answer, from a component that may have gone to sleep meanwhile."""
        until = self._pace.monotonic() + WAIT_S
        while True:
            try:
                return self._invoke(target)
            except AwsRefused as error:
                if not waking.is_asleep(error.code, error.message) or self._pace.monotonic() > until:
                    raise
            self._pace.sleep(self._pace.poll_s)

    def _copies(self) -> int:
        told = self._aws.call("sagemaker", "DescribeInferenceComponent", {"InferenceComponentName": self._wanted.name})
        return int(told.get("RuntimeConfig", {}).get("CurrentCopyCount", 0))

    def _until(self, is_so: Callable[[], bool]) -> str:
        """Raises NotAsAsked when it never is."""
        until = self._pace.monotonic() + WAIT_S
        while not is_so():
            if self._pace.monotonic() > until:
                raise NotAsAsked(f"not within {WAIT_S / 60:.0f} minutes")
            self._pace.sleep(self._pace.poll_s)
        return "so it is"

    def _timed(self, what: str, expected: str, source: str, look: Callable[[], str]) -> None:
        began = self._pace.monotonic()
        is_so: bool | None = True
        try:
            seen = look()
        except CommandFailed as error:
            seen, is_so = str(error), False
        self._note(what, expected, source, seen, is_so=is_so, took_s=self._pace.monotonic() - began)
        if not is_so and what == "apply":
            raise NotAsAsked(f"nothing else can be looked at: {seen}")

    def _note(
        self, what: str, expected: str, source: str, seen: str, *, is_so: bool | None, took_s: float = 0.0
    ) -> None:
        self._report.seen.append(Seen(what, expected, source, seen, is_so, round(took_s, 1)))
        mark = "as expected" if is_so else "DIFFERS" if is_so is False else "not seen"
        self._tell(f"{mark}: {what}: {seen}")

    def _take_down(self) -> None:
        """All of it, a second time where the first was interrupted."""
        for n in range(2):
            try:
                self._tell("take it down")
                delete(self._aws, self._wanted, tell=self._tell, pace=self._pace_down)
                self._empty_bucket()
            except CommandFailed as error:
                left = f"{error}"
            except KeyboardInterrupt:
                left = "interrupted while it was taken down"
                if n:
                    self._note_left(left)
                    raise
            else:
                return
        self._note_left(left)

    def _note_left(self, why: str) -> None:
        """Told as well: who interrupts a trial gets no report."""
        self._report.left += [f"endpoint {self._report.endpoint} and bucket {self._report.bucket}: {why}"]
        self._tell(f"left: {self._report.left[-1]}")

    def _empty_bucket(self) -> None:
        bucket = {"Bucket": self._report.bucket}
        try:
            for _ in range(100):
                found = [
                    {"Key": one["Key"]} for one in self._aws.call("s3", "ListObjectsV2", bucket).get("Contents", ())
                ]
                if not found:
                    break
                self._aws.call("s3", "DeleteObjects", {**bucket, "Delete": {"Objects": found}})
            self._aws.call("s3", "DeleteBucket", bucket)
        except AwsRefused as error:
            if error.code != "NoSuchBucket":  # it is gone already, or was never made
                raise


def made_up() -> tuple[dict[str, bytes], bytes, dict[str, bytes]]:
    """Three small models, a body, and what each says to it, as the endpoint writes it."""
    import numpy as np
    import xgboost as xgb

    from container.operate.demo.houses import pack

    random = np.random.default_rng(1)
    rows = random.normal(size=(200, 3)).astype(np.float32)
    row = np.array([[0.5, -1.0, 2.0]], np.float32)
    models, answers = {}, {}
    for n, target in enumerate((TARGET, OTHER, "next"), 1):
        booster = xgb.train({"max_depth": 3, "nthread": 1}, xgb.DMatrix(rows, rows @ [n, -n, 1.0], nthread=1), 10)
        models[target] = pack(bytes(booster.save_raw("ubj")))
        (score,) = booster.predict(xgb.DMatrix(row, nthread=1))
        answers[target] = str(score).encode()
    return models, b"0.5,-1.0,2.0", answers


def report_lines(report: Report) -> list[str]:
    from container.operate.printing import fact

    lines = []
    for one in report.seen:
        mark = "yes" if one.is_so else "DIFFERS" if one.is_so is False else "not seen"
        lines.append(fact(mark, f"{one.what}: {one.expected}", f"({one.source}, {one.took_s:g} s)"))
        if one.is_so is not True or one.seen != one.expected:
            lines.append(fact("", f"seen: {one.seen}"))
    lines += [fact("left", one) for one in report.left] or [fact("left", "nothing")]
    return lines
