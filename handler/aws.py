"""The one place that makes AWS clients: which credentials they see, how long they wait, how often they try.

Rule: a client gives up within a time that its maker names. botocore's descriptions of the services (11 MB once read) are read
once for all clients of a process, however often one is made anew.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.loaders import Loader, create_loader

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one attempt may take to connect and how long a socket may be silent, in seconds, and how many attempts
    there are, the first included, with botocore's `standard` pauses between them."""

    connect_s: float = 2.0
    read_s: float = 5.0
    attempts: int = 2

    def config(self, **options: Any) -> Config:
        return Config(
            connect_timeout=self.connect_s,
            read_timeout=self.read_s,
            retries={"mode": "standard", "total_max_attempts": self.attempts},
            **options,
        )


@cache
def _descriptions() -> Loader:
    # Not a session's: that one looks into the machine's profiles for where else descriptions may be.
    loader: Loader = create_loader()
    return loader


def session(**session_vars: Any) -> boto3.session.Session:
    """A session of its own: it looks for credentials anew, in the places that boto3 always looks in."""
    core = botocore.session.Session(**session_vars)
    core.register_component("data_loader", _descriptions())
    return boto3.session.Session(botocore_session=core)


def client(
    service: Any, patience: Patience, *, region: str | None = None, endpoint_url: str | None = None, **options: Any
) -> Any:
    """A client with this machine's credentials. options: botocore's Config's."""
    return session().client(service, region_name=region, endpoint_url=endpoint_url, config=patience.config(**options))


def cloudwatch(region: str | None = None, endpoint_url: str | None = None) -> CloudWatchClient:
    """Gives up soon: what a sink could not deliver it tries again by itself, later."""
    made: CloudWatchClient = client("cloudwatch", Patience(), region=region, endpoint_url=endpoint_url)
    return made


def local_client(service: Any, url: str, patience: Patience, *, key: str, region: str) -> Any:
    """A client for one server of ours, blind to the machine's credentials and profiles.

    key      any does as id and secret: it checks none
    raises   ValueError: `url` is none
    """
    blind = {name: (None, None, value, None) for name, value in
             (("profile", None), ("config_file", os.devnull), ("credentials_file", os.devnull))}  # fmt: skip
    is_here = urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    return session(session_vars=blind).client(
        service,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=key,
        endpoint_url=url,
        config=patience.config(proxies={} if is_here else None),  # a proxy for the world knows no way to this machine
    )
