"""Which reading of a body, or spelling of an answer, an endpoint takes where there are two. README.md has the table.

Rule: nothing here changes a number. What only one convention can read is read under it; what both can read means the same
under both.
"""

from __future__ import annotations

from dataclasses import dataclass

from handler.payload.media import CSV, JSON, choose_media_type


@dataclass(frozen=True, slots=True)
class Conventions:
    """An endpoint's.

    accept         what is answered to a request that does not say what it accepts
    is_positional  columns whose names a model cannot compare, having none, are taken in the order they come
    one_line       plain scores as CSV the way AWS's multi-model handler writes them: on one line
    is_aws         scores as AWS's XGBoost image writes them in multi-model mode, and rows it reads although they are short
    """

    accept: str = CSV
    is_positional: bool = False
    one_line: bool = False
    is_aws: bool = False

    def media_type(self, accept: str | None) -> str:
        """What an answer is sent as: one of ACCEPTED, or as AWS's image does what the caller called it.

        accept   the Accept header, if any
        raises   AcceptUnsupported
        """
        if accept is None or accept.strip() in {"", "*/*"}:
            return self.accept
        chosen = choose_media_type(accept)
        return accept if self.is_aws and accept.lower() in _AWS_NAMES else chosen


OURS = Conventions()
AWS = Conventions(accept=JSON, is_aws=True)

# source: aws/sagemaker-xgboost-container, algorithm_mode/handler_service.py, default_output_fn
_AWS_NAMES = frozenset({CSV, "csv", JSON})
