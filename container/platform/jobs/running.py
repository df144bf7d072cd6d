"""A job of programs: hosts made ready, programs run on them, what they leave taken to S3; and again after an interruption.

Rule: an attempt has hosts of its own. What the next one knows of it is what was in S3.

Sources: SageMaker guide, model-managed-spot-training, model-checkpoints; StopTrainingJob and StopProcessingJob in botocore's
model.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Any

from container.platform.clock import Clock
from container.platform.jobs import channels, tree, uploads
from container.platform.jobs.figures import Read
from container.platform.jobs.host import Host
from container.platform.jobs.life import (
    COMPLETED,
    FAILED,
    INTERRUPT,
    RUNTIME,
    STOP,
    STOPPED,
    WAIT,
    WINDOW_S,
    Life,
    State,
)  # fmt: skip
from container.platform.jobs.objects import DataFault, Objects
from container.platform.jobs.plan import TRAINING, Plan
from container.platform.jobs.rooms import Room

log = logging.getLogger("mme.platform.jobs")

MIRROR_EVERY_S = 1.0  # real seconds, between two looks at what has changed
NO_CAPACITY = (
    "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance type."
)
ENDED, BROKE = "ended", "broke"


class Running(Life):
    """A training or a processing job.

    launch_s        from Starting to hosts that are there, by the platform's clock
    has_capacity    whether hosts can be had at all
    interrupt_s     a spot job's first attempt is interrupted so long after its program began; None: it is not
    """

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        on_change: Callable[[State], None],
        objects: Objects,
        logs: Any,
        room: Room,
        folder: Path,
        *,
        launch_s: float = 0.0,
        interrupt_s: float | None = None,
        has_capacity: bool = True,
    ) -> None:
        super().__init__(plan.name, clock, on_change)
        self._plan = plan
        self._objects = objects
        self._logs = logs
        self._room = room
        self._folder = folder
        self._launch_s = launch_s
        self._interrupt_s = interrupt_s if plan.is_spot else None
        self._has_capacity = has_capacity
        self._hosts: list[Host] = []

    def hosts(self) -> Sequence[Host]:
        return self._hosts

    def _work(self) -> None:
        if self._plan.max_wait_s is not None:
            self._after(self._plan.max_wait_s, WAIT)
        number = 0
        while True:
            number += 1
            reason = self._attempt(self._folder / str(number), number)
            if reason != INTERRUPT:
                return
            with self._changed:
                self._wanted.discard(INTERRUPT)
            self._stage("Interrupted", "Training job interrupted by a reclaimed spot instance")
            self._stage("Starting", "Starting the training job again")

    def _attempt(self, folder: Path, number: int) -> str | None:
        """INTERRUPT when there is to be another one."""
        if reason := self._pause(self._launch_s):
            self._stopped(reason)
            return None
        if not self._has_capacity:
            self._do_without()
            return None
        began = self._clock.monotonic()
        hosts = self._hosts = [Host(name, folder / name) for name in self._plan.hosts]
        try:
            self._stage("Downloading", "Downloading input data", started_at=self.state.started_at or self._clock.now())
            mirrors = self._furnish(hosts)
            if reason := self._asked():
                self._stopped(reason)
                return None
            self._stage("Training", "Training image download completed. Training in progress.")
            # Between attempts, it does not run.
            timer = self._after(self._plan.max_runtime_s - self.state.busy_s, RUNTIME)
            try:
                reason = self._run(hosts, mirrors, is_first=number == 1)
            finally:
                timer.cancel()
            busy_s = self.state.busy_s + self._clock.monotonic() - began
            if reason == INTERRUPT:
                with self._changed:
                    self._state = replace(self._state, busy_s=busy_s)
                return reason
            self._stage("Uploading", "Uploading generated training model", busy_s=busy_s)
            self._leave(hosts, reason)
        finally:
            for host in hosts:
                host.kill()
                host.join()
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def _do_without(self) -> None:
        """No instances: a spot job waits for them as long as it may."""
        if self._plan.is_spot:
            reason = self._until(lambda: False)
            assert reason is not None
            return self._stopped(reason)
        return self._end(FAILED, NO_CAPACITY)

    def _furnish(self, hosts: list[Host]) -> list[uploads.Mirror]:
        """Everything that the programs find; what is to be mirrored while they run. Raises DataFault."""
        plan = self._plan
        found = {source: channels.find(self._objects, source) for source in plan.inputs}
        for source, all_of_it in found.items():
            if not all_of_it:
                raise DataFault(channels.nothing_found(source.uri, plan.region, plan.role))
        kept = channels.find(self._objects, _as_input(plan)) if plan.checkpoints else []
        mirrors = []
        for at, host in enumerate(hosts):
            tree.make(host.tree, plan.folders, self._texts(host))
            for source, all_of_it in found.items():
                mine = channels.share(all_of_it, at, len(hosts)) if source.is_sharded else all_of_it
                channels.download(self._objects, mine, host.tree / source.path)
            for output in plan.outputs:
                (host.tree / output.path).mkdir(parents=True, exist_ok=True)
                if output.is_continuous:
                    mirrors.append(uploads.Mirror(self._objects, host.tree / output.path, output.address))
            if plan.checkpoints:
                directory = host.tree / plan.checkpoints.path
                channels.download(self._objects, kept, directory)
                mirrors.append(uploads.Mirror(self._objects, directory, plan.checkpoints.address))
                mirrors[-1].note()
        return mirrors

    def _texts(self, host: Host) -> Mapping[str, str]:
        """What they say of /opt/ml is said of the host's tree where no namespace shows it there."""
        texts = self._plan.texts(host.name)
        if self._room.is_namespace:
            return texts
        return {name: text.replace(tree.MOUNT, str(host.tree)) for name, text in texts.items()}

    def _run(self, hosts: list[Host], mirrors: list[uploads.Mirror], *, is_first: bool) -> str:
        """Why it is over, once no program runs any more and the mirrors show what they left."""
        over = threading.Event()
        mirroring = threading.Thread(target=self._mirror, args=(mirrors, over), name="mirror", daemon=True)
        try:
            self._start(hosts)
            if is_first and self._interrupt_s is not None:
                self._after(self._interrupt_s, INTERRUPT)
            mirroring.start()
            reason = self._watch(hosts)
        finally:
            over.set()
            if mirroring.ident is not None:
                mirroring.join()
        for mirror in mirrors:
            mirror.go()
        return reason

    def _start(self, hosts: list[Host]) -> None:
        stamp = int(time.time())
        for host in hosts:
            name = f"{self._plan.name}/{host.name}-{stamp}"
            stream = Read(self._logs, self._plan.kind.log_group, name, self._plan.metrics, self._note_figure)
            host.start(
                self._plan.program, self._plan.environment, self._plan.hosts, self._room, stream, self._notice,
                is_offline=self._plan.is_offline,
            )  # fmt: skip

    def _note_figure(self, name: str, value: float) -> None:
        with self._changed:
            others = tuple(one for one in self._state.metrics if one[0] != name)
            self._state = replace(self._state, metrics=(*others, (name, value, self._clock.now())))

    def _watch(self, hosts: list[Host]) -> str:
        def ended() -> str | None:
            codes = [host.exit_code for host in hosts]
            if any(codes):
                return BROKE
            return ENDED if None not in codes else None

        wanted = self._until(ended, (STOP, INTERRUPT, RUNTIME, WAIT))
        reason = ended() or wanted
        assert reason is not None
        # A host's failure is the job's; whoever still runs is asked to end, and then made to.
        number = SIGTERM if reason == INTERRUPT else self._plan.kind.stop_signal
        running = [host for host in hosts if host.exit_code is None]
        window = self._clock.call_later(WINDOW_S, lambda: _kill(running))
        for host in running:
            host.signal(number)
        try:
            self._until(lambda: all(host.exit_code is not None for host in hosts), ())
        finally:
            window.cancel()
        return reason

    def _leave(self, hosts: list[Host], reason: str) -> None:
        """What the programs leave, and the job's end. Raises DataFault."""
        message = ""
        if reason == ENDED or self._plan.keeps_outputs:
            for output in self._plan.outputs:
                directories = [host.tree / output.path for host in hosts]
                if output.is_tar:
                    if output.path == "model" or any(uploads.files(one) for one in directories):
                        uploads.put_tar(self._objects, directories, output.address)
                elif not output.is_continuous:
                    uploads.put_files(self._objects, directories, output.address)
        if self._plan.kind is not TRAINING:
            message = "".join(tree.message(host.tree) for host in hosts)[: tree.MAX_MESSAGE_BYTES]
        if reason == ENDED:
            self._end(COMPLETED, exit_message=message)
        elif reason == BROKE:
            broken = next(host for host in hosts if host.exit_code)
            self._end(FAILED, self._why(broken), exit_message=message)
        else:
            self._stopped(reason, message)

    def _why(self, host: Host) -> str:
        if self._plan.kind is TRAINING:
            return f"AlgorithmError: {tree.failure(host.tree)}, exit code: {host.exit_code}"
        return "AlgorithmError: See job logs for more information"

    def _stopped(self, reason: str, message: str = "") -> None:
        secondary = {RUNTIME: "MaxRuntimeExceeded", WAIT: "MaxWaitTimeExceeded"}.get(reason, "")
        self._end(STOPPED, secondary=secondary, exit_message=message)

    def _mirror(self, mirrors: list[uploads.Mirror], over: threading.Event) -> None:
        while mirrors and not over.wait(MIRROR_EVERY_S):
            for mirror in mirrors:
                try:
                    mirror.go()
                except DataFault as fault:  # the next look, or the last one, tries again
                    log.warning("job %s: %s", self.name, fault)

    def _notice(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _clean(self) -> None:
        for host in self._hosts:
            host.kill()
            host.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def _kill(hosts: list[Host]) -> None:
    for host in hosts:
        host.kill()


def _as_input(plan: Plan) -> channels.Input:
    assert plan.checkpoints is not None
    address = plan.checkpoints.address
    # With a slash, so that s3://bucket/ck does not bring s3://bucket/ck-of-others as well.
    return channels.Input("checkpoints", plan.checkpoints.path, f"{str(address).rstrip('/')}/")
