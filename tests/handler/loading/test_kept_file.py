"""Files of the disk cache, read by kept.c several at a time, are what Python reads of them one by one."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from handler import compiled
from handler.forest import walker
from handler.forest.packed import pack
from handler.forest.proof import sample
from handler.loading import kept_file
from handler.loading.disk_cache import DiskCache
from tests.handler.loading.test_disk_cache import DOCUMENTS, FACTS, files, make

needs_compiler = pytest.mark.skipif(compiled.kept is None, reason="there was no C compiler, or no headers of Python's")
N_MANY = 3 * kept_file.MOST_AT_ONCE // 2
# Of bytes(range(n)) with the seed n, by python-xxhash 3.
XXH64 = {
    0: 0xEF46DB3751D8E999,
    3: 0x6479F041266E76D0,
    17: 0x10BC855D61DFA8AE,
    31: 0xBA30FB3300BD71CA,
    32: 0x35DEE9A72EF74939,
    100: 0xCE0BD8DD7405AB42,
}


@pytest.mark.skipif(compiled.letting_go is None, reason="there was no C compiler")
@pytest.mark.parametrize("n_bytes", XXH64)
def test_the_checksum_is_the_published_one(n_bytes: int) -> None:
    for library in (compiled.holding, compiled.letting_go):
        assert library is not None
        assert library.checksum(bytes(range(n_bytes)), n_bytes, n_bytes) == XXH64[n_bytes]


def ordinary(root: Path) -> list[bool]:
    """Whether kept.c says anything of each file."""
    directory = os.open(root, os.O_RDONLY)
    try:
        return [one is not None for one in kept_file.read_ordinary(directory, [path.name for path in files(root)], 1.0)]
    finally:
        os.close(directory)


def put_many(disk_cache: DiskCache) -> list[str]:
    """Of nothing, one and several documents, of all lengths."""
    uris = [f"s3://b/{number}" for number in range(N_MANY)]
    for number, uri in enumerate(uris):
        n_documents = number % 4
        documents = [bytes([number]) * (number * 37 % 5000) for _ in range(n_documents)]
        disk_cache.put(uri, f"v{number}", documents, FACTS * n_documents)
    return uris


@needs_compiler
def test_many_at_once_are_what_they_are_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk_cache = make(tmp_path)
    uris = [*put_many(disk_cache), "s3://b/unknown"]
    assert all(ordinary(tmp_path))
    together = disk_cache.get_all(uris)
    monkeypatch.setattr(kept_file, "kept", None)
    alone = [disk_cache.get(uri) for uri in uris]
    assert together[-1] is alone[-1] is None
    assert [one and (one.version, one.documents, one.facts) for one in together] == [
        one and (one.version, one.documents, one.facts) for one in alone
    ]
    assert disk_cache.get_all([]) == []


@needs_compiler
def test_what_kept_c_reads_was_used_last_and_is_as_old_as_it_was(tmp_path: Path) -> None:
    make(tmp_path).put("a", "v", DOCUMENTS, FACTS)
    (path,) = files(tmp_path)
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    directory = os.open(tmp_path, os.O_RDONLY)
    (found,) = kept_file.read_ordinary(directory, [path.name], 1_800_000_000.5)
    os.close(directory)
    assert found is not None
    assert found[2] == 1_700_000_000_123_456_789
    status = path.stat()
    assert (status.st_atime_ns, status.st_mtime_ns) == (1_800_000_000_500_000_000, 1_700_000_000_123_456_789)


@needs_compiler
def test_a_last_use_within_the_hour_is_not_written_down_again(tmp_path: Path) -> None:
    make(tmp_path).put("a", "v", DOCUMENTS, FACTS)
    (path,) = files(tmp_path)
    last_s = int(time.time()) + 10  # after its last change, else the kernel writes down that it was read
    directory = os.open(tmp_path, os.O_RDONLY)
    for now_s, then_s in ((last_s + 3599, last_s), (last_s + 3600, last_s + 3600), (last_s - 5, last_s - 5)):
        os.utime(path, ns=(last_s * 10**9, 5))
        kept_file.read_ordinary(directory, [path.name], now_s)
        assert path.stat().st_atime_ns == then_s * 10**9
    os.close(directory)


@needs_compiler
def test_forests_are_known_to_be_walkable_where_the_walker_says_so(tmp_path: Path) -> None:
    draw = random.Random(3)
    whole = pack(sample("reg:squarederror", n_levels=4))
    assert whole is not None
    disk_cache = make(tmp_path)
    seen = set()
    for number in range(300):
        documents: list[bytes] = [b"", b"no forest"]
        for _ in range(draw.randrange(12)):
            forest = bytearray(whole)
            at = 4 * draw.randrange(len(forest) // 4)
            forest[at : at + 4] = draw.choice((draw.randrange(64), draw.getrandbits(32))).to_bytes(4, "little")
            documents.append(bytes(forest[: draw.choice((len(forest), draw.randrange(len(forest))))]))
        disk_cache.put(f"{number}", "v", documents, FACTS * len(documents))
        kept = disk_cache.get(f"{number}")
        assert kept is not None
        found = [bool(kept.walkable >> at & 1) for at in range(len(documents))]
        assert found == [walker.is_sound(document) for document in documents]
        assert not kept.walkable >> len(documents)
        seen |= set(found)
    assert seen == {False, True}


@needs_compiler
def test_what_is_damaged_or_not_ours_is_left_to_python(tmp_path: Path) -> None:
    make(tmp_path).put("a", "v", DOCUMENTS, FACTS)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert ordinary(tmp_path) == [False], at
        path.write_bytes(whole[:at])
        assert ordinary(tmp_path) == [False], at
    path.write_bytes(whole + b"\0")
    assert ordinary(tmp_path) == [False]
    path.write_bytes(whole)
    assert ordinary(tmp_path) == [True]
    path.chmod(0o620)
    assert ordinary(tmp_path) == [False]
    path.unlink()
    os.mkfifo(path)
    assert ordinary(tmp_path) == [False]
    path.unlink()
    path.mkdir()
    assert ordinary(tmp_path) == [False]


@needs_compiler
def test_whatever_a_file_holds_kept_c_believes_it_only_where_python_does(tmp_path: Path) -> None:
    """With the checksum as it was: what is changed behind it is found out, whatever sizes it says."""
    draw = random.Random(7)
    make(tmp_path).put("a", "v", DOCUMENTS * 3, FACTS * 3)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(draw.randrange(3)):
            at = draw.randrange(0, 64, 8)
            data[at : at + 8] = draw.choice((draw.getrandbits(64), draw.randrange(20), 2**63)).to_bytes(8, "little")
        path.write_bytes(data)
        assert ordinary(tmp_path) == [kept_file.parsed(bytes(data), ["m", "a"], 0.0) is not None]


@needs_compiler
def test_descriptors_are_closed_whatever_is_found(tmp_path: Path) -> None:
    disk_cache = make(tmp_path)
    uris = put_many(disk_cache)
    for path in files(tmp_path)[::3]:
        path.write_bytes(path.read_bytes()[:-1])
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    disk_cache.get_all(uris)
    if before:
        assert len(os.listdir("/proc/self/fd")) == before


@needs_compiler
def test_what_kept_c_is_not_made_for_is_refused() -> None:
    assert compiled.kept is not None
    with pytest.raises(TypeError):
        compiled.kept.read(0, [b"a"], 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        compiled.kept.read(0, ("a",), 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at most"):
        compiled.kept.read(0, (b"a",) * (kept_file.MOST_AT_ONCE + 1), 0)
