"""Where a release lives: the live prefix that endpoints read, and the shelf beside it.

    s3://acme/prod/                what endpoints read: plain keys, nothing else
    s3://acme/prod.releases/       the shelf
        artifacts/SHA256.tar.gz    each artifact once
        releases/ID.json           manifests
        current.json               which state is live, moved by conditional writes alone
        states/N-NONCE.json        what lay on which key after change N
        history/N.json             who did it, and why

Rule: nothing but artifacts is ever written to the live prefix.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from container import settings
from container.operate.troubles import Misused
from handler.stores import LocationInvalid, S3Location, parse_location
from handler.stores.writing import WritingStore, open_writing_store

BESIDE = ".releases"
N_AT_ONCE = 16  # requests in flight; S3 takes thousands a second of one prefix, this process sends some 800


@dataclass(frozen=True, slots=True)
class Place:
    """Both stores, open; `endpoint_url` is that of another S3 than Amazon's. flags: what else named it for this command."""

    location: str
    live: WritingStore
    shelf: WritingStore
    endpoint_url: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def is_s3(self) -> bool:
        return self.location.startswith("s3://")

    @property
    def named(self) -> str:
        """As the next command has to name it, behind `--of` or `--to`."""
        return shlex.join((self.location, *self.flags))

    def close(self) -> None:
        self.live.close()
        self.shelf.close()


def add_arguments(parser: argparse.ArgumentParser, flag: str, *, is_required: bool = True) -> None:
    """What names a place, the same for every command. flag: `--to` where something goes there, else `--of`."""
    parser.add_argument(
        flag,
        dest="live",
        required=is_required,
        metavar="LIVE",
        help="what endpoints read: s3://bucket/prefix/ or a directory",
    )
    parser.add_argument("--releases", metavar="LOCATION", help="where releases lie; else beside it, LIVE.releases")
    parser.add_argument(
        "--s3-endpoint-url", dest="endpoint_url", metavar="URL", help="another S3 than Amazon's (MME_S3_ENDPOINT_URL)"
    )


def open_place(chosen: argparse.Namespace, *, makes: bool = False) -> Place:
    """The place that `add_arguments` let the operator name. makes: a directory that is not there yet. Raises Misused."""
    try:
        url = settings.read_one("endpoint_url", chosen.endpoint_url)
    except settings.SettingInvalid as error:
        raise Misused(str(error)) from error
    where = (chosen.live, chosen.releases or f"{chosen.live.rstrip('/')}{BESIDE}")
    if not makes and "://" not in chosen.live and not any(Path(one).is_dir() for one in where):
        raise Misused(f"{chosen.live}: there is no such directory")
    said = (("--releases", chosen.releases), ("--s3-endpoint-url", chosen.endpoint_url))
    flags = tuple(word for flag, value in said if value for word in (flag, value))
    return replace(place_at(chosen.live, chosen.releases, url), flags=flags)


def place_at(live: str, releases: str | None = None, endpoint_url: str | None = None, max_attempts: int = 3) -> Place:
    """Raises Misused. A directory that is not there is made."""
    s3 = None
    if live.startswith("s3://") or (releases or "").startswith("s3://"):
        from handler.stores.s3 import S3Settings  # boto3 costs 0.2 s, which a directory need not pay

        s3 = S3Settings(endpoint_url=endpoint_url, max_connections=N_AT_ONCE, max_attempts=max_attempts)
    try:
        beside = releases or releases_beside(live)
        if beside.startswith("s3://") != live.startswith("s3://"):
            raise Misused(f"releases at {beside} cannot go live at {live}: both in S3, or both in directories")
        if _is_within(beside, live):
            raise Misused(f"releases at {beside} would be among what endpoints read at {live}; say another --releases")
        return Place(
            live.rstrip("/") + "/",
            open_writing_store(live, s3=s3, makes=True),
            open_writing_store(beside, s3=s3, makes=True),
            endpoint_url,
        )
    except LocationInvalid as error:
        raise Misused(str(error)) from error
    except OSError as error:
        raise Misused(f"{live} cannot be made: {error.strerror}") from error


def _is_within(inner: str, outer: str) -> bool:
    """Whether one location is the other, or below it."""
    if "://" not in outer:
        return Path(inner).resolve().is_relative_to(Path(outer).resolve())
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def releases_beside(live: str) -> str:
    """Where releases of a live prefix lie, when nobody says otherwise. Raises Misused."""
    if live.startswith("s3://"):
        where = parse_location(live)
        assert isinstance(where, S3Location)
        if not where.prefix:
            raise Misused(
                f"{live} is a whole bucket, and nothing is beside it; say --releases s3://another-bucket/prefix/"
            )
    return live.rstrip("/") + BESIDE + "/"
