"""Rows of numbers as text, one line each: text/csv.

What is read: RFC 4180 with numbers in its cells. The separator is a comma; a first line without one may say semicolon,
tab, | or spaces instead (AWS's image guesses it from the first line too). An empty cell, `nan` and `null` are missing values.
LF or CRLF, last line ended or not; blank lines at either end are dropped. A blank line between rows is refused:
were it dropped, the answers would no longer stand beside their rows. So are ragged rows, a header, infinity, and
numbers no float32 can hold or of more than 512 characters.

Rule: five ways, each only for what the one before it declined, all agreeing on every body they read.
    one line    a single JSON parse of "[...]": numbers in the spelling everyone writes
    all lines   numbers.c, where it was compiled, over all of a long body
    a block     numbers.c over many lines at once
    a block     a JSON parse of the same, in pieces, so that memory stays a small multiple of the body
    a cell      Python, for quotes and rare spellings, and to say which cell is wrong
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from struct import error as NotPackable  # noqa: N812 - says what it means here
from typing import Any, NoReturn

import numpy as np
import orjson

from handler.compiled import holding, letting_go
from handler.errors import PayloadInvalid
from handler.payload.numbers import MAX_CELL_BYTES, has_long_cell, packer, read_number
from handler.payload.rows import MAX_COLUMNS_READ, Floats, Rows, refuse_too_wide
from handler.payload.steps import STEP_BYTES, count, find, trimmed

# Everything a line of ordinary numbers is made of. What bytes.translate leaves of a line tells the ways apart.
_ORDINARY = b"0123456789+-.eE, "

# What numbers.c reads in 20 us; taking the interpreter lock again costs as much when other threads want it.
BRIEF_BYTES = 16 * 1024

# Text turned to numbers in one go, by Python in 1 ms. Its objects for the cells of one piece cost ~16 times its text.
PIECE_BYTES = 64 * 1024

_MISSING = re.compile(rb"nan|null", re.IGNORECASE)
_LETTERS_OF_MISSING = b"nulaNULA"

_BOM = b"\xef\xbb\xbf"


def read_csv(body: bytes, n_features: int, may_have_label: bool = False) -> Rows:
    """The rows of a CSV body.

    n_features      the model's; used only to refuse absurd widths early and to tell a label column
    may_have_label  `label_size=1`: a first column is dropped from rows one wider than the model
    raises          PayloadInvalid naming line and column; FeatureMismatch for absurd widths
    """
    rows = None
    if len(body) <= PIECE_BYTES:
        text = body.rstrip(b"\r\n")
        rows = _read_line(text) or _read_ordinary(text, n_features)
    rows = rows or _read_lines(body, n_features)
    if may_have_label and rows.values.shape[1] == n_features + 1:
        return Rows(np.ascontiguousarray(rows.values[:, 1:]))
    return rows


def _read_line(line: bytes) -> Rows | None:
    """One row, when the body is one line of commas between ordinary numbers or nothing; None otherwise."""
    if not line or (len(line) > MAX_CELL_BYTES and has_long_cell(line, b",")):
        return None
    if _has_whole_minus_zero(line):
        return None
    # Measured: 20 numbers to an array in 1.1 us; by split(b",") 1.8, np.fromstring 2.2, np.loadtxt 4.4.
    letters = line.translate(None, _ORDINARY)
    try:
        if not letters:
            return _row(orjson.loads(b"[" + line + b"]"))
    except _NOT_NUMBERS:
        pass  # there may be gaps
    if letters.strip(_LETTERS_OF_MISSING):
        return None
    try:
        cells = orjson.loads(b"[" + _gaps_to_null(line, has_words=bool(letters)) + b"]")
        return _row([math.nan if cell is None else cell for cell in cells])
    except _NOT_NUMBERS:
        return None


# No JSON; a cell that is no number; a number beyond float32; no cells.
_NOT_NUMBERS = (ValueError, NotPackable, OverflowError)


def _row(cells: list[Any]) -> Rows:
    # The packer, unlike numpy, refuses numbers beyond float32 and everything that is not a number.
    return Rows(np.ndarray((1, len(cells)), np.float32, packer(len(cells))(*cells)))


def _read_ordinary(text: bytes, n_features: int) -> Rows | None:
    """Lines that numbers.c reads as they are, each as wide as the model; None otherwise."""
    values = _read_block_in_c(text, n_features) if n_features > 0 else None
    return None if values is None else Rows(values)


def _read_lines(body: bytes, n_features: int) -> Rows:
    start, end = trimmed(body, b" \r\n", len(_BOM) if body.startswith(_BOM) else 0)
    if start == end:
        raise PayloadInvalid("", "the body holds no rows")
    first_line = count(body, b"\n", 0, start) + 1
    head_end = find(body, b"\n", start, end)
    separator = _separator(body[start : min(head_end, start + STEP_BYTES)].rstrip(b" \r"))
    _refuse_long_line(body, start, head_end, separator, first_line, n_features)
    head = body[start:head_end].rstrip(b" \r")
    if separator == b" ":
        head, separator, are_spaced = _spaces_to_commas(head, first_line), b",", True
    else:
        are_spaced = False
    refuse_too_wide(head.count(separator) + 1, n_features)
    sheet = _Sheet(separator, _width(head, separator), first_line, are_spaced)
    values = sheet.read_at_once(body, start, end)
    if values is not None:
        return Rows(values)
    blocks = [sheet.read(piece, line) for line, piece in sheet.pieces(body, start, end)]
    return Rows(blocks[0] if len(blocks) == 1 else np.concatenate(blocks))


def _refuse_long_line(body: bytes, start: int, end: int, separator: bytes, line: int, n_features: int) -> None:
    """A line of more than a piece is looked at here, before anything is done to all of it at once."""
    if end - start <= PIECE_BYTES:
        return
    if separator != b" ":  # of which many may be one
        refuse_too_wide(count(body, separator, start, end) + 1, n_features)
    elif end - start > max(MAX_COLUMNS_READ, n_features + 1) * MAX_CELL_BYTES:
        raise PayloadInvalid(f"line {line}", f"{end - start} bytes; at most {MAX_CELL_BYTES} are read of a cell")
    if has_long_cell(body, separator, start, end):
        raise PayloadInvalid(f"line {line}", f"a cell of more than {MAX_CELL_BYTES} characters")


def _separator(head: bytes) -> bytes:
    for separator in (b",", b";", b"\t", b"|", b" "):
        if separator in head.strip(b" "):
            return separator
    return b","


def _spaces_to_commas(text: bytes, line: int) -> bytes:
    """Runs of spaces are one separator: nobody can see an empty cell between them. `line` is the text's first."""
    if b"," in text:
        at = line + text.count(b"\n", 0, text.index(b","))
        raise PayloadInvalid(f"line {at}", "a comma, where the first line separates its cells by spaces")
    while b"  " in text:  # each pass halves the longest run; " +" as a regular expression took 60 times the body
        text = text.replace(b"  ", b" ")
    return text.strip(b" ").replace(b" \n", b"\n").replace(b"\n ", b"\n").replace(b" ", b",")


