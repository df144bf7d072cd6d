"""What every store that takes promises, over S3 (moto and a small S3 that honours all conditions) and over a directory."""

from __future__ import annotations

import errno
import fcntl
import io
import mmap
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from handler.errors import ArtifactChanged, ArtifactForbidden, ArtifactMissing, ArtifactUnavailable
from handler.stores.s3 import S3Settings
from handler.stores.writing import NOTHING, WritingStore, open_writing_store
from tests.rig import faulty_s3
from tests.rig.faulty_s3 import ENVIRONMENT, FaultyS3


class WritingPromises:
    def test_what_was_written_is_there_with_the_version_that_was_told(self, store: WritingStore) -> None:
        version = store.put("eu/a.tar.gz", b"one")
        fetched = store.fetch("eu/a.tar.gz")
        assert (fetched.data, fetched.version) == (b"one", version)
        assert [(one.target, one.version) for one in store.list()] == [("eu/a.tar.gz", version)]

    @pytest.mark.parametrize("n_bytes", [0, 100, 4096, 10_000])
    @pytest.mark.parametrize("first", [0, 1], ids=["where a page begins", "behind it"])
    def test_a_view_is_written_whole_wherever_it_begins(self, store: WritingStore, n_bytes: int, first: int) -> None:
        page = mmap.mmap(-1, 16 << 10)
        page[:] = random.Random(1).randbytes(len(page))
        version = store.put("a", memoryview(page)[first : first + n_bytes])
        fetched = store.fetch("a")
        assert (fetched.data, fetched.version) == (page[first : first + n_bytes], version)
        assert store.put("a", memoryview(page)[first : first + n_bytes], NOTHING) == version  # ours already
        page.close()  # nobody holds it

    def test_without_a_condition_whatever_is_there_is_written_over(self, store: WritingStore) -> None:
        store.put("a", b"one")
        store.put("a", b"two")
        assert store.fetch("a").data == b"two"

    def test_over_nothing_only_the_first_writes(self, store: WritingStore) -> None:
        store.put("a", b"one", NOTHING)
        with pytest.raises(ArtifactChanged):
            store.put("a", b"two", NOTHING)
        assert store.fetch("a").data == b"one"

    def test_over_a_version_only_the_first_writes(self, store: WritingStore) -> None:
        before = store.put("a", b"one")
        after = store.put("a", b"two", before)
        with pytest.raises(ArtifactChanged):
            store.put("a", b"three", before)
        assert (store.fetch("a").data, store.fetch("a").version) == (b"two", after)

    def test_over_a_version_that_is_gone_nobody_writes(self, store: WritingStore) -> None:
        before = store.put("a", b"one")
        store.remove("a")
        with pytest.raises(ArtifactChanged):
            store.put("a", b"two", before)
        assert list(store.list()) == []

    def test_the_same_bytes_once_more_count_as_written(self, store: WritingStore) -> None:
        version = store.put("a", b"one", NOTHING)
        assert store.put("a", b"one", NOTHING) == version

    def test_a_file_is_written_as_its_bytes_would_be_wherever_it_was_read_to(self, store: WritingStore) -> None:
        def file_of(data: bytes) -> IO[bytes]:
            made = io.BytesIO(data)
            made.read(3)
            return made

        text = b"x" * (2 << 20) + b"y"  # of several parts
        version = store.put("a", file_of(text), NOTHING)
        assert (store.fetch("a").data, store.fetch("a").version) == (text, version)
        assert store.put("a", file_of(text), NOTHING) == version
        for other in (text + b"z", text[:-1], b"z" + text[1:]):
            with pytest.raises(ArtifactChanged):
                store.put("a", file_of(other), NOTHING)
        assert store.fetch("a").data == text

    def test_a_copy_is_what_its_source_is(self, store: WritingStore, other: WritingStore) -> None:
        other.put("x", b"one")
        version = store.copy(other, "x", "us/a b+é.tar.gz")
        assert (store.fetch("us/a b+é.tar.gz").data, store.fetch("us/a b+é.tar.gz").version) == (b"one", version)
        with pytest.raises(ArtifactMissing):
            store.copy(other, "y", "b")

    def test_what_was_removed_is_missing_and_may_be_removed_again(self, store: WritingStore) -> None:
        store.put("a", b"one")
        store.remove("a")
        store.remove("a")
        with pytest.raises(ArtifactMissing):
            store.fetch("a")

    def test_only_the_expected_version_is_removed(self, store: WritingStore) -> None:
        before = store.put("a", b"one")
        after = store.put("a", b"two")
        with pytest.raises(ArtifactChanged):
            store.remove("a", before)
        store.remove("a", after)
        store.remove("a", after)
        assert list(store.list()) == []


