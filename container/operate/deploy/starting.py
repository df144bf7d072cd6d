"""`mme deploy init`: a commented file for each kind, written from the rows that the file is read by.

Rule: what it writes can be read and planned as it is, its bill within its month_usd; only names and addresses are examples.
"""

from __future__ import annotations

from dataclasses import MISSING

from container.operate.deploy.file import TABLES, Wanted, rows

_COLUMN = 44


def file_of(kind: str) -> str:
    """The text of a file of that kind. Keys with a default are there as comments."""
    first = "# mme deploy plan FILE says what it would do and cost; mme deploy apply FILE does it."
    lines = [first, _line("kind", _shown(kind), "")]
    for name, (one, row) in rows(Wanted).items():
        if name in ("kind", "environment", "tags") or kind not in row.kinds:
            continue
        has_default = one.default is not MISSING
        lines.append(_line(name, _shown(one.default) if has_default else row.example, row.what, is_comment=has_default))
    for name, (table, kinds) in TABLES.items():
        if kind not in kinds:
            continue
        lines.append(f"\n[{name}]" + (f"    # {title.strip()}" if (title := _title(table)) else ""))
        for key, (one, row) in rows(table).items():
            if kind in row.kinds:
                has_default = one.default is not MISSING
                shown = _shown(one.default) if has_default else row.example
                if key == "memory":
                    shown = '"auto"'
                lines.append(_line(key, shown, row.what, is_comment=has_default))
    lines.append(f"\n[environment]    # {rows(Wanted)['environment'][1].what}")
    lines.append('# MME_LOG_LEVEL = "info"')
    lines.append(f"\n[tags]    # {rows(Wanted)['tags'][1].what}")
    return "\n".join(lines) + "\n"


def _title(table: type) -> str:
    return (table.__doc__ or "").partition(": ")[2].rstrip(".")


def _line(name: str, value: str, what: str, *, is_comment: bool = False) -> str:
    text = f"{'# ' if is_comment else ''}{name} = {value}"
    return f"{text:<{_COLUMN}}  # {what}" if what else text


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
