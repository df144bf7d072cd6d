"""What a caller of InvokeEndpoint gets instead of an answer, as botocore reads it.

Source: botocore's sagemaker-runtime service model, InvokeEndpoint errors.
"""

from __future__ import annotations

from container.platform.service.faults import ServiceFault

LOG_STREAM = "arn:aws:logs:local:000000000000:log-group:/aws/sagemaker/Endpoints"


class ServiceError(ServiceFault):
    """Ends a call."""


class ValidationError(ServiceError):
    status = 400
    code = "ValidationError"


class ModelNotReady(ServiceError):
    status = 429
    code = "ModelNotReadyException"


class ServiceUnavailable(ServiceError):
    status = 503
    code = "ServiceUnavailable"


class ModelError(ServiceError):
    """The container answered anything but 200, or not in time (0)."""

    status = 424
    code = "ModelError"

    def __init__(self, original: int, text: str) -> None:
        whose = "client" if 400 <= original < 500 else "server"
        super().__init__(f'Received {whose} error ({original}) from model with message "{text}".')
        self.original = original
        self.fields |= {"OriginalStatusCode": original, "OriginalMessage": text, "LogStreamArn": LOG_STREAM}
