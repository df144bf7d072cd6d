"""Which segments a command is about: `--only 'us/*'`, `--except us/Houston_TX.tar.gz`."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from handler.patterns import Patterns


@dataclass(frozen=True, slots=True)
class Choice:
    """only: None is all."""

    only: Patterns | None = None
    but: Patterns | None = None

    @property
    def is_all(self) -> bool:
        return self.only is None and self.but is None

    def has(self, key: str) -> bool:
        return (self.only is None or self.only.match(key)) and (self.but is None or not self.but.match(key))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", metavar="PATTERNS", help="these segments, such as 'us/*,eu/Hull.tar.gz'; else all")
    parser.add_argument("--except", dest="but", metavar="PATTERNS", help="and not these")


def of(chosen: argparse.Namespace) -> Choice:
    return Choice(
        None if chosen.only is None else Patterns.parse(chosen.only),
        None if chosen.but is None else Patterns.parse(chosen.but),
    )
