"""What is kept on disk is found again as it was, or not at all."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handler.errors import ArtifactMissing
from handler.forest import walker
from handler.forest.booster_pool import BoosterPool
from handler.forest.packed import pack
from handler.importer import import_booster
from handler.loading import kept_file
from handler.loading.disk_cache import DiskCache, DiskCacheUnusable
from handler.loading.loader import Examined, ModelLoader
from handler.predictor import Facts, HandlePool
from tests.rig import boosters
from tests.rig.damage import retyped
from tests.rig.fakes import FakeClock, MemoryStore

FACTS = (Facts("reg:squarederror", "gbtree", 2, 1, 1000, ("ä", "b"), ("q", "c"), ("base_score",)),)
DOCUMENTS = (b"a document" * 10,)
SPARING = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_700_000_000.0)


def make(root: Path, clock: FakeClock | None = None, max_bytes: int = 1 << 20, maker: str = "m") -> DiskCache:
    return DiskCache(root, max_bytes=max_bytes, maker=maker, clock_s=clock or FakeClock())


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.name != "lock")


def has(disk_cache: DiskCache, uri: str) -> bool:
    return disk_cache.get(uri) is not None


def test_what_was_put_is_there_after_a_restart(tmp_path: Path) -> None:
    disk_cache = make(tmp_path / "a" / "b")
    disk_cache.put("s3://b/x", '"v1"', DOCUMENTS * 2, FACTS * 2)
    disk_cache.close()
    kept = make(tmp_path / "a" / "b").get("s3://b/x")
    assert kept is not None
    assert (kept.version, kept.documents, kept.facts) == ('"v1"', DOCUMENTS * 2, FACTS * 2)


def test_its_age_is_since_the_store_last_confirmed_it(tmp_path: Path, clock: FakeClock) -> None:
    clock.now = files_time(tmp_path)
    disk_cache = make(tmp_path, clock)
    disk_cache.put("x", "v1", DOCUMENTS, FACTS)
    clock.advance(70)
    assert age(disk_cache, "x") == pytest.approx(70, abs=5)
    disk_cache.confirm("x", "another")
    assert age(disk_cache, "x") == pytest.approx(70, abs=5)
    disk_cache.confirm("x", "v1")
    clock.advance(3)
    assert age(disk_cache, "x") == pytest.approx(3, abs=1e-3)


def files_time(folder: Path) -> float:
    """What the file system thinks is now."""
    return folder.stat().st_mtime


def age(disk_cache: DiskCache, uri: str) -> float:
    kept = disk_cache.get(uri)
    assert kept is not None
    return kept.checked_s_ago


def test_the_least_recently_used_leave_first_also_after_a_restart(tmp_path: Path, clock: FakeClock) -> None:
    disk_cache = make(tmp_path, clock)
    for uri in "abc":
        disk_cache.put(uri, "v", DOCUMENTS, FACTS)
        clock.advance(1)
        assert has(disk_cache, uri)
    size = disk_cache.n_bytes // 3
    clock.advance(1)
    assert has(disk_cache, "a")
    disk_cache.close()
    disk_cache = make(tmp_path, clock, max_bytes=2 * size + 10)
    assert [has(disk_cache, uri) for uri in "bca"] == [False, True, True]
    disk_cache.put("d", "v", DOCUMENTS, FACTS)
    assert [has(disk_cache, uri) for uri in "cad"] == [False, True, True]
    assert disk_cache.n_bytes <= 2 * size + 10
    assert disk_cache.n_bytes == sum(path.stat().st_size for path in files(tmp_path))


def test_a_newer_version_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    disk_cache = make(tmp_path)
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    disk_cache.put("a", "v2", (b"new",), FACTS)
    kept = disk_cache.get("a")
    assert kept is not None
    assert (kept.version, kept.documents) == ("v2", (b"new",))
    assert (len(disk_cache), len(files(tmp_path))) == (1, 1)
    disk_cache.forget("a")
    assert (len(disk_cache), disk_cache.n_bytes, files(tmp_path)) == (0, 0, [])


def test_another_maker_finds_nothing(tmp_path: Path) -> None:
    disk_cache = make(tmp_path)
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    disk_cache.close()
    assert not has(make(tmp_path, maker="a newer importer"), "a")


def test_what_is_larger_than_the_shelf_is_not_kept_and_nobody_leaves_for_it(tmp_path: Path) -> None:
    disk_cache = make(tmp_path, max_bytes=1000)
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    disk_cache.put("b", "v1", (b"x" * 2000,), FACTS)
    assert [has(disk_cache, uri) for uri in "ab"] == [True, False]


@settings(deadline=None)  # it writes files
@given(st.data())
def test_a_file_cut_short_flipped_or_grown_is_never_believed(data: st.DataObject) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        disk_cache = make(root)
        disk_cache.put("a", "v1", DOCUMENTS, FACTS)
        (path,) = files(root)
        content = bytearray(path.read_bytes())
        match data.draw(st.sampled_from(["cut", "flip", "grow"])):
            case "cut":
                content = content[: data.draw(st.integers(0, len(content) - 1))]
            case "flip":
                content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
            case "grow":
                content += data.draw(st.binary(min_size=1, max_size=10))
        path.write_bytes(content)
        assert not has(disk_cache, "a")
        assert files(root) == []
        disk_cache.put("a", "v1", DOCUMENTS, FACTS)
        assert has(disk_cache, "a")
        disk_cache.close()
    finally:
        shutil.rmtree(root)


def test_a_sound_file_under_anothers_name_is_not_believed(tmp_path: Path) -> None:
    disk_cache = make(tmp_path)
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    (of_a,) = files(tmp_path)
    disk_cache.put("b", "v1", (b"b",), FACTS)
    (of_b,) = set(files(tmp_path)) - {of_a}
    shutil.copy(of_a, of_b)
    assert not has(disk_cache, "b")


def test_a_file_that_vanished_is_a_miss(tmp_path: Path) -> None:
    disk_cache = make(tmp_path)
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    files(tmp_path)[0].unlink()
    assert not has(disk_cache, "a")
    assert (len(disk_cache), disk_cache.n_bytes) == (0, 0)


def test_when_the_directory_is_taken_away_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    disk_cache = make(tmp_path / "s")
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    shutil.rmtree(tmp_path / "s")
    assert not has(disk_cache, "a")
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    disk_cache.confirm("a", "v1")
    disk_cache.forget("a")
    assert not has(disk_cache, "a")


def test_a_disk_that_is_full_leaves_nothing_half_written() -> None:
    """RLIMIT_FSIZE makes every write past 4 KiB fail, as a full disk does; it holds for a whole process."""
    script = """
