"""`mme demo --zero`: recommendations by a ranking model per user group, from an endpoint that is there when it is called.

Rule: the endpoint is made by `mme deploy`'s own apply on the platform's own address, its container is `mme serve`, and what
is shown was answered, counted by the platform's clock or billed by its ledger. What is reckoned is said to be.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from container.operate.deploy.apply import Pace, apply
from container.operate.deploy.aws import Aws
from container.operate.deploy.file import Wanted, parse
from container.operate.endpoint import waking
from container.operate.exits import CommandFailed, Exit
from container.operate.printing import lines_of
from container.operate.stopping import Steps
from container.platform.bill.prices import HOURS_PER_MONTH, price_usd_per_hour

if TYPE_CHECKING:
    import numpy as np
    import xgboost as xgb

    from container.operate.endpoint.calling import Answered, Endpoint
    from container.platform.platform import Platform

BUCKET, PREFIX, NAME = "rankings", "live/", "ranking"
MACHINE = "ml.m5.large"
ROLE = "arn:aws:iam::123456789012:role/mme-execution"
GROUPS = tuple(f"{country}-{age}" for country in ("de", "fr", "it", "pl") for age in ("18", "30", "50"))
N_USERS, N_ITEMS, N_SHOWN = 2_000, 40, 3  # users of a group; items that may be shown to one, and are
N_ASKED = 10
N_TREES = 30
N_VISITS_A_DAY = 4  # times a day that somebody comes after nobody did for half an hour: reckoned with, not seen
# From the first call to nobody again: a wake, and 25 minutes to zero. Source: AWS's blog on scaling to zero, December 2024.
AWAKE_S = 5.03 * 60 + 25 * 60
JOB_START_S = 240.0  # that a nightly job's machine is paid for before it begins: reckoned with, not seen
PATIENCE_S = 120.0
SEED = 7

_FILE = f"""
kind = "zero"
name = "{NAME}"
image = "mme@sha256:{"0" * 64}"
models = "s3://{BUCKET}/{PREFIX}"
role = "{ROLE}"
month_usd = 200
[instances]
type = "{MACHINE}"
most = 1
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One user's recommendations. is_hit: the group's model was in memory."""

    group: str
    user: int
    items: tuple[int, ...]
    ms: float
    is_hit: bool | None


@dataclass(frozen=True, slots=True)
class Ways:
    """Both ways, for a month: machine hours and USD, answers kept in a cache and those of them that were asked for.

    wake_s    as it was seen here, where a container starts in real time on a clock that runs faster
    batch_s   that XGBoost takes for all users, measured on some
    """

    wake_s: float
    zero_hours: float
    zero_usd: float
    batch_s: float
    batch_hours: float
    batch_usd: float
    n_cached: int
    cached_bytes: int
    n_asked: int
    always_usd: float


def tell(steps: Steps, *, speed: float, is_once: bool, is_json: bool) -> int:
    """Raises CommandFailed; KeyboardInterrupt when it is to end before it is told."""
    from container.platform.platform import Platform

    with contextlib.ExitStack() as closing:
        platform = closing.enter_context(Platform(speed=speed))
        story = _Story(platform, _say(is_json=is_json), steps)
        facts = story.tell()
        if is_json:
            print(json.dumps(facts), flush=True)
        if not is_once:
            story.say("platform", f"{platform.url}/_platform has its states and its bill; Ctrl-C ends it")
            steps.stop.wait()
    return Exit.OK


def _say(*, is_json: bool) -> Callable[..., None]:
    def say(word: str, *lines: str) -> None:
        print(lines_of(word, *lines), file=sys.stderr if is_json else sys.stdout, flush=True)

    return say


class _Story:
    def __init__(self, platform: Platform, say: Callable[..., None], steps: Steps) -> None:
        from container.operate.endpoint.calling import client

        self._platform, self.say, self._steps = platform, say, steps
        self._sagemaker = client("sagemaker", platform.url)
        self._began = platform.clock.now()

    def tell(self) -> dict[str, Any]:
        import numpy as np

        from container.operate.endpoint.calling import Endpoint, client

        url = self._platform.url
        random = np.random.default_rng(SEED)
        boosters = self._fill(client("s3", url))
        client("iam", url).create_role(RoleName="mme-execution", AssumeRolePolicyDocument="{}")
        wanted = parse(_FILE)
        self._apply(wanted)
        self._until(lambda: self._counts() == (0, 0), "comes to zero")
        asleep_usd = self._platform.bill().usd
        self.say(
            "asleep", f"{self._at()}: nobody called, so there is no copy and no machine",
            f"so far it cost {asleep_usd:.3f} USD, and nothing from now on",
        )  # fmt: skip

        users = random.permutation(len(GROUPS) * N_USERS)[:N_ASKED]
        endpoint = Endpoint.on_sagemaker(NAME, component=NAME, url=url)
        wake_s, shown = self._wake(endpoint, users)
        shown += [self._ask(endpoint, int(user)) for user in users[1:]]
        for one in shown:
            items = ", ".join(str(item) for item in one.items)
            self.say("", f"user {one.user:<5} of {one.group}   items {items:<12} {one.ms:7.1f} ms  {_temperature(one)}")
        self._hold_against(boosters, shown)
        ways = self._ways(boosters, wake_s, len(shown))
        self._tell_ways(ways)
        return {"shown": [asdict(one) for one in shown], "ways": asdict(ways), "asleep_usd": asleep_usd, "url": url}

    def _fill(self, s3: Any) -> dict[str, xgb.Booster]:
        from container.operate.demo.houses import pack

        began = time.perf_counter()
        boosters = {group: self._train(group) for group in GROUPS}
        s3.create_bucket(Bucket=BUCKET)
        n_bytes = 0
        for group, booster in boosters.items():
            archive = pack(bytes(booster.save_raw("ubj")))
            n_bytes += len(archive)
            s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}{target_of(group)}", Body=archive)
        self.say(
            "trained",
            f"{len(GROUPS)} groups' rankings in {time.perf_counter() - began:.1f} s, "
            f"{n_bytes / len(GROUPS) / 1024:.0f} KiB each",
            f"on an S3 of the platform's at s3://{BUCKET}/{PREFIX}",
        )
        return boosters

    def _train(self, group: str) -> xgb.Booster:
        self._steps.begin()
        return train_group(group)

    def _apply(self, wanted: Wanted) -> None:
        from container.operate.endpoint.calling import client

        url = self._platform.url
        said: list[str] = []
        aws = Aws(client=lambda service: client(service, url))
        applied = apply(aws, wanted, tell=said.append, pace=Pace(poll_s=0.2, sleep=self._steps.pause))
        self.say("applied", *(line.strip() for line in said if not line.startswith("put the alarm")))
        self.say("", f"{applied.n_calls} calls; it is {self._at()}")

    def _wake(self, endpoint: Endpoint, users: np.ndarray) -> tuple[float, list[Shown]]:
        from container.operate.endpoint.calling import CallRefused

        user = int(users[0])
        try:
            self._call(endpoint, user)
            raise CommandFailed("the endpoint should sleep and answers")
        except CallRefused as error:
            self.say("called", f"{self._at()}: user {user} of {group_of(user)} comes", f"{error.type}: {error.message}")
            if not waking.is_asleep(error.type, error.message):
                raise
        began_s = self._platform.clock.monotonic()
        shown = self._ask(endpoint, user)
        wake_s = self._platform.clock.monotonic() - began_s
        self.say(
            "awake", f"{self._at()}, {wake_s / 60:.0f} min after the call that found it asleep (mme invoke --wake)"
        )
        return wake_s, [shown]

    def _ask(self, endpoint: Endpoint, user: int) -> Shown:
        """On a fast clock it may be asleep again before the next user comes."""
        self._steps.begin()
        answered = waking.awake(
            lambda: self._call(endpoint, user), PATIENCE_S, lambda _: None, sleep=lambda _: self._steps.pause(0.2)
        )
        return _shown(user, answered)

    def _call(self, endpoint: Endpoint, user: int) -> Answered:
        body = "\n".join(",".join(f"{value:.4f}" for value in row) for row in rows_of(user))
        return endpoint.call(target_of(group_of(user)), body.encode())

    def _hold_against(self, boosters: dict[str, xgb.Booster], shown: list[Shown]) -> None:
        """Raises CommandFailed: what was shown is not what XGBoost itself would rank first."""
        for one in shown:
            if best_of(boosters[one.group], one.user) != one.items:
                raise CommandFailed(f"user {one.user} was shown {one.items}, which is not what the model says")
        self.say("checked", f"all {len(shown)} are as XGBoost's own predict ranks them")

    def _ways(self, boosters: dict[str, xgb.Booster], wake_s: float, n_asked: int) -> Ways:
        self._steps.begin()
        began = time.perf_counter()
        kept = {user: best_of(boosters[group_of(user)], user) for user in _sample()}
        batch_s = (time.perf_counter() - began) * len(GROUPS) * N_USERS / len(kept)
        row_bytes = len(json.dumps({"user": 10_000, "items": kept[next(iter(kept))]}))
        per_hour = price_usd_per_hour(MACHINE, self._platform.region)
        days = HOURS_PER_MONTH / 24
        zero_hours = N_VISITS_A_DAY * AWAKE_S / 3600 * days
        batch_hours = (JOB_START_S + batch_s) / 3600 * days
        n_all = len(GROUPS) * N_USERS
        return Ways(
            wake_s=wake_s,
            zero_hours=zero_hours,
            zero_usd=zero_hours * per_hour,
            batch_s=batch_s,
            batch_hours=batch_hours,
            batch_usd=batch_hours * per_hour,
            n_cached=n_all,
            cached_bytes=n_all * row_bytes,
            n_asked=n_asked,
            always_usd=per_hour * HOURS_PER_MONTH,
        )

    def _tell_ways(self, ways: Ways) -> None:
        for line in self._platform.bill().lines:
            what = f"{line.what}  {line.instance_type}  {line.seconds / 3600:.2f} h"
            self.say("bill", f"{what}  {line.usd or 0:.3f} USD until now, by the platform's clock")
        self.say(
            "a month",
            f"zero     {ways.zero_usd:7.2f} USD, {ways.zero_hours:.0f} machine hours: answers of now, the first ones late",
            f"nightly  {ways.batch_usd:7.2f} USD, {ways.batch_hours:.1f} machine hours: answers of last night, a cache of",
            f"                  {ways.n_cached:,} of them, {ways.cached_bytes / 1024:,.0f} KiB, of which {ways.n_asked} "
            "were asked for here",
            f"always   {ways.always_usd:7.2f} USD, one {MACHINE}",
            f"reckoned with {N_VISITS_A_DAY} wakes a day of {AWAKE_S / 60:.0f} minutes each, and {JOB_START_S:.0f} s "
            "before a job begins",
        )

    # the platform

    def _counts(self) -> tuple[int, int]:
        told = self._sagemaker.describe_inference_component(InferenceComponentName=NAME)
        variant = self._sagemaker.describe_endpoint(EndpointName=NAME)["ProductionVariants"][0]
        return told["RuntimeConfig"]["CurrentCopyCount"], variant["CurrentInstanceCount"]

    def _until(self, is_so: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE_S + 3600 / self._platform.clock.speed
        while not is_so():
            if time.monotonic() > until:
                raise CommandFailed(f"the endpoint never {what}")
            self._steps.pause(0.2)

    def _at(self) -> str:
        """`minute 31`, by the platform's clock."""
        now: datetime = self._platform.clock.now()
        return f"minute {(now - self._began).total_seconds() / 60:.0f}"


