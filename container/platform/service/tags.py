"""Tags of the platform's own resources, by ARN, and the three operations on them.

Rule: a resource's tags go with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from container.platform.service.call import Call, Operation
from container.platform.service.faults import ResourceLimitExceeded
from container.platform.service.pages import page

MAX_TAGS = 50  # of one resource
# The list operation has its own default.
DEFAULT_RESULTS = 50


class Tags:
    """A room asks `put` when it makes something and `forget` when that is gone."""

    def __init__(self) -> None:
        self._tags: dict[str, dict[str, str]] = {}

    def put(self, arn: str, tags: Iterable[Mapping[str, str]]) -> None:
        given = {tag["Key"]: tag["Value"] for tag in tags}
        if len({**self._tags.get(arn, {}), **given}) > MAX_TAGS:
            raise ResourceLimitExceeded(f"a resource has at most {MAX_TAGS} tags")
        if given:
            self._tags.setdefault(arn, {}).update(given)

    def forget(self, arn: str) -> None:
        self._tags.pop(arn, None)

    def of(self, arn: str) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in sorted(self._tags.get(arn, {}).items())]

    def operations(self) -> dict[tuple[str, str], Operation]:
        return {
            ("sagemaker", "AddTags"): self._add,
            ("sagemaker", "ListTags"): self._list,
            ("sagemaker", "DeleteTags"): self._delete,
        }

    def dump(self) -> Any:
        return self._tags

    def restore(self, value: Any) -> None:
        self._tags = value

    def _add(self, call: Call) -> Mapping[str, Any]:
        self.put(call.parameters["ResourceArn"], call.parameters["Tags"])
        return {"Tags": self.of(call.parameters["ResourceArn"])}

    def _list(self, call: Call) -> Mapping[str, Any]:
        found, token = page(self.of(call.parameters["ResourceArn"]), {"MaxResults": DEFAULT_RESULTS, **call.parameters})
        return {"Tags": found, "NextToken": token}

    def _delete(self, call: Call) -> Mapping[str, Any]:
        for key in call.parameters["TagKeys"]:
            self._tags.get(call.parameters["ResourceArn"], {}).pop(key, None)
        return {}