import resource, signal, sys, pathlib
from handler.loading.disk_cache import DiskCache
from tests.handler.loading.test_disk_cache import DOCUMENTS, FACTS, make
root = pathlib.Path(sys.argv[1])
disk_cache = make(root)
disk_cache.put("a", "v1", DOCUMENTS, FACTS)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
disk_cache.put("b", "v1", (bytes(100_000),), FACTS)
print([disk_cache.get(uri) is not None for uri in "ab"], len([p for p in root.iterdir() if p.name != "lock"]))
"""
    with tempfile.TemporaryDirectory() as root:
        run = subprocess.run([sys.executable, "-c", script, root], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[True, False] 1"
    assert "cannot be kept on disk" in run.stderr
    assert "File too large" in run.stderr


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path: Path) -> None:
    make(tmp_path).close()
    (tmp_path / f"{'0' * 40}.77.part").write_bytes(b"half of")
    make(tmp_path)
    assert files(tmp_path) == []


def test_two_endpoints_do_not_share_a_directory(tmp_path: Path) -> None:
    first = make(tmp_path)
    with pytest.raises(DiskCacheUnusable, match="another endpoint uses it"):
        make(tmp_path)
    first.close()
    make(tmp_path).close()


def test_a_directory_that_others_may_write_into_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(DiskCacheUnusable, match="others may write"):
        make(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DiskCacheUnusable):
        make(tmp_path / "file")
    (tmp_path / "real").mkdir(mode=0o700)
    os.symlink(tmp_path / "real", tmp_path / "link")
    with pytest.raises(DiskCacheUnusable, match="Not a directory"):
        make(tmp_path / "link")


def test_many_threads_keep_the_count_true(tmp_path: Path) -> None:
    disk_cache = make(tmp_path, max_bytes=6000)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for number in range(60):
            uri = str((seed * 7 + number * 5) % 20)
            disk_cache.put(uri, uri, (uri.encode() * 100,), FACTS)
            kept = disk_cache.get(str(number % 20))
            if kept is not None and kept.documents != (kept.version.encode() * 100,):
                wrong.append(kept.version)
            if number % 9 == 0:
                disk_cache.forget(uri)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert not wrong
    assert disk_cache.n_bytes == sum(path.stat().st_size for path in files(tmp_path)) <= 6000
    assert len(disk_cache) == len(files(tmp_path))


class Verdict:
    def __init__(self, document: bytes) -> None:
        self.documents = (document,)
        self.facts = FACTS


class Desk:
    """A loader with a disk cache over a store in memory."""

    def __init__(self, root: Path, clock: FakeClock) -> None:
        self.store = MemoryStore()
        self.n_examined = 0
        boosters = BoosterPool(HandlePool())
        self.loader = ModelLoader(self.store, self.examine, boosters, n_threads=1, disk_cache=make(root, clock))

    def examine(self, blob: bytes, uri: str) -> Examined:
        self.n_examined += 1
        return Verdict(blob)


@pytest.fixture
def desk(tmp_path: Path, clock: FakeClock) -> Desk:
    clock.now = files_time(tmp_path)
    desk = Desk(tmp_path, clock)
    desk.store.put("a", b"one")
    desk.loader.prepare("a")
    return desk


def test_a_reload_costs_no_request_and_no_examination(desk: Desk, clock: FakeClock) -> None:
    clock.advance(100)
    again = desk.loader.prepare("a")
    assert again.documents == (b"one",)
    assert (again.download_us, again.downloaded_bytes) == (None, 0)
    assert again.checked_s_ago == pytest.approx(100, abs=5)
    assert (desk.store.n_fetches, desk.store.n_conditions, desk.n_examined) == (1, 0, 1)


def test_a_check_makes_it_young_and_brings_what_is_newer(desk: Desk, clock: FakeClock) -> None:
    version = desk.loader.prepare("a").version
    clock.advance(100)
    assert desk.loader.prepare_if_changed("a", version) is None
    assert desk.loader.prepare("a").checked_s_ago == pytest.approx(0, abs=1e-3)
    desk.store.put("a", b"two")
    assert desk.loader.prepare_if_changed("a", version) is not None
    assert desk.loader.prepare("a").documents == (b"two",)
    assert desk.store.n_fetches == 1


def test_what_the_store_has_no_more_is_not_served_from_disk(desk: Desk) -> None:
    version = desk.loader.prepare("a").version
    desk.store.delete("a")
    with pytest.raises(ArtifactMissing):
        desk.loader.prepare_if_changed("a", version)
    with pytest.raises(ArtifactMissing):
        desk.loader.prepare("a")


def test_damage_on_disk_costs_a_download(desk: Desk, tmp_path: Path) -> None:
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert desk.loader.prepare("a").documents == (b"one",)
    assert (desk.store.n_fetches, desk.n_examined) == (2, 2)


def forged(path: Path, change: Callable[[bytearray], None]) -> None:
    """The file with its documents changed and its checksum right again."""
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(summed(bytes(data[kept_file.CHECKED_FROM :])))


def summed(data: bytes) -> bytes:
    """What follows a checksum, behind one that is right as far as its sizes are."""
    n_head, n_documents = struct.unpack_from("=QQ", data.ljust(16, b"\0"))
    head_at = min(16 + 8 * n_documents, len(data))
    sizes = struct.unpack_from(f"={(head_at - 16) // 8}Q", data, 16) if head_at > 16 else ()
    ends = list(accumulate((n_head, *sizes), initial=head_at))
    pieces = [data[:head_at], *(data[start:end] for start, end in pairwise(ends))]
    return kept_file.MAGIC + kept_file.checksum(pieces).to_bytes(8, sys.byteorder) + data


def test_a_directory_put_in_its_place_is_not_looked_into(tmp_path: Path) -> None:
    disk_cache = make(tmp_path / "disk")
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    (file,) = files(tmp_path / "disk")
    shutil.copytree(tmp_path / "disk", tmp_path / "forged")
    forged(tmp_path / "forged" / file.name, lambda data: data.__setitem__(-1, 0))
    (tmp_path / "disk").rename(tmp_path / "old")
    (tmp_path / "forged").rename(tmp_path / "disk")
    kept = disk_cache.get("a")
    assert kept is not None
    assert kept.documents == DOCUMENTS
    disk_cache.put("b", "v1", DOCUMENTS, FACTS)
    assert has(disk_cache, "b")
    assert len(files(tmp_path / "old")) == 2
    disk_cache.close()


@pytest.mark.parametrize("how", ["writable", "link", "fifo", "foreign"])
def test_a_file_that_others_may_have_written_is_not_believed(tmp_path: Path, how: str) -> None:
    if how == "foreign" and os.geteuid():
        pytest.skip("only root can give a file away")
    disk_cache = make(tmp_path)
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    (file,) = files(tmp_path)
    if how == "writable":
        file.chmod(0o666)
    elif how == "foreign":
        os.chown(file, 12345, 12345)
    else:
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere") if how == "link" else os.mkfifo(file)
    assert disk_cache.get("a") is None
    assert "a" not in disk_cache


@settings(max_examples=300)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 200))
def test_whatever_a_file_with_a_right_checksum_holds_is_found_or_not_found(junk: bytes, at: int, n_cut: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        disk_cache = make(Path(root))
        disk_cache.put("a", "v1", DOCUMENTS, FACTS)
        (file,) = files(Path(root))
        forged(file, lambda data: data.__setitem__(slice(24 + at, 24 + at + n_cut), junk))
        kept = disk_cache.get("a")
        assert kept is None or len(kept.documents) == len(kept.facts)
        disk_cache.close()


def with_head(path: Path, change: Callable[[bytes], bytes]) -> None:
    """The file with another head, and its checksum right again."""
    at = kept_file.CHECKED_FROM

    def changed(data: bytearray) -> None:
        n_head, n_documents = struct.unpack_from("=QQ", data, at)
        head_at = at + 16 + 8 * n_documents
        head = change(bytes(data[head_at : head_at + n_head]))
        data[head_at : head_at + n_head] = head
        struct.pack_into("=Q", data, at, len(head))

    forged(path, changed)


@SPARING
@given(st.data())
def test_whatever_a_head_says_its_facts_are_of_their_types(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as root:
        disk_cache = make(Path(root))
        disk_cache.put("a", "v1", DOCUMENTS, FACTS)
        (file,) = files(Path(root))
        with_head(file, lambda head: data.draw(retyped(head)))
        kept = disk_cache.get("a")
        if kept is not None:
            assert all(msgspec.convert(asdict(one), Facts) == one for one in kept.facts)
            assert len(kept.documents) == len(kept.facts)
        disk_cache.close()


@pytest.mark.parametrize(
    "head", [b"[" * 100_000, b'{"identity": ' + b"[" * 100_000, b"\xff", b"null", b"[]"], ids=lambda head: head[:14]
)
def test_a_head_that_is_none_is_not_found(tmp_path: Path, head: bytes) -> None:
    disk_cache = make(tmp_path)
    disk_cache.put("a", "v1", DOCUMENTS, FACTS)
    (file,) = files(tmp_path)
    with_head(file, lambda _: head)
    assert disk_cache.get("a") is None


@pytest.mark.skipif(not walker.is_available(), reason="there was no C compiler")
def test_a_packed_form_that_could_not_be_walked_is_fetched_anew(tmp_path: Path) -> None:
    forest = pack(import_booster(boosters.document(boosters.train(6, 3)), "x").learner)
    assert forest is not None
    kept = (Facts("reg:squarederror", "gbtree", 6, 1, 1000, is_forest=True),)
    store, disk_cache = MemoryStore(), make(tmp_path)
    store.put("a", b"artifact")
    disk_cache.put(store.uri("a"), "v0", [b"\xff" * len(forest)], kept)

    @dataclass
    class Sound:
        documents: tuple[bytes, ...] = (forest,)  # type: ignore[assignment]
        facts: tuple[Facts, ...] = kept

    loader = ModelLoader(store, lambda *_: Sound(), BoosterPool(HandlePool()), 1, disk_cache=disk_cache)
    assert loader.prepare("a").documents == (forest,)
    assert store.n_fetches == 1
    assert loader.prepare("a").documents == (forest,)  # from disk now
    assert store.n_fetches == 1
