"""A run's models, opened: those that were below the prefix when it began, or those of a release."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from container import assembly
from container.limits.cores import container_cores
from container.operate.batch.models import RunModels
from container.operate.batch.released import ReleasedStore
from container.operate.release.place import releases_beside
from container.operate.release.shelf import manifest
from container.operate.tables.files import s3_of
from container.operate.troubles import Misused
from container.settings import Settings
from handler.errors import ArtifactError, StartRefused
from handler.stores import open_store
from handler.telemetry.recorder import LiveRecorder


@dataclass(frozen=True, slots=True)
class FromRelease:
    """A release whose models score, instead of those that are live. releases: where it lies; None is beside these."""

    id: str
    releases: str | None = None


class Models:
    """A run's models: those that were below the prefix when it began, or those of a release."""

    def __init__(
        self, settings: Settings, closing: ExitStack, scratch: Path, release: FromRelease | None = None
    ) -> None:
        try:
            store = None if release is None else _open_release(settings, release)
            models = assembly.models_of_store(
                settings, LiveRecorder(), closing, hooks=None, scratch=scratch, is_ready_at_once=False,
                n_preforked=int(container_cores()) + 1,  # each is 25 ms of work to have, and nobody waits for one of them
                store=store,
            )  # fmt: skip
            artifacts = {one.target: one for one in models.store.list()}
        except (StartRefused, ArtifactError) as error:
            raise Misused(f"--models {settings.artifacts.models}: {error}") from error
        self.versions: Mapping[str, str] = {target: one.version for target, one in artifacts.items()}
        if not artifacts:
            raise Misused(f"--models {settings.artifacts.models}: there are none")
        self.models = RunModels(
            models.loader,
            artifacts,
            models.parts.executor,
            assembly.memory_for_models(settings),
            models.store.uri("x")[:-1],
        )


def _open_release(settings: Settings, release: FromRelease) -> ReleasedStore:
    """Raises Misused; Refused when there is no such release."""
    artifacts = settings.artifacts
    where = release.releases or releases_beside(artifacts.models)
    s3 = s3_of(where, artifacts.endpoint_url)
    shelf = open_store(where, max_artifact_bytes=artifacts.max_artifact_bytes, s3=s3)
    return ReleasedStore(shelf, manifest(shelf, release.id))
