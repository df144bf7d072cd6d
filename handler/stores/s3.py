"""Artifacts below an S3 prefix, through boto3.

Rule: one GetObject per fetch and nothing around it: no HEAD first (but for the bucket, once, at start), no transfer
manager, one client for all threads.
Every call ends: an attempt to connect after 1 s, a silent socket after 5 s, the whole fetch at its deadline.
"""

from __future__ import annotations

import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from botocore import UNSIGNED
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from handler import aws
from handler.errors import (
    ArtifactForbidden,
    ArtifactMissing,
    ArtifactRefused,
    ArtifactUnavailable,
    TargetInvalid,
)
from handler.stores.store import Fetched, StoredObject
from handler.targets import parse_target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

log = logging.getLogger("mme.store")

READ_BYTES = 256 * 1024  # at most this much per recv; a small booster's archive is here in one or two

_MISSING = frozenset({"NoSuchKey", "KeyTooLongError"})
# 4xx that a later call may get past, or that are no fault of the caller's target: none can be served until the operator
# names or makes the bucket, pays for it, or gives the endpoint other credentials.
_PASSING = frozenset(
    {
        "AccountProblem",
        "AllAccessDisabled",
        # Another region than the client's; botocore follows most of these by itself.
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "ExpiredTokenException",
        "IllegalLocationConstraintException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoSuchAccessPoint",
        "NoSuchBucket",
        "NotSignedUp",
        "OperationAborted",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "RequestTimeout",
        "RequestTimeoutException",
        "SignatureDoesNotMatch",
        "SlowDown",
        "TokenRefreshRequired",
        "TooManyRequestsException",
    }
)
_STALE_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
_CODES: dict[type[Exception], str] = {
    NoCredentialsError: "NoCredentials",
    CredentialRetrievalError: "NoCredentials",
    FlexibleChecksumError: "ChecksumMismatch",
    IncompleteReadError: "ConnectionBroken",
    ResponseStreamingError: "ConnectionBroken",
}


class _DeadlinePassed(Exception):
    """No attempt or read may start any more."""


# What boto3 is known to let through: its own tree, its parser's errors, urllib3's where a body is read (TLS), and
# ValueError for an endpoint that is no URL or a header that is no number.
_FOREIGN = (BotoCoreError, ResponseParserError, HTTPError, OSError, ValueError, _DeadlinePassed)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """How to speak to S3. None leaves the choice to boto3's own chain (environment, profile, instance role).

    endpoint_url        another S3 (MinIO, moto); boto3 then puts the bucket into the path
    max_connections     how many threads fetch at once; more would open connections that are thrown away
    connect_timeout_s   S3 in the same region answers SYN in milliseconds; one lost SYN is resent after 1 s
    read_timeout_s      longest silence on the socket; S3's own advice for small objects is to retry after seconds
    max_attempts        tries for an answer's headers, in `standard` mode: up to 1, then 2 s between them, and a retry
                        budget for all threads together, so that a failing S3 is not stormed
    deadline_s          no attempt, back-off or read starts after it, so a fetch is over at most one of those later
                        (not within it: DNS, boto3's look for credentials, and headers that drip byte by byte)
    allow_anonymous     without any credentials, ask unsigned (public buckets) rather than fail
    """

    endpoint_url: str | None = None
    region: str | None = None
    max_connections: int = 8
    connect_timeout_s: float = 1.0
    read_timeout_s: float = 5.0
    max_attempts: int = 3
    deadline_s: float = 20.0
    allow_anonymous: bool = False


