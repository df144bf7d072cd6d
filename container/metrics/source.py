"""What the admin port asks of the process it watches.

Rule: every answer is the truth at the moment of asking, given from memory and at once; none waits for S3 or a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the process should live, and whether it should be sent requests; `reasons` say why not."""

    is_alive: bool
    is_ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model in memory.

    version    what tells two uploads under one key apart (an ETag, a digest)
    borrowers  requests that use it at this moment; until they let go its bytes cannot be given back
    is_pinned  it is never evicted
    trouble    why a newer version does not take its place, or why none could be looked for; empty when all is well
    """

    name: str
    version: str
    n_bytes: int
    age_s: float
    idle_s: float
    hits: int
    borrowers: int
    is_pinned: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The process as a whole.

    title         what the page calls it: "endpoint/variant", or the models' prefix
    budget_bytes  memory that models may take; process_bytes is the resident size of everything
    """

    title: str
    started_s: float
    loaded_models: int
    loaded_bytes: int
    budget_bytes: int
    process_bytes: int


class Source(Protocol):
    def health(self) -> Health: ...
    def snapshot(self) -> Snapshot: ...
    def models(self) -> Sequence[ModelState]: ...
