"""What a caller may ask for in X-Amzn-SageMaker-Custom-Attributes, the one header SageMaker passes on untouched.

attributes = pair *( ( "," / ";" ) pair )
pair       = *SP key *SP "=" *SP value *SP, or anything else, which is ignored but behind Output
key        = text without "=", compared exactly; keys we do not know are the caller's own business
value      = text without "," and ";", which may hold "=" and be empty; there are no quotes or escapes

TargetModel=eu/a.tar.gz               the target, where the endpoint refuses the TargetModel header
Output=predicted_label|probability    what to predict (see handler/outputs.py), separated by | + or spaces, or by commas as in
                                      SAGEMAKER_INFERENCE_OUTPUT: up to the next pair or semicolon all words are outputs
Iterations=all|best                   which rounds of a model that stopped early answer, whatever it does by itself
Timing=1                              tell what took how long, in the answer's custom attributes
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType

from handler.errors import TargetInvalid

TARGET = "TargetModel"
OUTPUT = "Output"
ITERATIONS = "Iterations"
TIMING = "Timing"
_KNOWN = frozenset({TARGET, OUTPUT, ITERATIONS, TIMING})

# Every output there is; which of them a model has depends on its objective (handler/outputs.py).
OUTPUTS = (
    *(
        "score",
        "predicted_label",
        "labels",
        "probability",
        "probabilities",
        "raw_score",
        "raw_scores",
        "predicted_score",
    ),
    *("margin", "contribs", "approx_contribs", "interactions", "leaf"),
)

REMEMBERED = 256  # headers; callers mostly send the same few, and each is at most 8 KiB


@lru_cache(maxsize=REMEMBERED)
def parse_attributes(text: str) -> MappingProxyType[str, str]:
    """The attributes that are ours. Raises TargetInvalid when two pairs name different targets; else the last wins."""
    found: dict[str, str] = {}
    for part in text.split(";"):
        key = ""
        for pair in part.split(","):
            name, equals, value = pair.partition("=")
            if not equals:
                if key == OUTPUT:  # a word that was left out would be an answer with less than was asked for
                    found[OUTPUT] += "," + _outputs(pair)
                continue
            key, value = name.strip(), value.strip()
            if key == TARGET and found.get(TARGET, value) != value:
                raise TargetInvalid(value, f"the custom attributes also name {found[TARGET]!r}")
            if key in _KNOWN:
                found[key] = _outputs(value) if key == OUTPUT else value
    return MappingProxyType(found)


def _outputs(words: str) -> str:
    return ",".join(words.replace("|", " ").replace("+", " ").split())
