"""The runtime's own models in the process that measures them: assembled as an endpoint assembles them, examined already.

Rule: every artifact has been examined once before anything is measured and comes from disk from then on, so that what is
repeated is what happens in the runtime's memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.rig.segments import Segments
from container import assembly, settings
from container.assembly import Models
from handler.telemetry.recorder import Recorder

WAIT_S = 60.0
LOADERS = 4


@contextmanager
def assembled(made: Segments, directory: Path, recorder: Recorder, *, n_threads: int) -> Iterator[Models]:
    """Models of these segments, none in memory. n_threads: that will score with them."""
    flags = {
        "models": str(made.models),
        "memory_bytes": "4GiB",
        "loaders": str(LOADERS),
        "workers": str(n_threads),
        "max_age_s": "0",
        "disk_dir": str(directory / "disk"),
    }
    with ExitStack() as closing:
        models = assembly.models_of_store(settings.read(flags, {}), recorder, closing, hooks=None, scratch=directory)
        for target in made.targets:
            models.loader.prepare(target)
        yield models
