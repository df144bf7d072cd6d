"""Where the model is that MMS asks us to load, and what is in it.

SageMaker names a directory that it has unpacked. A path to an archive works too: hosted mode's server then names one empty
directory (launch/plugin/Archives.java), which means that the archive itself, under the url the model was registered with, is
what to read. MMS would have unpacked it, wherever its entries say.
"""

from __future__ import annotations

import os
from pathlib import Path

from container.examine.quarantine import Examined, Quarantine
from container.link import wire
from container.worker.hosted.management import Management
from handler.errors import ArtifactMissing, ArtifactRefused, ArtifactUnavailable


class Bundles:
    """Finds and examines what a load names.

    io_dir      MMS's temp directory
    max_bytes   of an archive
    """

    def __init__(self, quarantine: Quarantine, management: Management, io_dir: Path, *, max_bytes: int) -> None:
        self._quarantine = quarantine
        self._management = management
        self._max_bytes = max_bytes
        self._archive = f"{io_dir}/models/archive"  # what Archives.java names

    def path_of(self, load: wire.Load) -> str:
        """A directory, or an archive."""
        path = load.model_path
        if path != self._archive:
            return path
        try:
            url = self._management.url_of(load.model_name)
        except Exception as error:
            raise ArtifactUnavailable(path, type(error).__name__) from error
        return path if url is None else f"/{url.lstrip('/')}"

    def examine(self, path: str) -> Examined:
        """Raises ArtifactBroken, ArtifactRefused, ArtifactMissing, ArtifactUnavailable."""
        if not os.path.exists(path):
            raise ArtifactMissing(path)
        if os.path.isdir(path):
            return self._quarantine.examine_bundle(path)
        try:
            if os.path.getsize(path) > self._max_bytes:
                raise ArtifactRefused(path, f"it has more than {self._max_bytes} bytes")
            return self._quarantine.examine(Path(path).read_bytes(), path)
        except OSError as error:
            raise ArtifactUnavailable(path, error.strerror or type(error).__name__) from error