def _width(head: bytes, separator: bytes) -> int:
    if b'"' not in head:
        return head.count(separator) + 1
    try:
        return len(next(csv.reader([head.decode()], delimiter=separator.decode(), skipinitialspace=True, strict=True)))
    except (csv.Error, UnicodeDecodeError):
        return head.count(separator) + 1  # reading the cells will say what is wrong, and where


@dataclass(frozen=True, slots=True)
class _Sheet:
    """How the lines of one body are cut into cells.

    separator    one byte
    n_columns    cells in the first line, and so in every line
    first_line   its number, from one
    are_spaced   they are separated by spaces in the body, and by `separator` in what is read
    """

    separator: bytes
    n_columns: int
    first_line: int
    are_spaced: bool

    def read_at_once(self, body: bytes, start: int, end: int) -> Floats | None:
        """All rows of a long body, by numbers.c without the interpreter lock; None when anything is out of the ordinary, or
        the last line is long."""
        if letting_go is None or self.separator != b"," or self.are_spaced or end - start <= PIECE_BYTES:
            return None
        is_ended = body[end : end + 1] == b"\n"  # which numbers.c needs behind the last line
        cut = end if is_ended else body.rfind(b"\n", end - PIECE_BYTES, end)
        if cut < 0:
            return None
        n_lines = count(body, b"\n", start, cut) + 1
        n_cells = n_lines * self.n_columns
        if n_cells > cut - start + 1:  # each has a byte at least, itself or behind it
            return None
        values = np.empty((n_lines if is_ended else n_lines + 1, self.n_columns), np.float32)
        address = values.__array_interface__["data"][0]
        if letting_go.numbers_between(body, start, cut, self.n_columns, address, n_cells) != n_lines:
            return None
        if not is_ended:
            last = _read_block(body[cut + 1 : end], self.n_columns)
            if last is None:
                return None
            values[n_lines:] = last
        return values

    def pieces(self, body: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Whole lines, about PIECE_BYTES at a time, each piece with the number of its first line."""
        line = self.first_line
        while start < end:
            cut = find(body, b"\n", min(start + PIECE_BYTES, end), end)
            if cut - start > 2 * PIECE_BYTES:
                self._refuse_long_line(body, start, cut, line)
            piece = body[start:cut]
            n_lines = piece.count(b"\n") + 1
            if b"\r" in piece:
                piece = piece.replace(b"\r\n", b"\n")
                piece = piece.removesuffix(b"\r") if cut < end else piece
            yield line, _spaces_to_commas(piece, line) if self.are_spaced else piece
            line += n_lines
            start = cut + 1

    def _refuse_long_line(self, body: bytes, start: int, end: int, line: int) -> None:
        """The last line of a piece, where that is what makes it long."""
        last = body.rfind(b"\n", start, start + PIECE_BYTES) + 1 or start
        line += body.count(b"\n", start, last)
        if not self.are_spaced:
            n_cells = count(body, self.separator, last, end) + 1
            if n_cells > self.n_columns:  # a separator in quotes makes a cell that is no number
                self._refuse_width(n_cells, line)
        _refuse_long_line(body, last, end, b" " if self.are_spaced else self.separator, line, self.n_columns)

    def read(self, piece: bytes, line: int) -> Floats:
        """The rows of some whole lines; `line` is the number of the first of them."""
        plain = piece
        if self.separator != b",":
            plain = b"" if b"," in piece else piece.replace(self.separator, b",")
        block = _read_block(plain, self.n_columns)
        return self._read_by_cell(piece, line) if block is None else block

    def _read_by_cell(self, piece: bytes, line: int) -> Floats:
        lines = _text_lines(piece, line)
        separator = self.separator.decode()
        for at, text in enumerate(lines, line):
            # Each cell becomes an object, of 60 bytes, so a line is not cut that has thousands too many.
            n_cells = text.count(separator) + 1
            if n_cells > max(MAX_COLUMNS_READ, self.n_columns) and (n_cells > PIECE_BYTES or '"' not in text):
                self._refuse_width(n_cells, at)
        rows: list[list[str]] = []
        reader = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
        try:
            for cells in reader:
                at = line + reader.line_num - 1
                text = lines[reader.line_num - 1]
                if separator not in text and not text.strip():
                    raise PayloadInvalid(f"line {at}", "blank, between rows")
                if len(cells) != self.n_columns:
                    self._refuse_width(len(cells), at)
                rows.append(cells)
        except csv.Error as error:
            raise PayloadInvalid(f"line {line + max(reader.line_num, 1) - 1}", f"not CSV: {error}") from error
        # Without their quotes most cells are ordinary. One that holds a comma or a line end makes the block
        # decline: there are as many separators as cells only when every separator stands between two of them.
        block = _read_block("\n".join(map(",".join, rows)).encode(), self.n_columns)
        if block is not None:
            return block
        numbers = [
            [self._number(cell, line + index, column) for column, cell in enumerate(cells, 1)]
            for index, cells in enumerate(rows)
        ]
        return np.array(numbers, dtype=np.float32)

    def _refuse_width(self, n_cells: int, line: int) -> NoReturn:
        raise PayloadInvalid(f"line {line}", f"{_count(n_cells)}, where line {self.first_line} has {self.n_columns}")

    def _number(self, cell: str, line: int, column: int) -> float:
        text = cell.strip(" \t")
        if not text:
            return math.nan
        is_head = line == self.first_line and column == 1 and text[0].isalpha()
        hint = "; send the rows without a header line" if is_head else ""
        return read_number(text, f"line {line}, column {column}", hint=hint)


def _count(n_cells: int) -> str:
    return "1 cell" if n_cells == 1 else f"{n_cells} cells"


def _text_lines(piece: bytes, line: int) -> list[str]:
    try:
        text = piece.decode()
    except UnicodeDecodeError as error:
        at = line + piece.count(b"\n", 0, error.start)
        raise PayloadInvalid(f"line {at}", f"byte 0x{piece[error.start]:02x} is not UTF-8 text") from error
    for mark, name in (("\0", "a NUL byte"), ("\r", "a carriage return without a line feed")):
        if mark in text:
            raise PayloadInvalid(f"line {line + text.count(chr(10), 0, text.index(mark))}", name)
    return text.split("\n")


def _read_block(text: bytes, n_columns: int) -> Floats | None:
    """Lines of comma-separated numbers, all at once; None when anything is out of the ordinary."""
    values = _read_block_in_c(text, n_columns)
    return _read_block_in_python(text, n_columns) if values is None else values


def _read_block_in_c(text: bytes, n_columns: int) -> Floats | None:
    if holding is None or letting_go is None:
        return None
    max_cells = text.count(b",") + text.count(b"\n") + 1
    values = np.empty((max_cells + n_columns - 1) // n_columns * n_columns, np.float32)
    read = holding if len(text) <= BRIEF_BYTES else letting_go
    n_rows = read.numbers_read(text + b"\n", len(text), n_columns, values.__array_interface__["data"][0], max_cells)
    return None if n_rows < 0 else values.reshape(-1, n_columns)


def _read_block_in_python(text: bytes, n_columns: int) -> Floats | None:
    """The same, and more spellings: spaces around numbers."""
    letters = text.translate(None, _ORDINARY + b"\t\n")
    if letters.strip(_LETTERS_OF_MISSING) or not text:
        return None
    marks = np.frombuffer(text + b"\n", np.uint8)
    marks = marks[(marks == ord(",")) | (marks == ord("\n"))]
    if marks.size % n_columns:
        return None
    marks = marks.reshape(-1, n_columns)
    if not ((marks[:, -1] == ord("\n")).all() and (marks[:, :-1] == ord(",")).all()):
        return None
    if n_columns == 1 and b"\n\n" in b"\n" + text + b"\n":
        return None  # a blank line, which would look like a missing value
    cells = text.replace(b"\n", b",")
    if has_long_cell(cells, b","):
        return None
    values = _read_numbers(_gaps_to_null(cells, has_words=bool(letters)))
    return None if values is None or np.isinf(values).any() else values.reshape(-1, n_columns)


def _has_whole_minus_zero(cells: bytes) -> bool:
    """Whether one may be `-0`, which to JSON is a whole number without a sign, and to float() is not."""
    return b"-0" in cells and (cells.endswith(b"-0") or any(end in cells for end in (b"-0,", b"-0 ", b"-0\t")))


def _gaps_to_null(cells: bytes, has_words: bool) -> bytes:
    """Cells between commas with JSON's word for those that are empty, nan or null."""
    if has_words:
        cells = _MISSING.sub(b"null", cells)
    cells = b"," + cells + b","
    if b",," in cells:
        # Twice, because neighbours share a comma and replace() does not look back.
        cells = cells.replace(b",,", b",null,").replace(b",,", b",null,")
    return cells[1:-1]


def _read_numbers(cells: bytes) -> Floats | None:
    """Comma-separated JSON numbers and nulls, or any spelling float() knows; None when one is neither."""
    # Measured, 10,000 rows of 20: orjson 9 ms; np.loadtxt 13; np.fromstring(sep=",") 16; np.array of the split
    # bytes 19, the same with astype 34.
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is found by that
        try:
            if not _has_whole_minus_zero(cells):
                return np.array(orjson.loads(b"[" + cells + b"]"), dtype=np.float32)
        except orjson.JSONDecodeError:
            pass
        try:
            return np.array(cells.replace(b"null", b"nan").split(b","), dtype=np.float32)
        except ValueError:
            return None
