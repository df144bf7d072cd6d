"""S3 as jobs use it: lists below a prefix, copies to files and back.

Rule: what S3 refuses becomes a DataFault in the words that SageMaker has for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError


class DataFault(Exception):
    """Ends a job; its text is the failure's reason."""


@dataclass(frozen=True, slots=True)
class Address:
    """s3://bucket/key, or the beginning of keys."""

    bucket: str
    key: str

    @classmethod
    def of(cls, uri: str) -> Address:
        bucket, _, key = uri.partition("://")[2].partition("/")
        return cls(bucket, key)

    def below(self, name: str) -> Address:
        """A key inside, with one slash between."""
        return Address(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


class Objects:
    """client: boto3's for s3. may: whether a job's role may do this to that, which is an ARN. Any thread may call."""

    def __init__(self, client: Any, may: Callable[[str, str], bool] = lambda _action, _arn: True) -> None:
        self._client = client
        self._may = may

    def keys(self, address: Address) -> list[str]:
        """All that begin so, in S3's own order, which is by bytes."""
        with self._told(address, "ListBucket", f"arn:aws:s3:::{address.bucket}"):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=address.bucket, Prefix=address.key)
            return [one["Key"] for page in pages for one in page.get("Contents", ())]

    def read(self, address: Address) -> bytes:
        with self._told(address, "GetObject"):
            data: bytes = self._client.get_object(Bucket=address.bucket, Key=address.key)["Body"].read()
            return data

    def download(self, address: Address, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._told(address, "GetObject"), path.open("wb") as file:
            body = self._client.get_object(Bucket=address.bucket, Key=address.key)["Body"]
            for chunk in body.iter_chunks(1 << 20):
                file.write(chunk)

    def upload(self, path: Path, address: Address) -> None:
        with path.open("rb") as file:
            self.write(address, file)

    def write(self, address: Address, data: bytes | IO[bytes]) -> None:
        with self._told(address, "PutObject"):
            self._client.put_object(Bucket=address.bucket, Key=address.key, Body=data)

    @contextmanager
    def _told(self, address: Address, action: str, arn: str = "") -> Iterator[None]:
        if not self._may(f"s3:{action}", arn or f"arn:aws:s3:::{address.bucket}/{address.key}"):
            raise DataFault(f"AccessDenied (403): the role may not s3:{action} {address}")
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            said = error.response.get("Error", {}).get("Message", "")
            raise DataFault(f"{code} ({status}): {said} {address}") from error
        except BotoCoreError as error:
            raise DataFault(f"{address}: {error}") from error