def target_of(group: str) -> str:
    return f"{group}.tar.gz"


def group_of(user: int) -> str:
    return GROUPS[user // N_USERS]


def rows_of(user: int) -> np.ndarray:
    """(N_ITEMS, 5): what the user is like, beside what each item is like, with four digits as they are sent."""
    import numpy as np

    random = np.random.default_rng((SEED, user))
    person = random.normal(size=2)
    items = np.random.default_rng((SEED, user // N_USERS)).normal(size=(N_ITEMS, 3))
    return np.column_stack([np.tile(person, (N_ITEMS, 1)), items]).round(4)


def train_group(group: str) -> xgb.Booster:
    """Who likes what differs by group."""
    import numpy as np
    import xgboost as xgb

    at = GROUPS.index(group)
    taste = np.random.default_rng((SEED, 1000 + at)).normal(size=(2, 3))
    rows = np.concatenate([rows_of(at * N_USERS + user) for user in range(60)])
    liked = np.einsum("np,pi,ni->n", rows[:, :2], taste, rows[:, 2:])
    grades = np.digitize(liked, np.quantile(liked, [0.6, 0.85, 0.95]))
    data = xgb.DMatrix(rows.astype(np.float32), grades, qid=np.repeat(np.arange(60), N_ITEMS), nthread=1)
    parameters = {"objective": "rank:pairwise", "max_depth": 4, "eta": 0.2, "nthread": 1, "seed": SEED}
    return xgb.train(parameters, data, N_TREES)


def best_of(booster: xgb.Booster, user: int) -> tuple[int, ...]:
    import numpy as np
    import xgboost as xgb

    scores = booster.predict(xgb.DMatrix(rows_of(user).astype(np.float32), nthread=1))
    return _best(scores.tolist())


def _best(scores: list[float]) -> tuple[int, ...]:
    return tuple(sorted(range(len(scores)), key=lambda item: (-scores[item], item))[:N_SHOWN])


def _shown(user: int, answered: Answered) -> Shown:
    scores = [float(word) for word in answered.body.decode().replace(",", "\n").split()]
    return Shown(group_of(user), user, _best(scores), round(answered.ms, 1), answered.is_hit)


def _sample() -> Iterator[int]:
    """Every hundredth user, for a measure of what all of them take."""
    return iter(range(0, len(GROUPS) * N_USERS, 100))


def _temperature(one: Shown) -> str:
    return "" if one.is_hit is None else "warm" if one.is_hit else "cold"
