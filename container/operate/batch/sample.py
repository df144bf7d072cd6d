"""What a full run would meet, told from the first rows of the first file; nothing is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from container.operate.batch.asked import Asked
from container.operate.batch.layout import without_model
from container.operate.batch.opened import FromRelease, Models
from container.operate.batch.scoring import groups_of, layout_of_first, score_groups
from container.operate.batch.writing import json_texts
from container.operate.tables.files import FileUnusable, find_parts, on_disk
from container.operate.tables.segments import segments_of
from container.operate.tables.spill import scratch_folder
from container.operate.tables.windows import Unread, Window, windows
from container.operate.troubles import Misused
from container.settings import Settings

N_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Seen:
    facts: dict[str, Any]
    first_rows: tuple[str, ...]


def look(
    settings: Settings, asked: Asked, data: Sequence[str], n_rows: int, release: FromRelease | None = None
) -> Seen:
    """Raises CommandFailed."""
    endpoint_url = settings.artifacts.endpoint_url
    files = find_parts(data, asked.data_format, endpoint_url)
    file = files[0]
    with ExitStack() as closing:
        scratch = closing.enter_context(scratch_folder(settings.front.scratch))
        models = Models(settings, closing, scratch, release)
        try:
            path = closing.enter_context(on_disk(file, scratch, endpoint_url))
            window = _first(windows(path, file, asked), n_rows)
            layout = layout_of_first(window, file, asked, models.models) or without_model(asked.outputs)
            groups = groups_of(segments_of(window, file, asked), models.models)
            scored = score_groups(window, groups, asked, layout, models.models.check)
        except FileUnusable as error:
            raise Misused(f"{file.name}: {error.why}") from error
    errors: Counter[str] = Counter()
    for numbers, target, why in scored.faults.runs:
        errors[f"{target or 'no segment'}: {why}"] += len(numbers)
    if len(groups.left):
        errors["no room in --memory for the models of all these rows together, which a run needs none for"] = len(
            groups.left
        )
    answers = [json_texts(column) for column in scored.answers]
    shown = [
        "  ".join(f"{column.name} {answer[row]}" for column, answer in zip(layout, answers, strict=True))
        for row in range(min(N_SHOWN, scored.n_rows))
    ]
    facts = {
        "file": file.name,
        "files": len(files),
        "rows": scored.n_rows,
        "columns": {field.name: str(field.type) for field in window.table.schema},
        "segments": len(scored.targets | scored.missing),
        "missing": sorted(scored.missing),
        "errors": dict(errors.most_common()),
        "answers": [column.name for column in layout],
    }
    return Seen(facts, tuple(shown))


def _first(found: Iterator[Window | Unread], n_rows: int) -> Window:
    window = next((one for one in found if isinstance(one, Window)), None)
    if window is None:
        raise FileUnusable("no row of it can be read")
    return replace(window, table=window.table.slice(0, n_rows), numbers=window.numbers[:n_rows])
