"""Why a booster file cannot be imported, before anyone knows where it came from.

Rule: the parts of the importer see bytes and raise these; `import_booster` adds the uri and raises the errors of
handler/errors.py.
"""

from __future__ import annotations


class Damaged(Exception):
    """The bytes are no sound booster; the message says where and what."""


class Unsupported(Exception):
    """A sound booster that would not be answered right here; the message says why."""