class S3Store:
    """Objects below `prefix` (empty or ending with a slash) as artifacts.

    version  the ETag as S3 writes it, quotes included: that is what If-None-Match takes back. Not the VersionId: the
             same bytes uploaded again are nothing to reload.
    checked  Content-Length always, and the CRC32 or SHA checksum that boto3 uploads with. Not ETag = MD5: with SSE-KMS,
             directory buckets and some other S3s the ETag looks like an MD5 and is none, and sound artifacts would be
             refused. A gzip archive carries a CRC32 of its own.
    denied   S3 says AccessDenied, not NoSuchKey, for a missing object to a role without s3:ListBucket on the bucket
    """

    listed_per_request = 1000  # ListObjectsV2, MaxKeys

    def __init__(self, bucket: str, prefix: str, *, max_artifact_bytes: int, settings: S3Settings) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._max_bytes = max_artifact_bytes
        self._settings = settings
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._call = _Call()

    def uri(self, target: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{target}"

    def connect(self) -> None:
        """Make the client (0.1 s, 15 MB). It looks for credentials, within boto3's own limits, and asks S3 nothing."""
        try:
            self._connected()
        except _FOREIGN as error:
            self._raise_ours(error, self.uri(""), None)

    def look_for_bucket(self) -> None:
        """Say in the log when there is no such bucket, or in another region. Nothing ends for it: it may be made later."""
        try:
            client = self._connected()
            client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            status = _status(error)
            headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
            if status == 404:
                log.error("there is no bucket %r: no model can be served before there is one", self._bucket)
            elif status in (301, 400) and (region := headers.get("x-amz-bucket-region")):
                log.error("bucket %r is in %s, and is asked for in %s", self._bucket, region, client.meta.region_name)
            # 403 says that this role may not list it, which serving does not need.
        except _FOREIGN as error:
            log.warning("whether there is a bucket %r could not be asked: %s", self._bucket, error)

    def fetch(self, target: str) -> Fetched:
        fetched = self._get(target, known_version=None)
        assert fetched is not None  # S3 says 304 only to a condition
        return fetched

    def fetch_if_changed(self, target: str, version: str) -> Fetched | None:
        return self._get(target, known_version=version)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        uri = self.uri(prefix)
        client: S3Client | None = None
        try:
            client = self._connected()
            self._call.deadline = None
            pages = client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for found in page.get("Contents", ()):
                    try:
                        target = parse_target(found["Key"][len(self._prefix) :])
                    except TargetInvalid:
                        continue  # a "folder" object, or a key that no caller could name
                    yield StoredObject(target, found["Size"], found["ETag"], found["LastModified"].timestamp())
        except (ClientError, *_FOREIGN) as error:
            self._raise_ours(error, uri, client)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _get(self, target: str, known_version: str | None) -> Fetched | None:
        uri = self.uri(target)
        deadline = time.monotonic() + self._settings.deadline_s
        condition: Any = {} if known_version is None else {"IfNoneMatch": known_version}
        client: S3Client | None = None
        try:
            client = self._connected()
            self._call.deadline = deadline
            answer = client.get_object(Bucket=self._bucket, Key=self._prefix + target, **condition)
            # Closed on any failure: a connection with bytes still on it may not go back to the pool.
            with closing(answer["Body"]):
                return self._read_whole(answer, uri, deadline)
        except ClientError as error:
            if _status(error) == 304:
                return None
            self._raise_ours(error, uri, client)
        except _FOREIGN as error:
            self._raise_ours(error, uri, client)

    def _read_whole(self, answer: GetObjectOutputTypeDef, uri: str, deadline: float) -> Fetched:
        """The answer with its whole body; botocore compares length and checksum when it reads the end."""
        announced_bytes, version, body = answer.get("ContentLength"), answer.get("ETag"), answer["Body"]
        if announced_bytes is None or version is None:
            raise ArtifactUnavailable(uri, "NoContentLength" if version else "NoETag")  # a cut could not be told
        # No public way leads to read1(). The test with a dripping server says when this one closes.
        body._raw_stream = _AsItArrives(body._raw_stream)  # type: ignore[attr-defined]
        whole = io.BytesIO()  # grows in place and hands out what it holds: joining 100 MB would hold up every thread
        size = 0
        while max(size, announced_bytes) <= self._max_bytes:
            part = body.read(READ_BYTES)
            if not part:
                return Fetched(whole.getvalue(), version, uri)
            whole.write(part)
            size += len(part)  # counted, since a chunked answer may announce one size and send another
            if time.monotonic() > deadline:
                raise _DeadlinePassed
        raise ArtifactRefused(uri, f"{max(size, announced_bytes)} bytes are more than {self._max_bytes}")

    def _connected(self) -> S3Client:
        """The one client. boto3 clients may be shared by threads; making one is what may not run twice at a time."""
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _make_client(self) -> S3Client:
        settings = self._settings
        patience = aws.Patience(settings.connect_timeout_s, settings.read_timeout_s, settings.max_attempts)
        is_unsigned = settings.allow_anonymous and aws.session().get_credentials() is None
        client: S3Client = aws.client(
            "s3",
            patience,
            region=settings.region,
            endpoint_url=settings.endpoint_url,
            max_pool_connections=settings.max_connections,
            tcp_keepalive=True,
            response_checksum_validation="when_supported",
            signature_version=UNSIGNED if is_unsigned else None,
        )
        # After an attempt, so that no back-off starts, and after the back-off, so that no attempt does.
        client.meta.events.register_first("needs-retry.s3.GetObject", self._call.check)
        client.meta.events.register("before-send.s3.GetObject", self._call.check)
        return client

    def _raise_ours(self, error: Exception, uri: str, client: S3Client | None) -> NoReturn:
        code = _code(error)
        if isinstance(error, NoCredentialsError) or code in _STALE_CREDENTIALS:
            # A client keeps the credentials, or the lack of them, that it was made with. The next call makes a new one
            # and so sees an instance role that has come up, or a credentials file that was renewed.
            with self._lock:
                if self._client is client:
                    self._client = None
        if isinstance(error, ClientError):
            status = _status(error)
            if code in _MISSING or (status == 404 and code not in _PASSING):
                raise ArtifactMissing(uri) from error
            detail = error.response.get("Error", {}).get("Message", "")
            is_passing = code in _PASSING or "Throttl" in code or status in (408, 429)
            if 400 <= status < 500 and not is_passing:
                raise ArtifactForbidden(uri, code, detail) from error
            raise ArtifactUnavailable(uri, code, detail) from error
        raise ArtifactUnavailable(uri, code) from error


class _Call(threading.local):
    """The deadline of the fetch this thread is in, which botocore's retries know nothing of."""

    deadline: float | None = None

    def check(self, **_: object) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise _DeadlinePassed


class _AsItArrives:
    """A urllib3 response whose `read(n)` gives what has arrived, up to n bytes.

    Its own `read(n)` waits for all n, byte by byte if need be, and each byte starts the socket's timeout anew: a server
    that drips would hold the thread for hours, with the clock never looked at.
    """

    def __init__(self, response: Any) -> None:
        self._response = response

    def read(self, max_bytes: int) -> bytes:
        data: bytes = self._response.read1(max_bytes)
        return data

    def close(self) -> None:
        self._response.close()


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _code(error: Exception) -> str:
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") or str(_status(error))
    return _CODES.get(type(error)) or type(error).__name__.strip("_").removesuffix("Error")
