"""The platform for tests: in this process, asked over HTTP by plain boto3 clients, each with an account of its own."""

from __future__ import annotations

import random
from typing import Any

import boto3
import botocore.config

from container.platform.platform import Platform


def account() -> str:
    """One that no other platform of this process has, for moto keeps what it knows by account."""
    return "".join(random.SystemRandom().choices("123456789", k=12))


def platform(**options: Any) -> Platform:
    """`Platform`, to be used in a `with`."""
    return Platform(account=account(), **options)


def client(url: str, service: str, **options: Any) -> Any:
    """Plain boto3, one attempt unless `retries` says otherwise."""
    config = botocore.config.Config(**{"retries": {"total_max_attempts": 1}, "read_timeout": 60, **options})
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=config,
    )
