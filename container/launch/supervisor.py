"""Starts the runtime and the JVM, keeps the runtime going, and takes everything down together.

    mme (this process) --+-- runtime          ended: started again, MMS stays
                         `-- JVM (MMS)        ended: everything ends, non-zero, with the reason
                               `-- a stub     standalone; ends with MMS or with us

Standalone it also holds MMS's connections (container/link/held.py), so that a runtime's death is not seen by MMS.

Rule: one loop, nothing in it blocks, the log included (container/log_stream.py). What this process opens is on one
ExitStack, however it ends; if it is killed, both children are killed with it (PDEATHSIG) and the stub's reply ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path

from container import environments
from container.launch import mms
from container.launch.binder import Binder, DoorLost, Wish
from container.launch.children import Child, Children
from container.launch.scratch import ScratchDirectory
from container.launch.stubs import Binding, Stubs, socket_name
from container.limits import libc
from container.link import wire
from container.link.channel import Channel
from container.link.held import Board
from container.link.spool import Leftovers
from container.settings import Settings
from handler.errors import StartRefused

log = logging.getLogger("mme")

EXIT_OK = 0
EXIT_FAILED = 1
SETTLED_S = 10.0  # a runtime that lived this long was fine; one that died sooner is started with growing pauses
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
MAX_FAILED_STARTS = 3  # of a runtime that never once came up: it would not come up by itself
MAX_FAILED_RESTARTS = 12  # in a row, of one that did come up once: some twenty seconds with the pauses between them
LOOK_S = 2.0  # between two looks at the scratch directory
JVM_PATIENCE_S = 3.0  # the JVM ends within 0.2 s of SIGTERM, or 2.2 where answers are still being read: Ending.java
RUNTIME_PATIENCE_S = 3.0
ORPHANS_PATIENCE_S = 2.0  # the stub and readers, which end within milliseconds of what they wait for
# A socket stays this long after its model: MMS, asked to unload what it is about to load, connects a moment later.
LINGER_S = 5.0
GATES_BACKLOG = 512
LANES_BACKLOG = 128
APOLOGY = wire.failure_reply(503, "the runtime ended with this request inside it; send it again")
SHUT_AFTER = 0.8  # of a drain's time: callers who come again and again would make it last, and be cut off at its end
MAX_LINE_BYTES = 64 * 1024  # of the JVM's output: what goes on without an end is told in pieces
LAST_LINES = 15  # of the JVM's output, told when it dies
COMPILE = "with a Java compiler (javac, 17 or later) ./build.sh setup compiles them, ./build.sh wheel into a wheel"


class LaunchFailed(StartRefused):
    """The endpoint cannot start, and why."""


class Supervisor:
    """One endpoint. `run` returns the process's exit status.

    on_ready   called once, when the first request can be answered
    """

    def __init__(self, settings: Settings, *, on_ready: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._started_at = time.monotonic()
        self._is_ready = False
        self._is_preloading = False
        self._has_mms_started = False
        self._n_workers = 0
        self._failed_starts = 0
        self._n_stillborn = 0  # the last ones, which ended before they could serve
        self._has_ever_started = False
        self._restart_at: float | None = None
        self._drain_until: float | None = None
        self._shut_at: float | None = None  # when a drain takes no more connections
        self._drained_status = EXIT_OK
        self._look_at = 0.0
        self._had_trouble = False
        self._status: int | None = None  # set when it is time to end
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._partial_line = b""
        self._handlers: dict[int, Callable[[], None]] = {}
        self._children = Children()
        self._runtime: Child | None = None
        self._channel: Channel | None = None
        self._jvm: Child | None = None
        self._jvm_ending: int | None = None  # its standard input: see plugin/Ending.java
        self._gates: socket.socket | None = None
        self._held: dict[int, socket.socket] = {}  # by slot: MMS's connections, which outlive a runtime
        self._closing = contextlib.ExitStack()
        self._lingering: deque[tuple[float, Binding]] = deque()  # until when, what

    def run(self) -> int:
        try:
            self._open()
            while self._status is None:
                self._turn()
            return self._status
        except StartRefused as error:
            log.error("%s", error)
            return EXIT_FAILED
        finally:
            self._closing.close()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open one thing after another; the end closes them in the reverse order: MMS, the runtime, stubs, files."""
        closing = self._closing
        self._look_for_classes()
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # children inherit it; a hosted model takes five in Java
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._epoll = closing.enter_context(select.epoll())
        self._wakeup, wakeup_in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        closing.callback(os.close, self._wakeup)
        closing.callback(os.close, wakeup_in)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
        closing.callback(signal.set_wakeup_fd, -1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)  # the number arrives through the wakeup descriptor
        self._watch(self._wakeup, select.EPOLLIN, self._on_signals)
        self._refuse_taken_port()
        self._directory = ScratchDirectory(self._settings.front.scratch)
        closing.callback(self._directory.close)
        closing.callback(self._wait_for_orphans)
        self._directory.refuse_noexec()
        self._scratch = mms.Scratch(self._directory.root)
        mms.write_files(self._scratch, self._settings)
        self._leftovers = Leftovers(self._scratch.spool)
        self._stubs = Stubs(self._scratch.tmp)
        closing.callback(self._stubs.close)
        self._watch(self._stubs.control, select.EPOLLIN, self._on_control)
        if self._settings.front.hosted:
            self._gates = closing.enter_context(_listening_at(self._scratch.gate, GATES_BACKLOG))
            self._binder = Binder(self._scratch.binder)
            closing.callback(self._binder.close)
            self._watch(self._binder.listener.fileno(), select.EPOLLIN, self._on_door)
        self._lane = closing.enter_context(_listening_at(self._scratch.lane, LANES_BACKLOG))
        self._board = Board()
        closing.callback(self._board.close)
        closing.callback(self._drop_all_held)
        closing.callback(self._stop_runtime)
        self._start_runtime()
        closing.callback(self._stop_jvm)
        self._start_jvm()

    def _look_for_classes(self) -> None:
        if mms.plugin_path() is not None:
            return
        if self._settings.front.hosted:
            raise LaunchFailed(f"hosted mode needs our Java classes, and they are not compiled here; {COMPILE}")
        log.info(
            "our Java classes are not compiled here: /ping is MMS's own, which says 200 whatever happens, and there is no "
            "/metrics and no /execution-parameters on port %d; %s",
            self._settings.front.port,
            COMPILE,
        )

    def _refuse_taken_port(self) -> None:
        """MMS would say so too, with a page of stack trace."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._settings.front.host, self._settings.front.port))
            except OSError as error:
                where = f"{self._settings.front.host}:{self._settings.front.port}"
                raise LaunchFailed(f"cannot listen on {where}: {error.strerror}; choose another with --port") from error

    def _watch(self, descriptor: int, events: int, handler: Callable[[], None]) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, events)

    def _unwatch(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._epoll.unregister(descriptor)

    # -- the loop ------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        now = time.monotonic()
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            self._start_runtime()
        if self._drain_until is not None and now >= self._drain_until:
            log.warning("requests were still in flight when the drain time was over")
            self._status = self._drained_status
            return
        if self._shut_at is not None and now >= self._shut_at:
            self._shut_at = None
            self._shut()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            self._look_after_scratch()
            self._leftovers.sweep(now)
        while self._lingering and now >= self._lingering[0][0]:
            self._forget_oldest()
        forget_at = self._lingering[0][0] if self._lingering else None
        times = (self._restart_at, self._shut_at, self._drain_until, forget_at, self._look_at)
        clocks = [at for at in times if at is not None]
        timeout = max(0.0, min(clocks) - now)
        for descriptor, _ in self._epoll.poll(timeout):
            handler = self._handlers.get(descriptor)  # an earlier event of this round may have closed it
            if handler is not None:
                handler()

    def _on_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._wakeup, 4096):
                if number == signal.SIGCHLD:
                    for child in self._children.reap():
                        self._on_child_end(child)
                else:
                    self._on_stop(signal.Signals(number))

    def _on_stop(self, number: signal.Signals) -> None:
        if self._drain_until is not None or self._channel is None or not self._is_ready:
            log.info("%s: stopping now", number.name)
            self._status = EXIT_OK
            return
        log.info("%s: answering what is in flight, then stopping", number.name)
        self._drain(self._channel, EXIT_OK)

    def _drain(self, runtime: Channel, status: int) -> None:
        """Answer what is in flight, then end with this status."""
        self._drained_status = status
        now = time.monotonic()
        self._drain_until = now + self._settings.front.drain_s
        self._shut_at = now + self._settings.front.drain_s * SHUT_AFTER
        runtime.send("drain")
        if self._jvm_ending is not None:
            with contextlib.suppress(BrokenPipeError):  # its end is told by SIGCHLD
                os.write(self._jvm_ending, b"\n")

    def _shut(self) -> None:
        """The front end takes no more connections: its standard input ends, see plugin/Ending.java."""
        if self._jvm_ending is not None:
            os.close(self._jvm_ending)
            self._jvm_ending = None

    def _look_after_scratch(self) -> None:
        """Without it no worker can connect again and no runtime can be started: whoever started us has to do it anew."""
        if self._drain_until is not None:
            return
        needed = [self._scratch.tmp, self._scratch.control, self._scratch.stub]
        trouble = self._directory.trouble([*needed, self._scratch.relay] if self._is_ready else needed)
        had_trouble, self._had_trouble = self._had_trouble, bool(trouble)
        if not (trouble and had_trouble):  # once is no proof: a runtime that starts makes its relay anew
            return
        log.error("%s by somebody else; answering what is in flight, then stopping", trouble)
        if self._is_ready and self._channel is not None:
            self._drain(self._channel, EXIT_FAILED)
        else:
            self._status = EXIT_FAILED

    def _on_child_end(self, child: Child) -> None:
        if child is self._jvm:
            said = "".join(f"\n  {line}" for line in self._last_lines)
            log.error("the front end (MMS) %s%s", child.ending, f"; it said:{said}" if said else "")
            self._status = EXIT_FAILED
        elif child is self._runtime:
            self._on_runtime_end(child)

    # -- the runtime ---------------------------------------------------------------------------------------------------

    def _start_runtime(self) -> None:
        channel, theirs = Channel.pair()
        with theirs:
            self._runtime = self._children.start(
                "runtime",
                [sys.executable, "-m", "container.worker", str(theirs.fileno())],
                environment=environments.runtime_environment(),
                pass_fds=[theirs.fileno()],
            )
        self._channel = channel
        self._watch(channel.fileno(), select.EPOLLIN, self._on_note)
        note = {
            "settings": self._settings.to_json(),
            "io_dir": str(self._scratch.tmp),
            "has_served": self._is_ready,
            "spool_dir": str(self._scratch.spool) if mms.plugin_path() else None,
        }
        channel.send("settings", note)
        channel.send("lane", None, [self._lane.fileno()])
        if self._gates is not None:
            channel.send("gates", None, [self._gates.fileno()])
        if not self._settings.front.hosted:
            channel.send("board", None, [self._board.fileno()])
        for slot, held in self._held.items():
            channel.send("adopt", slot, [held.fileno()])
        for binding in self._stubs.bindings + self._stubs.lingering:
            self._offer(binding)
        for binding in self._stubs.lingering:
            channel.send("ended", binding.name)

    def _on_runtime_end(self, child: Child) -> None:
        # Its last words, above all why it does not start, may come in the same turn as its end, and behind it.
        while self._channel is not None and select.select([self._channel], [], [], 0)[0]:
            self._on_note()
        self._close_channel()
        if self._status is not None:
            return
        self._n_workers = 0
        self._settle_held()
        if self._drain_until is not None:
            log.error("the runtime %s while draining", child.ending)
            self._status = EXIT_FAILED
            return
        if time.monotonic() - child.started_at >= SETTLED_S:
            self._failed_starts = 0
        self._failed_starts += 1
        self._n_stillborn += 1
        if self._n_stillborn >= (MAX_FAILED_RESTARTS if self._has_ever_started else MAX_FAILED_STARTS):
            log.error("the runtime %s; it does not start", child.ending)
            self._status = EXIT_FAILED
            return
        pause_s = (
            min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self._failed_starts - 1)) if self._failed_starts > 1 else 0.0
        )
        log.error("the runtime %s; starting another in %.1f s", child.ending, pause_s)
        self._restart_at = time.monotonic() + pause_s

    def _close_channel(self) -> None:
        if self._channel is not None:
            self._unwatch(self._channel.fileno())
            self._channel.close()
            self._channel = None

    def _on_note(self) -> None:
        assert self._channel is not None
        note = self._channel.receive()
        if note is None:
            self._close_channel()  # it has ended or is about to: SIGCHLD says how
        elif note.what == "started":
            self._has_ever_started = True
            self._n_stillborn = 0
            self._check_ready()
        elif note.what == "refused":
            log.error("%s", note.value)
            self._status = EXIT_FAILED
        elif note.what == "workers":
            self._n_workers = note.value
            self._check_ready()
        elif note.what in ("preloading", "preloaded"):
            self._is_preloading = note.what == "preloading"
            self._check_ready()
        elif note.what == "connected":
            self._hold(note.value, socket.socket(fileno=note.descriptors[0]))
        elif note.what == "drained":
            log.info("nothing is in flight any more")
            self._status = self._drained_status

    def _check_ready(self) -> None:
        if self._is_ready or self._is_preloading:
            return
        wanted = 0 if self._settings.front.hosted else self._settings.front.workers
        if self._has_mms_started and self._has_ever_started and self._n_workers >= wanted:
            self._is_ready = True
            for thread in mms.event_loops(self._jvm.pid) if self._jvm else []:
                libc.take_short_turns(thread)
            log.info("ready after %.1f s", time.monotonic() - self._started_at)
            self._on_ready()

    # -- MMS's connections ---------------------------------------------------------------------------------------------

    def _hold(self, slot: int, stream: socket.socket) -> None:
        if slot in self._held:
            self._drop_held(slot)
        self._held[slot] = stream
        self._watch(stream.fileno(), select.EPOLLRDHUP, partial(self._on_hang_up, slot, stream))

    def _on_hang_up(self, slot: int, stream: socket.socket) -> None:
        """MMS has closed it, or the runtime has shut it down."""
        if self._held.get(slot) is stream:
            self._drop_held(slot)

    def _settle_held(self) -> None:
        """The runtime is dead: tell the callers that wait for it, and keep what another can go on with."""
        for slot, stream in list(self._held.items()):
            if not self._board.settle(slot, stream, APOLOGY):
                with contextlib.suppress(OSError):  # MMS was faster
                    stream.shutdown(socket.SHUT_RDWR)
                self._drop_held(slot)

    def _drop_held(self, slot: int) -> None:
        stream = self._held.pop(slot)
        self._unwatch(stream.fileno())
        stream.close()

    def _drop_all_held(self) -> None:
        for slot in list(self._held):
            self._drop_held(slot)

    # -- MMS, its stub or its door -------------------------------------------------------------------------------------

    def _start_jvm(self) -> None:
        self._jvm_output, theirs = os.pipe2(os.O_CLOEXEC)
        stdin, self._jvm_ending = os.pipe2(os.O_CLOEXEC)
        self._closing.callback(self._shut)
        command = mms.command(self._scratch, self._settings, environments.java_home())
        try:
            self._jvm = self._children.start(
                "MMS",
                command,
                environment={
                    **environments.mms_environment(),
                    **(mms.HOSTED_ENVIRONMENT if self._settings.front.hosted else {}),
                },
                input=stdin,
                output=theirs,
            )
        except OSError as error:
            raise LaunchFailed(f"cannot start Java ({command[0]}): {error.strerror}") from error
        finally:
            os.close(theirs)
            os.close(stdin)
        os.set_blocking(self._jvm_output, False)
        self._watch(self._jvm_output, select.EPOLLIN, self._on_jvm_output)

    def _on_jvm_output(self) -> None:
        try:
            data = os.read(self._jvm_output, 64 * 1024)
        except BlockingIOError:
            return
        if not data:
            self._unwatch(self._jvm_output)
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        if len(self._partial_line) > MAX_LINE_BYTES:
            lines, self._partial_line = [*lines, self._partial_line], b""
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            if text == mms.STARTED:
                self._has_mms_started = True
                self._check_ready()
            elif text and not text.startswith(mms.HARMLESS):
                self._last_lines.append(text)
                log.info("MMS: %s", text)

    def _on_control(self) -> None:
        for binding in self._stubs.on_control():
            assert binding.reply is not None
            self._watch(binding.reply, 0, partial(self._on_stub_end, binding.name, binding.reply))
            self._offer(binding)

    def _on_door(self) -> None:
        self._unwatch(self._binder.listener.fileno())
        descriptor = self._binder.accept()
        self._watch(descriptor, select.EPOLLIN, partial(self._on_wishes, descriptor))

    def _on_wishes(self, descriptor: int) -> None:
        try:
            wishes = self._binder.wishes()
        except DoorLost as error:
            self._unwatch(descriptor)
            log.debug("MMS asks for no more sockets: %s", error)
            return
        for wish, port in wishes:
            name = socket_name(port)
            if wish is Wish.BIND:
                self._offer(self._stubs.bind(name))
                self._binder.bound(port)
            else:
                self._let_go(name)

    def _offer(self, binding: Binding) -> None:
        if self._channel is not None:
            self._channel.send("listen", binding.name, [binding.listener.fileno()])

    def _on_stub_end(self, name: str, reply: int) -> None:
        """MMS lets go of the pool only when it ends itself, so this stub was killed from outside. MMS takes that for the end
        of a process it needs no more, and goes on connecting to the socket."""
        self._unwatch(reply)
        self._stubs.orphan(name)
        log.warning("the stub of %s was killed; its socket stays", name)

    def _let_go(self, name: str) -> None:
        """MMS has unloaded the model that was served through this socket."""
        binding = self._stubs.linger(name)
        if binding is None:
            return
        self._lingering.append((time.monotonic() + LINGER_S, binding))
        if self._channel is not None:
            self._channel.send("ended", name)

    def _forget_oldest(self) -> None:
        _, binding = self._lingering.popleft()
        self._stubs.forget(binding)
        if self._channel is not None:
            self._channel.send("unlisten", binding.name)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _stop_jvm(self) -> None:
        if self._jvm is not None:
            self._jvm.kill(signal.SIGTERM)
            self._wait_for(self._jvm, JVM_PATIENCE_S)

    def _stop_runtime(self) -> None:
        if self._channel is not None:
            self._channel.close()  # the runtime ends when it reads the end of its channel
        if self._runtime is not None:
            self._wait_for(self._runtime, RUNTIME_PATIENCE_S)

    def _wait_for_orphans(self) -> None:
        if not self._children.wait_all(ORPHANS_PATIENCE_S):
            log.error("some processes would not end")

    def _wait_for(self, child: Child, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while child.is_alive:
            self._children.reap()
            if time.monotonic() >= deadline:
                log.warning("%s does not end; killing it", child.name)
                child.kill()
                deadline += patience_s
            time.sleep(0.01)


def _listening_at(path: Path, backlog: int) -> socket.socket:
    """In the scratch directory, which no other user may enter: whoever can speak to it is one of ours."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(backlog)
    return listener