class HonouredPromises(WritingPromises):
    """Also where a condition is looked at in the same step as it is written."""

    def test_of_many_who_write_over_the_same_version_one_wins(self, store: WritingStore) -> None:
        before = store.put("current", b"0")

        def write(number: int) -> bool:
            try:
                store.put("current", str(number).encode(), before)
            except ArtifactChanged:
                return False
            return True

        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(write, range(1, 33)))
        assert won.count(True) == 1
        assert store.fetch("current").data == str(1 + won.index(True)).encode()

    def test_a_copy_has_conditions_too(self, store: WritingStore, other: WritingStore) -> None:
        other.put("x", b"one")
        first = store.copy(other, "x", "a", NOTHING)
        other.put("x", b"two")
        with pytest.raises(ArtifactChanged):
            store.copy(other, "x", "a", NOTHING)
        second = store.copy(other, "x", "a", first)
        other.put("x", b"three")
        with pytest.raises(ArtifactChanged):
            store.copy(other, "x", "a", first)
        assert (store.fetch("a").data, store.fetch("a").version) == (b"two", second)


class TestDirectory(HonouredPromises):
    @pytest.fixture
    def store(self, tmp_path: Path) -> WritingStore:
        return open_writing_store(str(tmp_path / "live"), makes=True)

    @pytest.fixture
    def other(self, tmp_path: Path) -> WritingStore:
        return open_writing_store(str(tmp_path / "shelf"), makes=True)

    def test_nothing_is_written_through_a_link_that_leads_out(self, tmp_path: Path, store: WritingStore) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (tmp_path / "live" / "eu").symlink_to(outside)
        with pytest.raises(ArtifactForbidden):
            store.put("eu/a", b"one")
        assert list(outside.iterdir()) == []

    def test_where_the_disk_takes_nothing_past_the_cache_a_view_is_written_all_the_same(
        self, store: WritingStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> int:
            raise OSError(errno.EINVAL, "as of a file system that cannot do so")

        monkeypatch.setattr("handler.stores.directory_writing.os.write", refuse)
        with mmap.mmap(-1, 5000) as page:
            page[:] = b"x" * 5000
            store.put("a", memoryview(page))
        assert store.fetch("a").data == b"x" * 5000

    def test_a_writer_that_was_killed_leaves_nothing_to_be_listed(self, tmp_path: Path, store: WritingStore) -> None:
        (tmp_path / "live" / ".\\0123.part").write_bytes(b"half")
        assert list(store.list()) == []

    def test_what_a_killed_writer_left_goes_with_the_next_write_beside_it(
        self, tmp_path: Path, store: WritingStore
    ) -> None:
        store.put("eu/a", b"one")
        left = tmp_path / "live" / "eu" / ".\\0123.part"
        theirs = tmp_path / "live" / "eu" / "b.part"
        for path in (left, theirs):
            path.write_bytes(b"half")
        open_writing_store(str(tmp_path / "live")).put("eu/b", b"two")
        assert not left.exists()
        assert theirs.exists()

    def test_what_another_writer_is_about_is_left_to_it(self, tmp_path: Path, store: WritingStore) -> None:
        part = tmp_path / "live" / ".\\0123.part"
        with part.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            store.put("a", b"one")
            assert part.exists()

    def test_a_file_swept_away_before_it_was_locked_is_begun_anew(
        self, tmp_path: Path, store: WritingStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock, taken = fcntl.flock, []

        def be_late(file: Any, how: int) -> None:
            if not taken:
                taken.extend(tmp_path.glob("live/.*.part"))
                taken[0].unlink()
            lock(file, how)

        monkeypatch.setattr(fcntl, "flock", be_late)
        store.put("a", b"one")
        assert len(taken) == 1
        assert store.fetch("a").data == b"one"

    def test_a_reader_never_sees_half_of_what_is_written(self, store: WritingStore) -> None:
        store.put("a", bytes(500_000))
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number = (number + 1) % 250
                store.put("a", bytes([number]) * 500_000)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for _ in range(100):
                data = store.fetch("a").data
                assert data == data[:1] * 500_000
        finally:
            stop.set()
            writer.join()


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("made_up")
class TestSmallS3(HonouredPromises):
    @pytest.fixture
    def s3(self) -> Iterator[FaultyS3]:
        with FaultyS3() as s3:
            yield s3

    @pytest.fixture
    def store(self, s3: FaultyS3) -> Iterator[WritingStore]:
        store = open_writing_store("s3://models/live/", s3=S3Settings(endpoint_url=s3.url))
        yield store
        store.close()

    @pytest.fixture
    def other(self, s3: FaultyS3) -> Iterator[WritingStore]:
        store = open_writing_store("s3://models/live.releases/", s3=S3Settings(endpoint_url=s3.url))
        yield store
        store.close()

    @pytest.mark.parametrize("over", [NOTHING, "a version"])
    def test_a_write_whose_answer_is_lost_is_tried_again_and_counts(
        self, s3: FaultyS3, store: WritingStore, over: str
    ) -> None:
        over = store.put("a", b"zero") if over else over
        s3.faults["live/a"] = faulty_s3.reset(times=1)  # after it was obeyed
        version = store.put("a", b"one", over)
        assert (store.fetch("a").data, store.fetch("a").version) == (b"one", version)

    def test_a_copy_is_made_by_s3_alone(self, s3: FaultyS3, store: WritingStore, other: WritingStore) -> None:
        other.put("x", b"one")
        s3.methods.clear()
        store.copy(other, "x", "a", NOTHING)
        assert s3.methods == {"COPY": 1}

    def test_what_may_not_be_written_is_said(self, s3: FaultyS3, store: WritingStore) -> None:
        s3.faults["live/a"] = faulty_s3.status(403, "AccessDenied")
        with pytest.raises(ArtifactForbidden, match=r"may not be written \(AccessDenied\)"):
            store.put("a", b"one")

    def test_an_s3_that_fails_is_unavailable(self, s3: FaultyS3, store: WritingStore) -> None:
        s3.faults["live/a"] = faulty_s3.status(503, "SlowDown")
        with pytest.raises(ArtifactUnavailable):
            store.put("a", b"one")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.usefixtures("made_up")
class TestMoto(WritingPromises):
    """Moto looks at no condition of a copy, and not in one step with what it writes."""

    @pytest.fixture
    def store(self, url: str, request: pytest.FixtureRequest) -> Iterator[WritingStore]:
        bucket = f"b-{abs(hash(request.node.name))}"
        boto3.client("s3", endpoint_url=url).create_bucket(Bucket=bucket)
        store = open_writing_store(f"s3://{bucket}/live/", s3=S3Settings(endpoint_url=url))
        yield store
        store.close()

    @pytest.fixture
    def other(self, store: WritingStore, url: str) -> Iterator[WritingStore]:
        location = store.uri("").replace("/live/", "/live.releases/")
        other = open_writing_store(location, s3=S3Settings(endpoint_url=url))
        yield other
        other.close()
