"""A call that finds its component at zero, made again until a copy is there.

Rule: only that one refusal is waited out. Another ValidationError is the caller's own mistake, and waiting would hide it;
what comes while a copy starts (not ready, overloaded) is waited out once the wake has begun.

Source of the words: AWS's blog on scaling to zero, 3 December 2024; there is no queue, and the refused call is what wakes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from container.operate.endpoint.calling import Answered, CallRefused

WAKE_S = 1200.0  # others measured 5 to 10 minutes from zero
FIRST_PAUSE_S, LONGEST_PAUSE_S = 2.0, 15.0
ASLEEP = "has no capacity to process this request"
_STARTING = frozenset({"ModelNotReadyException", "ServiceUnavailable"})


def is_asleep(type: str, message: str) -> bool:
    return type == "ValidationError" and ASLEEP in message


def awake(
    call: Callable[[], Answered],
    most_s: float,
    tell: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> Answered:
    """The answer of `call`, as soon as there is one. tell: told now and then how long it has been.

    raises   CallFailed: what `call` raises for another reason, and after `most_s` that it is still asleep
    """
    from container.operate.endpoint.calling import CallRefused

    began, pause_s, is_waking = monotonic(), FIRST_PAUSE_S, False
    while True:
        try:
            answered = call()
        except CallRefused as error:
            is_waking |= is_asleep(error.type, error.message)
            if not _may_wait(error, is_waking=is_waking) or monotonic() - began + pause_s > most_s:
                raise
            tell(
                f"{'at zero' if is_asleep(error.type, error.message) else error.type}, {monotonic() - began:.0f} s; waiting"
            )
            sleep(pause_s)
            pause_s = min(LONGEST_PAUSE_S, pause_s * 1.5)
        else:
            if is_waking:
                tell(f"awake after {monotonic() - began:.0f} s")
            return answered


def _may_wait(error: CallRefused, *, is_waking: bool) -> bool:
    return is_waking and (is_asleep(error.type, error.message) or error.type in _STARTING)
