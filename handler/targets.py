"""Targets: what a caller may write for `TargetModel`, a key below the store's prefix such as `eu/Houston_TX.tar.gz`.

Rule: a target is checked once, where it enters, and is never changed. `%2E` stays `%2E` and `é` stays as the caller
composed it, because a store's keys are exact strings and a check of anything but the string that is used is no check.
"""

from __future__ import annotations

from handler.errors import TargetInvalid

MAX_TARGET_CHARS = 1024  # InvokeEndpoint's limit for TargetModel; S3's limit for a whole key is 1024 UTF-8 bytes


def as_sent(header: str) -> str:
    """A header's text as the caller meant it. Clients send UTF-8; HTTP servers, MMS among them, read it as Latin-1."""
    if header.isascii():
        return header
    try:
        return header.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return header  # it was Latin-1, or came some other way


def parse_target(raw: str) -> str:
    """The target itself, now known to be a key below the prefix.

    raises   TargetInvalid, saying what is wrong
    cost     0.2 us: every request comes here, so the usual target is let through by a few scans in C. No cache: one
             would save no time and hold megabytes that a caller chooses.
    """
    if (
        0 < len(raw) <= MAX_TARGET_CHARS
        and raw[0] not in "/. "
        and raw[-1] != "/"
        and "//" not in raw
        and "/." not in raw
        and "\\" not in raw
        and raw.isprintable()
    ):
        return raw
    if why := _objection(raw):
        raise TargetInvalid(raw[:MAX_TARGET_CHARS], why)
    return raw


def _objection(raw: str) -> str | None:
    """What keeps `raw` from being a target; None for the rare ones that are fine, such as `.hidden/a`."""
    if not raw:
        return "it is empty"
    if len(raw) > MAX_TARGET_CHARS:
        return f"it has {len(raw)} characters, more than {MAX_TARGET_CHARS}"
    if not raw.isprintable():  # C0 and C1 controls, NUL, line and odd space separators, lone surrogates
        odd = next(char for char in raw if not char.isprintable())
        return f"it holds the unprintable character U+{ord(odd):04X}"
    if "\\" in raw:
        return "it holds a backslash"
    if raw.startswith("/"):
        return "it is absolute; name a key below the prefix"
    if raw.startswith(" "):
        return "it starts with a space"  # InvokeEndpoint's own pattern is \S[\p{Print}]*
    if raw.endswith("/"):
        return "it ends with a slash; name an artifact, not a folder"
    for segment in raw.split("/"):
        if segment in ("", ".", ".."):
            return f"it has a path segment {segment!r}"
    return None
