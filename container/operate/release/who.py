"""Who does something to a release: as AWS's STS names the caller, else this machine's user.

Rule: nothing that somebody may set says who it was, where something better is to be had.
"""

from __future__ import annotations

import getpass
import socket

from container.operate.release.place import Place


def who(place: Place) -> str:
    return (_caller(place.endpoint_url) if place.is_s3 else None) or _user()


def _caller(endpoint_url: str | None) -> str | None:
    """The caller's ARN; None where nobody says. Another S3 than Amazon's may be an STS, too (MinIO, moto)."""
    from botocore.exceptions import BotoCoreError, ClientError  # boto3 costs 0.2 s, which a directory need not pay
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    from handler import aws

    try:
        sts = aws.client("sts", aws.Patience(1.0, 2.0, 1), endpoint_url=endpoint_url)
        arn: str | None = sts.get_caller_identity().get("Arn")
    except (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError, ValueError):
        return None  # the command itself is what fails when nobody may do it
    return arn


def _user() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"
