"""`mme convert`: an archive of any release, written anew as the current one.

Rule: what is written has been opened and compared before it gets its name, and nothing is replaced unasked.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from container.operate.artifacts import archive
from container.operate.artifacts.archive import Archive, ArchiveUnusable
from container.operate.exits import Exit
from container.operate.printing import complain, say, size_text

if TYPE_CHECKING:
    from container.examine.quarantine import Examined


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "convert",
        help="write an archive of any release anew, as UBJ of the current one",
        description="Write an archive of any release anew, as UBJ of the current one, with every correction made.",
        epilog=archive.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    archive.add_arguments(parser)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.tar.gz", help="the archive to write")
    parser.add_argument("--force", action="store_true", help="replace OUT.tar.gz when it is there")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    out: Path = chosen.out
    if not chosen.force and out.exists():
        print(f"mme convert: {out} is there; --force replaces it", file=sys.stderr)
        return Exit.USAGE
    try:
        access = archive.read_settings(chosen)
        found = archive.fetch(chosen, access)
        with archive.Bench(access.limits) as bench:
            examined = bench.examine(found)
            written = Archive(archive.pack_examined(examined), str(out))
            again = bench.examine(written)
    except ArchiveUnusable as error:
        if chosen.json:
            print(json.dumps({"archive": chosen.archive, "error": error.name, "message": str(error)}))
        return complain("convert", error)
    if not _are_alike(examined, again):
        print(f"mme convert: what came of {found.uri} reads back differently; nothing was written", file=sys.stderr)
        return Exit.FAILED
    try:
        archive.put(written.data, out, may_replace=chosen.force)
    except OSError as error:
        print(f"mme convert: cannot write {out}: {error.strerror}", file=sys.stderr)
        return Exit.FAILED
    corrections = list(dict.fromkeys(text for origin in examined.origins for text in origin.stated.corrections))
    if chosen.json:
        facts = {"archive": found.uri, "out": str(out), "n_bytes": len(written.data), "sha256": written.sha256}
        print(json.dumps({**facts, "corrections": corrections}))
        return Exit.OK
    say("read", found.uri, size_text(len(found.data)), f"sha256 {found.sha256[:8]}")
    for correction in corrections:
        say("corrected", correction)
    say("wrote", str(out), size_text(len(written.data)), f"sha256 {written.sha256[:8]}")
    say("next", f"mme inspect {shlex.quote(str(out))}")
    return Exit.OK


def _are_alike(before: Examined, after: Examined) -> bool:
    """Whether a second reading finds the same boosters and has nothing left to correct."""
    wanted = tuple(replace(facts, corrections=(), resident_bytes=0) for facts in before.facts)
    found = tuple(replace(facts, resident_bytes=0) for facts in after.facts)
    return found == wanted and before.documents == after.documents
