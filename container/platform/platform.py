"""The platform put together: clock, address, neighbours and rooms, started and closed in order.

Rule: everything a room needs is handed to it here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from types import TracebackType

from container.platform.bill.facts import Parts, facts, whole_bill
from container.platform.bill.ledger import Bill, Ledger
from container.platform.bill.meters import InstanceMeters
from container.platform.bill.pages import pages
from container.platform.bill.serverless import ServerlessMeters
from container.platform.bus import Bus
from container.platform.clock import Clock
from container.platform.components.components import Components
from container.platform.components.ground import Grounds, Starter
from container.platform.components.yard import Times
from container.platform.counts import Counts
from container.platform.delivery import Delivery
from container.platform.endpoints.artifacts import own_client
from container.platform.endpoints.configs import Configs
from container.platform.endpoints.containers import Ground, Images
from container.platform.endpoints.endpoints import Endpoints
from container.platform.endpoints.invoking import Invoking
from container.platform.endpoints.models import Models
from container.platform.endpoints.variants import Surroundings
from container.platform.jobs.room import Jobs
from container.platform.metrics import Metrics
from container.platform.pipelines import execution as pipelines
from container.platform.pipelines.room import Pipelines
from container.platform.pipelines.rules import Starter as Rules
from container.platform.ports import Ports
from container.platform.processes import Processes
from container.platform.registry.packages import Packages
from container.platform.rights import Rights
from container.platform.scaling.resources import VARIANT, Address
from container.platform.scaling.room import Scaling
from container.platform.scheduler import Scheduler
from container.platform.service.call import Request, Response
from container.platform.service.desk import Desk
from container.platform.service.inside import Inside
from container.platform.service.journal import Journal
from container.platform.service.moto import Moto
from container.platform.service.server import Server
from container.platform.service.tags import Tags
from container.platform.state import Kept, State
from container.platform.traps import Traps
from container.platform.utilisation import Utilisation

ACCOUNT = "123456789012"
REGION = "us-east-1"
MAX_THREADS = 64  # loads, starts and stops at the same time


class Platform:
    """Listens from the start, answers as a context manager, and leaves nothing when that ends.

    port      0 is any that is free; see `url`
    clock     else one of `speed`
    state     a directory to go on from, and to write to in the end
    images    image -> the command that stands for it, {port} being where it is to listen; else our own container
    times     how long instances for components come and go; else as measured on SageMaker
    raises    OSError: the port is taken. TrapUnknown. StateRefused
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float = 1.0,
        clock: Clock | None = None,
        state: Path | None = None,
        traps: Iterable[str] = (),
        region: str = REGION,
        account: str = ACCOUNT,
        images: Mapping[str, Sequence[str]] | None = None,
        times: Times | None = None,
    ) -> None:
        self.region = region
        self.account = account
        self.traps = Traps(traps)
        with ExitStack() as closing:
            self.clock = clock or Clock(speed)
            closing.callback(self.clock.close)  # and again in the end, where it is that has failed
            self.root = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="mme-platform-")))
            self._server = Server(host, port, self._answer)
            closing.callback(self._server.close)
            kept = None if state is None else State(state)
            if kept is not None:
                closing.callback(kept.close)
            self.moto = Moto(account, None if kept is None else Journal(kept.directory))
            closing.callback(self.moto.close)
            executor = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="platform")
            closing.callback(executor.shutdown, cancel_futures=True)
            self.processes = Processes()
            closing.callback(self.processes.close)
            self.delivery = Delivery(self.moto, account, region)
            closing.callback(self.delivery.close)
            self.bus = Bus(self.clock, self.traps, self.delivery.deliver)
            self.metrics = Metrics(self.clock)
            self.scaling = Scaling(self.clock, self.metrics, self.moto, region, account)
            self.alarms = self.scaling.alarms
            self.ledger = Ledger(self.clock, region)
            self.tags = Tags()
            self.rights = Rights(self.moto, is_on=self.traps.is_on("role-missing-rights"))
            self.models = Models(self.clock, self.tags, self.rights)
            self.configs = Configs(self.clock, self.tags, self.models, self.traps)
            ground = Ground(self.clock, self.processes, Ports(), Images(images or {}), self.url, region)
            logs = cache(lambda: own_client("logs", self.url, region))
            closing.callback(lambda: logs().close() if logs.cache_info().currsize else None)
            around = Surroundings(ground, self.metrics, self.traps, self.rights, logs, executor, self.root)
            self.endpoints = Endpoints(self.clock, self.tags, self.models, self.configs, around, self.bus, self.alarms)
            closing.callback(self.endpoints.close)
            self.serverless = ServerlessMeters(self.clock, self.endpoints, self.metrics, region)
            self.invoking = Invoking(self.endpoints, self.metrics)
            self.components = Components(
                self.clock,
                self.tags,
                self.models,
                self.metrics,
                self.traps,
                Grounds(self.endpoints).find,
                Starter(around).start,
                executor,
                times,
            )
            closing.callback(self.components.close)
            inside = Inside(self._answer)
            self._join(executor, inside)
            self.packages = Packages(self.clock, self.bus, self.tags)
            self.jobs = Jobs(ground, self.bus, self.traps, self.rights, self.tags, self.models, self.root / "jobs")
            closing.callback(self.jobs.close)
            self.scaling.publish(Utilisation(self.metrics, self.endpoints, self.components, self.jobs).publish)
            self.pipelines = Pipelines(
                pipelines.Surroundings(self.clock, self.bus, partial(inside.ask, "sagemaker"), self.jobs.read),
                self.tags,
                self.rights,
            )
            closing.callback(self.pipelines.close)
            rooms = (
                *(self.tags, self.models, self.configs, self.endpoints, self.invoking),
                *(self.components, self.scaling, self.packages, self.pipelines, self.jobs),
            )
            self._desk = Desk(
                [room.operations() for room in rooms],
                self.moto,
                region=region,
                account=account,
                is_throttling=self.traps.is_on("throttling"),
            )
            parts = Parts(
                *(self.clock, region, self.ledger, self.metrics, self.bus, self.traps),
                *(self.endpoints, self.components, self.scaling, self.serverless),
            )
            self._server.pages |= pages(lambda: facts(parts))
            if kept is not None:
                self.moto.restore()
                kept.restore(self._rooms)
                closing.callback(kept.keep, self._rooms)
            self.scaling.start()
            # First of all no story goes on, so that nothing starts while everything ends.
            closing.callback(self.clock.close)
            self._closing = closing.pop_all()

    @property
    def url(self) -> str:
        return self._server.url

    def bill(self) -> Bill:
        """What all of it would have cost until now."""
        return whole_bill(self.ledger, self.bus.sent, self.region, self.serverless.lines())

    def _answer(self, request: Request) -> Response:
        return self._desk.answer(request)

    def _join(self, executor: Executor, inside: Inside) -> None:
        """Tell the rooms of one another."""
        self.invoking.components = self.components
        self.scaling.auto.find = Counts(self.endpoints, self.components).find
        rules = Rules(inside)
        self.moto.on_first.append(lambda: rules.install(self.account))
        self.scaling.publish(Scheduler(self.moto, self.region, inside).look)
        self.scaling.publish(self.invoking.publish)
        self.scaling.publish(self.components.publish)
        self.endpoints.is_scaled = lambda endpoint, variant: self.scaling.auto.is_registered(
            Address(f"endpoint/{endpoint}/variant/{variant}", VARIANT.dimension)
        )
        self.endpoints.on_news.append(InstanceMeters(self.ledger).hear)
        self.endpoints.on_news.append(lambda news: self.components.instances_changed(news.endpoint))
        self.endpoints.on_gone.append(self.serverless.forget)
        self.endpoints.on_gone.append(lambda endpoint: executor.submit(self.components.endpoint_gone, endpoint.name))
        self.endpoints.on_gone.append(lambda endpoint: self.scaling.auto.forget_endpoint(endpoint.name))

    @property
    def _rooms(self) -> dict[str, Kept]:
        """Those whose knowledge --state keeps."""
        return {
            "tags": self.tags,
            "models": self.models,
            "configs": self.configs,
            "endpoints": self.endpoints,
            "components": self.components,
            "scaling": self.scaling.auto,
            "ledger": self.ledger,
            "packages": self.packages,
            "pipelines": self.pipelines,
            "pipeline executions": self.pipelines.executions,
            "jobs": self.jobs,
        }

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Platform:
        self._server.serve()
        self.endpoints.begin_minutes()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
