"""The operations on jobs.

Rule: a request is refused whole before anything of it begins. What is wrong with its data fails the job, but for a training
channel without objects, which AWS refuses at once.

Sources: botocore's model. Words of refusals: aws/amazon-sagemaker-examples#2489 (no S3 objects); others as logs of SDKs have
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from container import environments
from container.platform.bus import Bus
from container.platform.endpoints.artifacts import own_client
from container.platform.endpoints.containers import Ground
from container.platform.endpoints.models import Models
from container.platform.jobs import channels, processing, training, transform
from container.platform.jobs.book import Book, Record
from container.platform.jobs.life import Life, State
from container.platform.jobs.objects import Address, DataFault, Objects
from container.platform.jobs.plan import PROCESSING, TRAINING, TRANSFORM, Kind, Plan
from container.platform.jobs.refusals import refuse
from container.platform.jobs.rooms import Room, best_room
from container.platform.jobs.running import Running
from container.platform.jobs.transforming import Transforming
from container.platform.rights import Rights
from container.platform.service.call import Call, Operation
from container.platform.service.faults import ServiceFault
from container.platform.service.pages import listed
from container.platform.service.tags import Tags
from container.platform.traps import Traps
from handler import aws

SLOW_START_S = 600.0
# The trap comes while a program is at work: so many platform seconds after it began.
INTERRUPT_S = 60.0
PATIENCE = aws.Patience(read_s=60.0, attempts=3)


@dataclass(frozen=True, slots=True)
class Written:
    """How one kind's requests are understood and its answers written."""

    kind: Kind
    described: Callable[[Mapping[str, Any], str, State], dict[str, Any]]
    summed_up: Callable[[Mapping[str, Any]], dict[str, Any]]
    event: Callable[[Mapping[str, Any]], dict[str, Any]]
    missing: str
    order: str  # of a list that names none. Source: API reference, List*Jobs

    @property
    def name(self) -> str:
        """The member that names a job."""
        return f"{self.kind.name}JobName"

    @property
    def status(self) -> str:
        return f"{self.kind.name}JobStatus"

    def taken(self, arn: str) -> str:
        word = self.kind.name
        return (
            f"{word} job names must be unique within an AWS account and region, and a {word.lower()} job with this name "
            f"already exists ({arn})"
        )


