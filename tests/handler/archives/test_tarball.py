"""Inflating gzip streams of any size, in any number of members."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.archives import tarball
from handler.archives.tarball import STEP, NotReadable, inflate

MOST = 1 << 30


@given(st.lists(st.integers(1, 3 * STEP + 7), min_size=1, max_size=4), st.integers(0, 9), st.integers(0, 1024))
@settings(max_examples=30, deadline=None)
def test_members_of_any_length_come_out_whole_wherever_the_slices_fall(
    sizes: list[int], level: int, padding: int
) -> None:
    contents = [random.Random(size).randbytes(size) for size in sizes]
    blob = b"".join(gzip.compress(content, level) for content in contents) + bytes(padding)
    assert inflate(blob, MOST, 1000) == b"".join(contents)


@pytest.mark.parametrize("cut", [1, 8, 9, STEP, 2 * STEP])
def test_a_stream_cut_anywhere_is_truncated(cut: int) -> None:
    blob = gzip.compress(random.Random(0).randbytes(3 * STEP), 1)
    with pytest.raises(NotReadable, match="truncated"):
        inflate(blob[:-cut], MOST, 1000)


def test_no_byte_is_handed_to_the_stream_much_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not looked at it gives back as a copy: a booster of 225 MB took 45 s when all was given each time."""
    n_given = 0

    class Counting:
        def __init__(self, wbits: int) -> None:
            self._stream = zlib.decompressobj(wbits=wbits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal n_given
            n_given += len(data)
            return self._stream.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

    class Zlib:
        error = zlib.error
        decompressobj = Counting

    blob = gzip.compress(random.Random(0).randbytes(16 * STEP) + bytes(16 * STEP), 1)
    monkeypatch.setattr(tarball, "isal_zlib", Zlib)
    assert len(inflate(blob, MOST, 1000)) == 32 * STEP
    assert n_given <= 3 * len(blob)


def test_damaged_streams_are_refused_in_the_words_of_zlib_or_inflated_to_the_same_bytes() -> None:
    """ISA-L inflates; zlib is the judge of what it finds fault with, and here of what it does not."""

    def outcome(blob: bytes) -> bytes | str:
        try:
            return bytes(inflate(blob, 1 << 16, 1000))
        except (NotReadable, tarball.OverLimit) as error:
            return str(error)

    draw = random.Random(3)
    text = bytes(draw.choice(b"abcdefgh\0\0\0") for _ in range(4000))
    stock = [gzip.compress(text, level) for level in (0, 1, 6, 9)] + [gzip.compress(bytes(100_000))]
    n_inflated = 0
    for _ in range(4000):
        blob = bytearray(draw.choice(stock) + draw.choice([b"", bytes(512), stock[1], b"x"]))
        for _ in range(draw.randint(0, 2)):
            at = draw.choice([draw.randrange(12), draw.randrange(len(blob)), len(blob) - 1 - draw.randrange(8)])
            blob[at] ^= 1 << draw.randrange(8)
        damaged = bytes(blob[: draw.choice([None, None, None, draw.randrange(len(blob))])])
        found = outcome(damaged)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tarball, "isal_zlib", zlib)
            assert outcome(damaged) == found
        n_inflated += isinstance(found, bytes)
    assert 500 < n_inflated < 3500


def test_a_header_is_summed_up_as_its_bytes_are() -> None:
    draw = random.Random(4)
    blocks = [bytes([byte]) * tarball.BLOCK for byte in (0, 1, 254, 255)]
    blocks += [draw.randbytes(tarball.BLOCK) for _ in range(1000)]
    for block in blocks:
        head = bytearray(block)
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        assert tarball._checksum_fits(bytes(head))
        head[draw.randrange(148)] ^= 1 << draw.randrange(8)
        assert not tarball._checksum_fits(bytes(head))
