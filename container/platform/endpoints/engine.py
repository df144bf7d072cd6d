"""A container engine of this machine, docker or podman: what it is told to run, and how nothing of ours is left there.

Rule: a container has the network of this machine, for the platform and it speak over loopback; its environment is written out
word for word, so it sees nothing of ours. Its name tells which platform it is of, its label on which machine that is.

Sources: docker run, podman-run (1); SageMaker guide, your-algorithms-inference-code (docker run IMAGE serve, /opt/ml/model).
"""

from __future__ import annotations

import os
import socket
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

from container.environments import engine_environment

ENGINES = ("docker", "podman")
LABEL = "mme.platform"
ANSWER_S = 60.0  # of a busy machine; podman takes 0.1 s
# The engine's own fault, a command that cannot be run, and one that is not there. Source: docker run, "Exit status"
REFUSALS = (125, 126, 127)
MODEL, MODELS = Path("/opt/ml/model"), Path("/opt/ml/models")
_BEGAN = 19  # starttime of proc(5)'s stat, counted from what comes after the name


class EngineRefused(Exception):
    """It is not there, or does not answer; in its own words."""


class Engine:
    """Any thread may ask.

    name   one of ENGINES: the program
    raises EngineRefused
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._ours = f"mme-platform-{os.getpid()}-{_began(os.getpid())}-"
        self._place = _place()
        self.sweep()

    def new_name(self) -> str:
        return f"{self._ours}{uuid.uuid4().hex[:12]}"

    def command(
        self,
        image: str,
        name: str,
        environment: Mapping[str, str],
        *,
        memory_bytes: int | None = None,
        mounts: Mapping[Path, Path] | None = None,
    ) -> list[str]:
        """What runs an image as SageMaker does; it lasts as long as the container and passes on SIGTERM.

        mounts   a directory here -> where the container sees it, and may not write
        """
        # Podman would hand on our proxies, and whatever else its settings say.
        alone = ("--http-proxy=false", "--env-host=false") if self.name == "podman" else ()
        memory = ("--memory", str(memory_bytes)) if memory_bytes else ()
        return [
            *(self.name, "run", "--rm", "--name", name, "--label", f"{LABEL}={self._place}"),
            *("--network", "host", "--pull", "never", "--no-healthcheck", *alone, *memory),
            *(word for here, there in (mounts or {}).items() for word in ("-v", f"{here}:{there}:ro,z")),
            *(word for key, value in environment.items() for word in ("-e", f"{key}={value}")),
            *("--", image, "serve"),
        ]

    def refusal(self, output: str) -> str:
        """Its own words at the end of an output; docker says after them where help is."""
        lines = [line for line in output.splitlines() if line.strip()]
        own = [line for line in lines if line.startswith(("Error: ", f"{self.name}: "))]
        return (own or lines or ["it does not say why"])[-1].removeprefix(f"{self.name}: ")

    def pid_of(self, name: str) -> int | None:
        """Of its process 1, as this machine counts; None where the engine counts otherwise, as in a machine of its own."""
        try:
            pid, container_id = self._ask("inspect", "--format", "{{.State.Pid}} {{.Id}}", name).split()
            is_it = container_id in Path(f"/proc/{pid}/cgroup").read_text()
        except (EngineRefused, OSError, ValueError):
            return None
        return int(pid) if is_it else None

    def remove(self, name: str) -> None:
        """Killed and forgotten. That it is gone already is how it should be."""
        for words in (("kill", name), ("rm", "--force", name)):
            try:
                self._ask(*words)
            except EngineRefused:  # --rm was first; what is left all the same, the next sweep finds
                continue

    def sweep(self) -> None:
        """Remove what platforms of this machine have left that are gone."""
        for name in self._containers():
            if not _is_alive(name):
                self.remove(name)

    def close(self) -> None:
        """Remove what is left of this platform's."""
        try:
            left = [name for name in self._containers() if name.startswith(self._ours)]
        except EngineRefused:  # it went away before us, and with it all that it ran
            return
        for name in left:
            self.remove(name)

    def _containers(self) -> list[str]:
        return self._ask("ps", "--all", "--filter", f"label={LABEL}={self._place}", "--format", "{{.Names}}").split()

    def _ask(self, *words: str) -> str:
        try:
            done = subprocess.run(
                [self.name, *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=ANSWER_S,
                env=engine_environment(),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us alone
            )
        except OSError as error:
            raise EngineRefused(f"{self.name}: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise EngineRefused(f"{self.name} {words[0]}: no answer within {ANSWER_S:g} s") from error
        if done.returncode != 0:
            raise EngineRefused(f"{self.name} {words[0]}: {done.stderr.strip()}")
        return done.stdout


def _place() -> str:
    """This machine, and what counts its processes: elsewhere the same numbers are others'."""
    try:
        counted = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:  # not Linux
        counted = "0"
    return f"{socket.gethostname()}-{counted}"


def _is_alive(name: str) -> bool:
    """Whether the platform that gave a container its name still runs."""
    pid, _, rest = name.removeprefix("mme-platform-").partition("-")
    return _began(int(pid)) == rest.partition("-")[0] if pid.isdecimal() else True


def _began(pid: int) -> str:
    """When a process began, in ticks since the machine did; "gone", and "some" where nobody tells when."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_BEGAN]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except PermissionError:
        pass
    return "some"