KINDS = (
    Written(TRAINING, training.described, training.summed_up, training.event, "Requested resource not found.", "Ascending"),
    Written(
        PROCESSING, processing.described, processing.summed_up, processing.event,
        "Could not find requested job with name: {name}", "Ascending",
    ),
    Written(
        TRANSFORM, transform.described, transform.summed_up, transform.event,
        "Could not find requested job with name: {name}", "Descending",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Busy:
    """A host whose program runs. name: as CloudWatch's dimension Host has it. disk_bytes: 0 where it tells of none."""

    namespace: str
    name: str
    pid: int
    instance_type: str
    folder: Path
    disk_bytes: int


class Jobs:
    """root: where hosts' trees lie while they live."""

    def __init__(
        self, ground: Ground, bus: Bus, traps: Traps, rights: Rights, tags: Tags, models: Models, root: Path
    ) -> None:
        self._rights = rights
        self._ground = ground
        self._bus = bus
        self._traps = traps
        self._tags = tags
        self._models = models
        self._root = root
        self._books = {written.kind: Book(written.taken) for written in KINDS}

    def operations(self) -> dict[tuple[str, str], Operation]:
        found: dict[tuple[str, str], Operation] = {
            ("sagemaker", "CreateTrainingJob"): self._create_training,
            ("sagemaker", "CreateProcessingJob"): self._create_processing,
            ("sagemaker", "CreateTransformJob"): self._create_transform,
        }
        for written in KINDS:
            found |= _bound(self, written)
        return found

    def dump(self) -> Any:
        return {written.kind.name: self._books[written.kind].dump() for written in KINDS}

    def restore(self, value: Any) -> None:
        for written in KINDS:
            self._books[written.kind].restore(value[written.kind.name])

    def hosts(self) -> list[Busy]:
        """Those whose programs run."""
        return [
            busy
            for kind, book in self._books.items()
            for record in book.all()
            if record.life is not None
            for busy in _busy(kind, record, record.life)
        ]

    def close(self) -> None:
        """No process, mount or file of a job is left."""
        for book in self._books.values():
            book.close()
        for name in ("_s3", "_logs"):
            if name in self.__dict__:
                getattr(self, name).close()

    # -- made when the first job needs them ----------------------------------------------------------------------------

    @cached_property
    def room(self) -> Room:
        return best_room()

    @cached_property
    def _s3(self) -> Any:
        return own_client("s3", self._ground.address, self._ground.region, PATIENCE)

    def _objects(self, role: str) -> Objects:
        """S3 as this role sees it."""
        return Objects(self._s3, lambda action, arn: self._rights.may(role, action, arn))

    def read(self, uri: str, role: str) -> bytes:
        """An object as a role may. Raises DataFault."""
        return self._objects(role).read(Address.of(uri))

    @cached_property
    def _logs(self) -> Any:
        return own_client("logs", self._ground.address, self._ground.region, PATIENCE)

    # -- creating ------------------------------------------------------------------------------------------------------

    def _create_training(self, call: Call) -> Mapping[str, Any]:
        arn = call.arn("training-job", call.parameters["TrainingJobName"])
        self._books[TRAINING].refuse_taken(call.parameters["TrainingJobName"])
        plan = training.plan_of(call.parameters, arn, self._environment)
        self._rights.check_role(plan.role)
        for source in plan.inputs:
            self._refuse_empty(source, plan.role)
        self._begin(KINDS[0], call, arn, lambda record: self._running(plan, KINDS[0], record))
        return {"TrainingJobArn": arn}

    def _create_processing(self, call: Call) -> Mapping[str, Any]:
        arn = call.arn("processing-job", call.parameters["ProcessingJobName"])
        plan = processing.plan_of(call.parameters, arn, self._environment)
        self._rights.check_role(plan.role)
        self._begin(KINDS[1], call, arn, lambda record: self._running(plan, KINDS[1], record))
        return {"ProcessingJobArn": arn}

    def _create_transform(self, call: Call) -> Mapping[str, Any]:
        arn = call.arn("transform-job", call.parameters["TransformJobName"])
        model = self._models.find(call.parameters["ModelName"])
        if model is None:
            refuse(f'Could not find model "{call.arn("model", call.parameters["ModelName"])}".')
        transform.check(call.parameters, model)

        def life(record: Record) -> Life:
            return Transforming(
                call.parameters, model, self._ground, self._told(KINDS[2], record),
                self._objects(model.get("ExecutionRoleArn", "")), self._logs,
                self.room, self._root / f"transform-{record.name}",
                launch_s=self._launch_s,
            )  # fmt: skip

        self._begin(KINDS[2], call, arn, life)
        return {"TransformJobArn": arn}

    def _begin(self, written: Written, call: Call, arn: str, life: Callable[[Record], Life]) -> None:
        asked = {name: value for name, value in call.parameters.items() if name != "Tags"}
        record = Record(call.parameters[written.name], arn, asked)
        self._books[written.kind].add(record, life)
        self._tags.put(arn, call.parameters.get("Tags", ()))
        assert record.life is not None
        record.life.begin()

    def _running(self, plan: Plan, written: Written, record: Record) -> Life:
        return Running(
            plan, self._ground.clock, self._told(written, record), self._objects(plan.role), self._logs, self.room,
            self._root / f"{plan.kind.name.lower()}-{plan.name}",
            launch_s=self._launch_s,
            interrupt_s=INTERRUPT_S if self._traps.is_on("spot-interruption") else None,
            has_capacity=not self._traps.is_on("no-capacity"),
        )  # fmt: skip

    @property
    def _launch_s(self) -> float:
        if self._traps.is_on("creating-forever"):
            return float("inf")
        return SLOW_START_S if self._traps.is_on("slow-start") else 0.0

    @property
    def _environment(self) -> dict[str, str]:
        return environments.played_environment({}, address=self._ground.address, region=self._ground.region)

    def _refuse_empty(self, source: channels.Input, role: str) -> None:
        if source.data_type != channels.PREFIX:
            return
        try:
            is_there = bool(self._objects(role).keys(Address.of(source.uri)))
        except DataFault:
            is_there = False
        if not is_there:
            refuse(channels.nothing_found(source.uri, self._ground.region, role))

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _told(self, written: Written, record: Record) -> Callable[[State], None]:
        """Sends an event for each state that differs in what an event tells."""
        before: list[tuple[str, str]] = []

        def tell(state: State) -> None:
            now = (state.status, state.secondary if written.kind is TRAINING else "")
            if before and before[-1] == now:
                return
            before.append(now)
            detail = written.event(written.described(record.asked, record.arn, state))
            detail["Tags"] = {tag["Key"]: tag["Value"] for tag in self._tags.of(record.arn)}
            self._bus.send(written.kind.detail_type, detail, [record.arn])

        return tell

    def describe(self, written: Written, call: Call) -> Mapping[str, Any]:
        record = self._found(written, call)
        return written.described(record.asked, record.arn, record.state)

    def list(self, written: Written, call: Call) -> Mapping[str, Any]:
        shown = [
            {
                **written.summed_up(written.described(record.asked, record.arn, record.state)),
                "LastModifiedTime": record.state.modified_at,
            }
            for record in self._books[written.kind].all()
        ]
        page, token = listed(
            shown,
            call.parameters,
            lambda one: {
                "Name": one[written.name],
                "Status": one[written.status],
                "CreationTime": one["CreationTime"],
                "LastModifiedTime": one["LastModifiedTime"],
            },
            order=written.order,
        )
        return {f"{written.kind.name}JobSummaries": page, "NextToken": token}

    def stop(self, written: Written, call: Call) -> Mapping[str, Any]:
        record = self._found(written, call)
        state = record.state
        if state.is_over or record.life is None:
            word = written.kind.name.lower()
            refuse(f"The request was rejected because the {word} job is in status {state.status}.")
        record.life.stop()
        return {}

    def _found(self, written: Written, call: Call) -> Record:
        name = call.parameters[written.name]
        record = self._books[written.kind].get(name)
        if record is None:
            raise ServiceFault(written.missing.format(name=name), "ValidationException", 400)
        return record


def _busy(kind: Kind, record: Record, life: Life) -> Iterator[Busy]:
    resources: Mapping[str, Any] = record.asked
    for name in kind.resources:
        resources = resources[name]
    for host in life.hosts():
        if (pid := host.pid) is not None:
            yield Busy(
                kind.log_group,
                f"{record.name}/{host.name}",
                pid,
                resources["InstanceType"],
                host.folder,
                resources.get("VolumeSizeInGB", 0) << 30,
            )


def _bound(jobs: Jobs, written: Written) -> dict[tuple[str, str], Operation]:
    word = written.kind.name
    return {
        ("sagemaker", f"Describe{word}Job"): lambda call: jobs.describe(written, call),
        ("sagemaker", f"List{word}Jobs"): lambda call: jobs.list(written, call),
        ("sagemaker", f"Stop{word}Job"): lambda call: jobs.stop(written, call),
    }
