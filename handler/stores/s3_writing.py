"""An S3 prefix that artifacts are written to.

Rule: a condition goes to S3 with the write itself (If-Match, If-None-Match), and nothing is looked at first. boto3 tries
again when an answer is late, and then its own first try is in the way; so what is refused is compared with what was meant.

Source: S3 API, PutObject, CopyObject, DeleteObject. Not every other S3 honours conditions of a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from handler.errors import ArtifactChanged, ArtifactForbidden, ArtifactMissing
from handler.stores.directory_writing import is_same
from handler.stores.s3 import S3Store
from handler.stores.store import ANYTHING, NOTHING, Content

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from handler.stores.writing import WritingStore

_FOREIGN = (BotoCoreError, HTTPError, OSError)
_CHANGED = frozenset({"PreconditionFailed", "412"})
_AT_THE_SAME_TIME = frozenset({"ConditionalRequestConflict", "OperationAborted"})  # S3: "upload the object again"
MAX_TRIES = 5


class S3WritingStore(S3Store):
    """As `S3Store`, and it takes."""

    def put(self, target: str, data: Content, over: str = ANYTHING) -> str:
        body = bytes(data) if isinstance(data, memoryview) else data  # botocore takes no view

        def write(client: S3Client) -> str:
            if not isinstance(body, bytes):
                body.seek(0)
            answer = client.put_object(Bucket=self._bucket, Key=self._prefix + target, Body=body, **_condition(over))
            return answer["ETag"]

        version = self._write(target, write, over)
        return self._same(target, data) if version is None else version

    def copy(self, source: WritingStore, source_target: str, target: str, over: str = ANYTHING) -> str:
        if not isinstance(source, S3WritingStore):
            return self.put(target, source.fetch(source_target).data, over)

        def write(client: S3Client) -> str:
            answer = client.copy_object(
                Bucket=self._bucket,
                Key=self._prefix + target,
                CopySource={"Bucket": source._bucket, "Key": source._prefix + source_target},
                **_condition(over),
            )
            return answer["CopyObjectResult"]["ETag"]

        version = self._write(target, write, over, source.uri(source_target))
        return self._same(target, source.fetch(source_target).data) if version is None else version

    def remove(self, target: str, over: str = ANYTHING) -> None:
        def write(client: S3Client) -> str:
            client.delete_object(Bucket=self._bucket, Key=self._prefix + target, **_condition(over))
            return "gone"

        if self._write(target, write, over) is None:
            try:
                self.fetch(target)
            except ArtifactMissing:
                return
            raise ArtifactChanged(self.uri(target))

    def _write(self, target: str, write: Any, over: str, source_uri: str | None = None) -> str | None:
        """The new version; None when the condition does not hold."""
        for attempt in range(MAX_TRIES):
            client: S3Client | None = None
            try:
                client = self._connected()
                version: str = write(client)
                return version
            except ClientError as error:
                code = error.response.get("Error", {}).get("Code", "")
                if code in _AT_THE_SAME_TIME and attempt + 1 < MAX_TRIES:
                    continue
                if code in _CHANGED or code in _AT_THE_SAME_TIME:
                    return None
                if code == "NoSuchKey":
                    if source_uri is not None and over in (NOTHING, ANYTHING):
                        raise ArtifactMissing(source_uri) from error
                    return None  # there is nothing that could have this version
                self._raise_ours_of_writing(error, self.uri(target), client)
            except _FOREIGN as error:
                self._raise_ours_of_writing(error, self.uri(target), client)
        return None

    def _raise_ours_of_writing(self, error: Exception, uri: str, client: S3Client | None) -> NoReturn:
        try:
            self._raise_ours(error, uri, client)
        except ArtifactForbidden as forbidden:
            raise ArtifactForbidden(uri, forbidden.code, forbidden.detail, doing="written") from error

    def _same(self, target: str, data: Content) -> str:
        """The version of what is there, if it is what was to be written."""
        try:
            fetched = self.fetch(target)
        except ArtifactMissing:
            raise ArtifactChanged(self.uri(target)) from None
        if not is_same(fetched.data, data):
            raise ArtifactChanged(self.uri(target))
        return fetched.version


def _condition(over: str) -> Any:
    if over == ANYTHING:
        return {}
    return {"IfNoneMatch": "*"} if over == NOTHING else {"IfMatch": over}
