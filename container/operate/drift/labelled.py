"""Captured calls and what became true of them, joined into rows that `mme train` reads.

Labels are lines as SageMaker's Model Monitor wants them: the eventId is the InferenceId that the caller gave.

    {"groundTruthData": {"data": "1", "encoding": "CSV"}, "eventMetadata": {"eventId": "INFERENCE_ID"}, "eventVersion": "0"}

Rule: a row is written when its label is known and fits it, and never otherwise; what is left out is counted, by why.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from container.capture import layout
from container.capture.lines import Captured, NoCapture, parse, time_text
from container.operate.drift.captured import FIRST_ERROR_STATUS, rows_of
from container.operate.release.manifest import Features
from handler.errors import RequestError
from handler.payload.rows import Floats
from handler.stores import Store

SEGMENT, AT, LABEL = "segment", "captured_at", "label"
ENDING = ".tar.gz"  # mme train puts it there again


@dataclass(slots=True)
class Joined:
    """How many rows were written, and how many calls were not, by why."""

    n_rows: int = 0
    n_calls: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    def leave_out(self, why: str) -> None:
        self.left_out[why] = self.left_out.get(why, 0) + 1


def read_labels(store: Store) -> tuple[dict[str, tuple[float, ...]], int]:
    """By InferenceId, the last line of each; and how many lines were none. Raises ArtifactError."""
    found: dict[str, tuple[float, ...]] = {}
    n_broken = 0
    for one in store.list():
        if not one.target.endswith(layout.SUFFIX):
            continue
        for text in store.fetch(one.target).data.splitlines():
            try:
                value = json.loads(text)
                data = str(value["groundTruthData"]["data"])
                labels = tuple(float(cell) for line in data.split() for cell in line.split(",") if cell)
                found[str(value["eventMetadata"]["eventId"])] = labels
            except (ValueError, KeyError, TypeError, RecursionError):
                n_broken += 1
    return found, n_broken


class Joiner:
    """features: by segment, of what is live. Writes CSV: the segment, each feature, when it came, the label."""

    def __init__(self, features: Mapping[str, Features], labels: Mapping[str, tuple[float, ...]], out: TextIO) -> None:
        self._features = features
        self._labels = labels
        self._names = {key: one.names or tuple(f"f{at}" for at in range(one.n)) for key, one in features.items()}
        columns = list(dict.fromkeys(name for names in self._names.values() for name in names))
        self._place = {name: at + 1 for at, name in enumerate(columns)}
        self._writer = csv.writer(out, lineterminator="\n")
        self._writer.writerow([SEGMENT, *columns, AT, LABEL])
        self._seen: set[str] = set()
        self.joined = Joined()

    def join(self, store: Store, on_file: Callable[[str], None] = lambda _: None) -> Joined:
        """Raises ArtifactError."""
        for one in layout.files(store):
            on_file(one.target)
            for text in store.fetch(one.target).data.splitlines():
                self._take(text)
        return self.joined

    def _take(self, text: bytes) -> None:
        try:
            call = parse(text)
        except NoCapture:
            self.joined.leave_out("no captured call")
            return
        why = self._objection(call)
        if why:
            self.joined.leave_out(why)
            return
        try:
            rows = rows_of(call, self._features[call.target])
        except RequestError:
            self.joined.leave_out("rows that cannot be read, or do not fit what is live")
            return
        labels = self._labels[call.inference_id]
        if len(labels) != len(rows):
            self.joined.leave_out("not as many labels as rows")
            return
        self._seen.add(call.inference_id)
        self.joined.n_calls += 1
        for cells in self._lines(call, rows, labels):
            self._writer.writerow(cells)
            self.joined.n_rows += 1

    def _objection(self, call: Captured) -> str:
        if call.status >= FIRST_ERROR_STATUS:
            return "failed"
        if call.target not in self._features:
            return "of a model that is not live"
        if call.inference_id not in self._labels:
            return "without a label"
        return "asked twice under one InferenceId" if call.inference_id in self._seen else ""

    def _lines(self, call: Captured, rows: Floats, labels: tuple[float, ...]) -> Iterator[list[str]]:
        places = [self._place[name] for name in self._names[call.target]]
        at = time_text(call.at.timestamp())
        for row, label in zip(rows.tolist(), labels, strict=True):
            cells = [""] * (len(self._place) + 3)
            cells[0] = call.target.removesuffix(ENDING)
            for place, value in zip(places, row, strict=True):
                cells[place] = "" if math.isnan(value) else repr(value)
            cells[-2:] = [at, repr(label)]
            yield cells
