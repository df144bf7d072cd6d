"""What a run was asked for, checked: everything its bytes depend on besides data and models."""

from __future__ import annotations

from dataclasses import dataclass

from container.operate.tables.reading import Reading
from handler.predictor import Iterations


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Reading):
    """One run's question.

    outputs          as `handler.outputs` names them; empty for the plain score
    iterations       all or best; None leaves it to each model
    out_format       one of FORMATS
    """

    outputs: tuple[str, ...] = ()
    iterations: str | None = None
    out_format: str = "parquet"

    @property
    def rounds(self) -> Iterations | None:
        return None if self.iterations is None else Iterations(self.iterations)
