"""What CloudWatch Logs asks of a line before it makes metrics of it, for tests and for benchmarks/telemetry.py.

`fixtures/emf.schema.json` has what JSON Schema can say; the rest is here. Sources: CloudWatch guide, "Specification:
Embedded metric format" (schema and text, which allows 1 MB for an event; it was 256 KB until 2025, and that is held here);
CloudWatch Logs API, PutLogEvents (ages); CloudWatch API, MetricDatum (values). Of `Values` with `Counts` that text knows
nothing: it is what AWS's own exporter in the OpenTelemetry collector sends (pull request 22626), which splits at 100
values because more make CloudWatch reject the event and count an EMFValidationErrors (pull request 36084).
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator

SCHEMA = Draft202012Validator(json.loads((Path(__file__).parents[1] / "fixtures" / "emf.schema.json").read_text()))
MAX_EVENT_BYTES = 256 * 1024 - 26  # 26 are CloudWatch's own for each event
OLDEST_S, NEWEST_S = 14 * 86_400, 2 * 3_600
MAX_MAGNITUDE = 2.0**360


def problems(line: bytes, *, now_s: float | None = None) -> list[str]:
    """Why CloudWatch would make no metrics, or wrong ones, of this line; empty when it would not."""
    try:
        document = json.loads(line, parse_constant=_refuse)  # Python reads NaN and Infinity, JSON has neither
    except ValueError as error:
        return [f"not JSON: {error}"]
    found = [f"{error.json_path}: {error.message}" for error in SCHEMA.iter_errors(document)]
    if found:
        return found
    if len(line) > MAX_EVENT_BYTES:
        found.append(f"{len(line)} bytes")
    if line.count(b"\n") != 1 or not line.endswith(b"\n"):
        found.append("not one line")
    age_s = (time.time() if now_s is None else now_s) - document["_aws"]["Timestamp"] / 1000
    if not -NEWEST_S <= age_s <= OLDEST_S:
        found.append(f"{age_s:.0f} s old")
    for directive in document["_aws"]["CloudWatchMetrics"]:
        found += _directive_problems(document, directive)
    return found


def samples(document: dict[str, Any], name: str) -> list[tuple[float, int]]:
    """Values and counts of one metric."""
    value = document.get(name, [])
    if isinstance(value, dict):
        return list(zip(value["Values"], value["Counts"], strict=True))
    return [(one, 1) for one in (value if isinstance(value, list) else [value])]


def _directive_problems(document: dict[str, Any], directive: dict[str, Any]) -> list[str]:
    dimensions = sorted({name for names in directive["Dimensions"] for name in names})
    found = [f"dimension {name} has no text" for name in dimensions if not isinstance(document.get(name), str)]
    names = [metric["Name"] for metric in directive["Metrics"]]
    if len(names) != len(set(names)):
        found.append("a metric stands there twice")
    for name in names:
        value = document.get(name)
        if value is None or isinstance(value, str):
            found.append(f"metric {name} has no number")
            continue
        if isinstance(value, dict) and len(value["Values"]) != len(value["Counts"]):
            found.append(f"{name} has {len(value['Values'])} values and {len(value['Counts'])} counts")
            continue
        told = samples(document, name)
        if not all(abs(number) <= MAX_MAGNITUDE for number, _ in told):
            found.append(f"{name} is beyond what CloudWatch takes")
        if isinstance(value, dict) and not _is_consistent(value, told):
            found.append(f"{name}: Min, Max, Sum or Count is not what the values say")
    return found


def _is_consistent(told: dict[str, Any], pairs: list[tuple[float, int]]) -> bool:
    numbers = [number for number, _ in pairs]
    return (
        told["Min"] == min(numbers)
        and told["Max"] == max(numbers)
        and told["Count"] == sum(count for _, count in pairs)
        and math.isclose(told["Sum"], sum(number * count for number, count in pairs))
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
