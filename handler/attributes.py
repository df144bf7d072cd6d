"""What a caller may ask for in X-Amzn-SageMaker-Custom-Attributes, the one header SageMaker passes on untouched.

attributes = pair *( ( "," / ";" ) pair )
pair       = *SP key *SP "=" *SP value *SP, or anything else, which is ignored
key        = text without "=", compared exactly; keys we do not know are the caller's own business
value      = text without "," and ";", which may hold "=" and be empty; there are no quotes or escapes

TargetModel=eu/a.tar.gz               the target, where the endpoint refuses the TargetModel header
Output=predicted_label|probability    what to predict (see handler/outputs.py), separated by | + or spaces
Timing=1                              tell what took how long, in the answer's custom attributes
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

from handler.errors import TargetInvalid

TARGET = "TargetModel"
OUTPUT = "Output"
TIMING = "Timing"
_KNOWN = frozenset({TARGET, OUTPUT, TIMING})

REMEMBERED = 256  # headers; callers mostly send the same few, and each is at most 8 KiB


@lru_cache(maxsize=REMEMBERED)
def parse_attributes(text: str) -> MappingProxyType[str, str]:
    """The attributes that are ours. Raises TargetInvalid when two pairs name different targets; else the last wins."""
    found: dict[str, str] = {}
    for pair in text.replace(";", ",").split(","):
        key, equals, value = pair.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or key not in _KNOWN:
            continue
        if key == TARGET and found.get(TARGET, value) != value:
            raise TargetInvalid(value, f"the custom attributes also name {found[TARGET]!r}")
        found[key] = ",".join(value.replace("|", " ").replace("+", " ").split()) if key == OUTPUT else value
    return MappingProxyType(found)
