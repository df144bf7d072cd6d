"""The platform put together: clock, address, neighbours and rooms, started and closed in order.

Rule: everything a room needs is handed to it here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from container.platform.bus import Bus
from container.platform.clock import Clock
from container.platform.endpoints.configs import Configs
from container.platform.endpoints.models import Models
from container.platform.metrics import Metrics
from container.platform.processes import Processes
from container.platform.service.desk import Desk
from container.platform.service.moto import Moto
from container.platform.service.server import Server
from container.platform.service.tags import Tags
from container.platform.state import Kept, State
from container.platform.traps import Traps

ACCOUNT = "123456789012"
REGION = "us-east-1"


class Platform:
    """Listens from the start, answers as a context manager, and leaves nothing when that ends.

    port      0 is any that is free; see `url`
    clock     else one of `speed`
    state     a directory to go on from, and to write to in the end
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
    ) -> None:
        self.region = region
        self.account = account
        self.traps = Traps(traps)
        with ExitStack() as closing:
            self.clock = clock or Clock(speed)
            closing.callback(self.clock.close)
            self.root = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="mme-platform-")))
            self.moto = Moto(account)
            closing.callback(self.moto.close)
            self.processes = Processes()
            closing.callback(self.processes.close)
            self.bus = Bus(self.clock, self.traps)
            self.metrics = Metrics(self.clock)
            self.tags = Tags(self.moto)
            self.models = Models(self.clock, self.tags)
            self.configs = Configs(self.clock, self.tags, self.models, self.traps)
            desk = Desk(
                [room.operations() for room in (self.tags, self.models, self.configs)],
                self.moto,
                region=region,
                account=account,
                is_throttling=self.traps.is_on("throttling"),
            )
            self._server = Server(host, port, desk.answer)
            closing.callback(self._server.close)
            if state is not None:
                kept = State(state)
                closing.callback(kept.close)
                kept.restore(self._rooms)
                closing.callback(kept.keep, self._rooms)
            self._closing = closing.pop_all()

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def _rooms(self) -> dict[str, Kept]:
        """Those whose knowledge --state keeps."""
        return {"tags": self.tags, "models": self.models, "configs": self.configs}

    def close(self) -> None:
        self._closing.close()

    def __enter__(self) -> Platform:
        self._server.serve()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
