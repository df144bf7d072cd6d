"""What a caller gets instead of an answer, as botocore reads it.

Rule: a fault is raised where it is found and written to the wire in desk.py alone.
"""

from __future__ import annotations

from typing import Any


class ServiceFault(Exception):
    """Ends a call. `code` is what botocore finds in Error.Code, `fields` what else the body has."""

    code = "InternalFailure"
    status = 500

    def __init__(self, message: str, code: str | None = None, status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.status = status or self.status
        self.fields: dict[str, Any] = {}


class ValidationException(ServiceFault):
    code = "ValidationException"
    status = 400


class SerializationException(ServiceFault):
    """A member is of another kind than its shape says."""

    code = "SerializationException"
    status = 400


class ResourceNotFound(ServiceFault):
    code = "ResourceNotFound"
    status = 400


class ResourceInUse(ServiceFault):
    code = "ResourceInUse"
    status = 400


class ResourceLimitExceeded(ServiceFault):
    code = "ResourceLimitExceeded"
    status = 400


class ConflictException(ServiceFault):
    code = "ConflictException"
    status = 400


class ObjectNotFoundException(ServiceFault):
    """Application Auto Scaling's word for what is not registered."""

    code = "ObjectNotFoundException"
    status = 400


class ThrottlingException(ServiceFault):
    code = "ThrottlingException"
    status = 400

    def __init__(self) -> None:
        super().__init__("Rate exceeded")


class NotPlayed(ServiceFault):
    """An operation that the real service has and the platform does not play."""

    code = "NotImplemented"
    status = 501

    def __init__(self, service: str, operation: str) -> None:
        super().__init__(f"mme platform does not play {operation} of {service}")
