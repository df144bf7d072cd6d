"""Archives on the operator's side of an endpoint: found, opened where they can do no harm, packed, put down.

Rule: this process never reads inside an archive. The examiner's throw-away process does, as it does for an endpoint.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from container import settings
from container.operate.exits import CommandFailed, Exit
from handler.archives.limits import Limits
from handler.errors import (
    ArtifactBroken,
    ArtifactError,
    ArtifactForbidden,
    ArtifactMissing,
    ArtifactRefused,
    ArtifactUnavailable,
    TargetInvalid,
)

if TYPE_CHECKING:
    from container.examine.quarantine import Examined

MEMBER = "xgboost-model"  # the name in the archive that SageMaker's own XGBoost images write and read

EXIT_CODES = """\
exit codes
  0  done
  1  anything that is not below
  2  the command cannot be understood, or its settings are none
  3  there is no such archive, or none that may be read
  4  the archive is broken or refused, with the reason
  5  the store failed: call again
"""

# Looked up in this order.
_EXITS: tuple[tuple[type[Exception], Exit], ...] = (
    (TargetInvalid, Exit.USAGE),
    (ArtifactMissing, Exit.REFUSED),
    (ArtifactForbidden, Exit.REFUSED),
    (ArtifactBroken, Exit.MODEL_ERROR),
    (ArtifactRefused, Exit.MODEL_ERROR),
    (ArtifactUnavailable, Exit.NOT_NOW),
)


class ArchiveUnusable(CommandFailed):
    """The archive cannot be read or served, and why. `name` is that of the error."""

    def __init__(self, error: Exception, exit: Exit) -> None:
        super().__init__(str(error))
        self.name = type(error).__name__
        self.exit = exit


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's bytes and its full name."""

    data: bytes = field(repr=False)
    uri: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What names an archive, the same for every command."""
    parser.add_argument("archive", metavar="FILE|TARGET", help="a file, s3://bucket/key, or with --models a target")
    parser.add_argument(
        "--models",
        metavar="LOCATION",
        help="where targets are: s3://bucket/prefix/ or a directory; else a file is meant",
    )
    parser.add_argument(
        "--ignore-code", dest="ignore_code", action="store_const", const="true",
        help="look past the code/ directory of an archive that carries one",
    )  # fmt: skip
    parser.add_argument(
        "--s3-endpoint-url", dest="endpoint_url", metavar="URL", help="another S3 than Amazon's (MME_S3_ENDPOINT_URL)"
    )


def fetch(chosen: argparse.Namespace, access: Access) -> Archive:
    """The archive that `add_arguments` let the operator name. Raises ArchiveUnusable."""
    if chosen.models is None and not chosen.archive.startswith("s3://"):
        return _read(Path(chosen.archive), access.limits.artifact_max_bytes)
    from handler.stores import LocationInvalid, open_store
    from handler.targets import parse_target

    location, target = chosen.models, chosen.archive
    if location is None:
        prefix, _, target = chosen.archive.rpartition("/")
        location = prefix + "/"
    try:
        s3 = None
        if location.startswith("s3://"):
            from handler.stores.s3 import S3Settings  # boto3 costs 0.2 s, which a file need not pay

            s3 = S3Settings(endpoint_url=access.endpoint_url)
        store = open_store(location, max_artifact_bytes=access.limits.artifact_max_bytes, s3=s3)
        try:
            fetched = store.fetch(parse_target(target))
        finally:
            store.close()
    except LocationInvalid as error:
        raise ArchiveUnusable(error, Exit.USAGE) from error
    except (ArtifactError, TargetInvalid) as error:
        raise _unusable(error) from error
    return Archive(fetched.data, fetched.uri)


def _read(path: Path, max_bytes: int) -> Archive:
    """A file anywhere on this machine: the operator named it, so links are followed."""
    try:
        if not path.is_file():
            raise _unusable(
                ArtifactRefused(str(path), "it is no regular file") if path.exists() else ArtifactMissing(str(path))
            )
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except PermissionError as error:
        raise _unusable(ArtifactForbidden(str(path), "PermissionDenied")) from error
    except (OSError, ValueError) as error:
        raise _unusable(ArtifactUnavailable(str(path), str(error))) from error
    if len(data) > max_bytes:
        raise _unusable(ArtifactRefused(str(path), f"it has more than {max_bytes} bytes (MME_MAX_ARTIFACT)"))
    return Archive(data, str(path))


@dataclass(frozen=True, slots=True)
class Access:
    """What fetching and examining lean on, of the settings."""

    endpoint_url: str | None
    limits: Limits


def read_settings(chosen: argparse.Namespace) -> Access:
    """Of the flags, the environment and the defaults. Raises ArchiveUnusable."""
    try:
        return Access(
            settings.read_one("endpoint_url", chosen.endpoint_url),
            Limits.of(
                settings.read_one("max_artifact_bytes", None),
                ignore_code=settings.read_one("ignore_code", chosen.ignore_code),
            ),
        )
    except settings.SettingInvalid as error:
        raise ArchiveUnusable(error, Exit.USAGE) from error


def _unusable(error: Exception) -> ArchiveUnusable:
    exit = next((exit for kind, exit in _EXITS if isinstance(error, kind)), Exit.FAILED)
    return ArchiveUnusable(error, exit)


class Bench:
    """Where archives are opened: the quarantine, for as long as a command needs it."""

    def __init__(self, limits: Limits) -> None:
        from container.examine.quarantine import (
            Quarantine,
        )  # numpy and libxgboost cost 0.2 s, which --help need not pay

        self._quarantine = Quarantine(1, limits=limits)

    def __enter__(self) -> Bench:
        self._quarantine.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quarantine.close()

    def examine(self, archive: Archive) -> Examined:
        """What is in it, with where it came from. Raises ArchiveUnusable for all that an endpoint would not serve."""
        from handler.predictor import FoldsDisagree, facts_of_ensemble

        try:
            examined = self._quarantine.examine(archive.data, archive.uri, wants_origins=True)
            facts_of_ensemble(examined.facts)
        except FoldsDisagree as error:
            raise _unusable(ArtifactRefused(archive.uri, str(error))) from error
        except ArtifactError as error:
            raise _unusable(error) from error
        return examined


def pack(members: Mapping[str, bytes], level: int = 6) -> bytes:
    """A model.tar.gz of these members. Without times, so that the same model is the same bytes. level: zlib's."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=level, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def pack_examined(examined: Examined) -> bytes:
    """The boosters under the names SageMaker's own images give them: one, or the folds by their numbers."""
    if len(examined.documents) == 1:
        return pack({MEMBER: examined.documents[0]})
    return pack({f"{MEMBER}-{number}": one for number, one in enumerate(examined.documents)})


def put(data: bytes, path: Path, *, may_replace: bool) -> None:
    """`data` as a file at `path`: written beside it, then renamed, and on any failure gone.

    raises   FileExistsError when it is there and may not be replaced; OSError
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if may_replace:
            part.replace(path)
        else:
            os.link(part, path)  # as a rename, but one that never replaces
    finally:
        part.unlink(missing_ok=True)
