"""Large bodies, a step at a time.

Rule: what C does to a body in one call, it does with the interpreter lock held, and a millisecond for each megabyte is what
everybody else waits. Here a call sees one step; between two of them whoever waits for the lock gets it.
"""

from __future__ import annotations

# Looked through in about 0.1 ms, whatever is in it.
STEP_BYTES = 128 * 1024


def count(text: bytes, what: bytes, start: int = 0, end: int | None = None) -> int:
    """As text.count, of a single byte."""
    end = len(text) if end is None else end
    if end - start <= STEP_BYTES:
        return text.count(what, start, end)
    return sum(text.count(what, at, min(at + STEP_BYTES, end)) for at in range(start, end, STEP_BYTES))


def find(text: bytes, what: bytes, start: int, end: int) -> int:
    """Where a single byte comes first; `end` when it does not."""
    if end - start <= STEP_BYTES:
        found = text.find(what, start, end)
        return end if found < 0 else found
    for at in range(start, end, STEP_BYTES):
        found = text.find(what, at, min(at + STEP_BYTES, end))
        if found >= 0:
            return found
    return end


def escaped(text: bytes, what: bytes, start: int, end: int) -> int:
    """How often a single byte stands behind a backslash that is not escaped itself."""
    at, n_found = find(text, b"\\", start, end), 0
    while at < end:
        step = text[at : min(at + STEP_BYTES, end)]
        at += len(step)
        n_found += step.replace(b"\\\\", b"").count(b"\\" + what)
        if (len(step) - len(step.rstrip(b"\\"))) % 2:  # the last one's byte is the next step's first
            n_found += at < end and text[at : at + 1] == what
            at += 1
    return n_found


def trimmed(text: bytes, marks: bytes, start: int = 0) -> tuple[int, int]:
    """Where text.strip(marks) would begin and end."""
    end = len(text)
    if start < end and text[start] not in marks and text[-1] not in marks:
        return start, end
    while start < end:
        step = text[start : min(start + STEP_BYTES, end)]
        left = len(step.lstrip(marks))
        start += len(step) - left
        if left:
            break
    while start < end:
        step = text[max(end - STEP_BYTES, start) : end]
        left = len(step.rstrip(marks))
        end -= len(step) - left
        if left:
            break
    return start, end
