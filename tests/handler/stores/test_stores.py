"""What every store promises, over S3 (moto, real HTTP) and over a directory; and how a location is understood."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto.server import ThreadedMotoServer

from handler.errors import ArtifactMissing, ArtifactRefused
from handler.stores import LocationInvalid, S3Location, Store, open_store, parse_location
from handler.stores.s3 import S3Settings, S3Store
from tests.rig.faulty_s3 import ENVIRONMENT

MAX_BYTES = 300_000


class Place(Protocol):
    """Where a test puts artifacts, and the store that looks there."""

    location: str

    def put(self, target: str, data: bytes) -> None: ...
    def delete(self, target: str) -> None: ...
    def open(self) -> Store: ...


class StorePromises:
    @pytest.fixture
    def store(self, place: Place) -> Iterator[Store]:
        store = place.open()
        yield store
        store.close()

    def test_an_artifact_comes_whole_with_its_version_and_where_it_was(self, place: Place, store: Store) -> None:
        data = bytes(range(256)) * 1100
        place.put("eu/a.tar.gz", data)
        fetched = store.fetch("eu/a.tar.gz")
        assert fetched.data == data
        assert fetched.uri == store.uri("eu/a.tar.gz") == f"{place.location}eu/a.tar.gz"
        assert fetched.version

    def test_an_empty_artifact_is_empty_bytes(self, place: Place, store: Store) -> None:
        place.put("empty", b"")
        assert store.fetch("empty").data == b""

    def test_an_unchanged_artifact_is_not_fetched_again(self, place: Place, store: Store) -> None:
        place.put("a", b"one")
        version = store.fetch("a").version
        assert store.fetch_if_changed("a", version) is None

    def test_a_replaced_artifact_has_another_version_and_is_fetched(self, place: Place, store: Store) -> None:
        place.put("a", b"one")
        version = store.fetch("a").version
        place.put("a", b"two")
        fetched = store.fetch_if_changed("a", version)
        assert fetched is not None
        assert fetched.data == b"two"
        assert fetched.version != version
        assert store.fetch_if_changed("a", fetched.version) is None

    def test_a_version_nobody_gave_counts_as_changed(self, place: Place, store: Store) -> None:
        place.put("a", b"one")
        fetched = store.fetch_if_changed("a", '"of another store"')
        assert fetched is not None
        assert fetched.data == b"one"

    @pytest.mark.parametrize("target", ["nope.tar.gz", "eu", "eu/a/b", "no/such/folder", "n" * 1024])
    def test_what_is_not_there_is_missing(self, place: Place, store: Store, target: str) -> None:
        place.put("eu/a", b"one")
        with pytest.raises(ArtifactMissing) as caught:
            store.fetch(target)
        assert caught.value.uri == store.uri(target)

    def test_a_deleted_artifact_is_missing_to_those_who_know_its_version(self, place: Place, store: Store) -> None:
        place.put("a", b"one")
        version = store.fetch("a").version
        place.delete("a")
        with pytest.raises(ArtifactMissing):
            store.fetch_if_changed("a", version)

    def test_an_artifact_put_after_a_miss_is_found_by_the_next_call(self, place: Place, store: Store) -> None:
        with pytest.raises(ArtifactMissing):
            store.fetch("late")
        place.put("late", b"here")
        assert store.fetch("late").data == b"here"

    @pytest.mark.parametrize(
        "target",
        [
            "San José.tar.gz",
            "San José",
            "東京/a",
            "a b",
            "a+b",
            "100%25",
            "%2e%2e/a",
            "a#b?c&d=e",
            "a..b",
            ".hidden",
            "a:b;c",
        ],
    )
    def test_names_are_taken_letter_by_letter(self, place: Place, store: Store, target: str) -> None:
        place.put(target, target.encode())
        assert store.fetch(target).data == target.encode()
        assert [stored.target for stored in store.list()] == [target]

    def test_an_artifact_may_have_the_largest_size_and_no_byte_more(self, place: Place, store: Store) -> None:
        place.put("fits", b"x" * MAX_BYTES)
        place.put("large", b"x" * (MAX_BYTES + 1))
        assert len(store.fetch("fits").data) == MAX_BYTES
        with pytest.raises(ArtifactRefused, match=f"{MAX_BYTES + 1} bytes are more than {MAX_BYTES}"):
            store.fetch("large")

    def test_a_listing_has_what_fetch_would_find_in_the_order_of_bytes(self, place: Place, store: Store) -> None:
        targets = ["a-b", "a.tar.gz", "a/b", "a/b-c", "a/c", "a0", "b", "z/y/x", "é", "東"]
        for target in reversed(targets):
            place.put(target, target.encode() * 3)
        listed = list(store.list())
        assert [stored.target for stored in listed] == targets
        assert [stored.size for stored in listed] == [len(target.encode()) * 3 for target in targets]
        assert [stored.version for stored in listed] == [store.fetch(target).version for target in targets]

    @pytest.mark.parametrize(
        ("prefix", "targets"),
        [
            ("", ["eu/Houston", "eu/Hull", "eu/x/y", "us/a"]),
            ("eu/", ["eu/Houston", "eu/Hull", "eu/x/y"]),
            ("eu/H", ["eu/Houston", "eu/Hull"]),
            ("eu/x/y", ["eu/x/y"]),
            ("e", ["eu/Houston", "eu/Hull", "eu/x/y"]),
            ("eu/z", []),
            ("eu/Hull/", []),
            ("none/", []),
        ],
    )
    def test_a_listing_may_be_narrowed(self, place: Place, store: Store, prefix: str, targets: list[str]) -> None:
        for target in ["eu/Houston", "eu/Hull", "eu/x/y", "us/a"]:
            place.put(target, b"1")
        assert [stored.target for stored in store.list(prefix)] == targets

    def test_many_threads_may_fetch_at_once(self, place: Place, store: Store) -> None:
        targets = [f"{i}.tar.gz" for i in range(16)]
        for target in targets:
            place.put(target, target.encode() * 5000)
        with ThreadPoolExecutor(8) as threads:
            fetched = list(threads.map(store.fetch, targets * 2))
        assert [one.data for one in fetched] == [target.encode() * 5000 for target in targets * 2]


class DirectoryPlace:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = f"{root}/"

    def put(self, target: str, data: bytes) -> None:
        path = self.root / target
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name("beside")
        beside.write_bytes(data)
        beside.rename(path)

    def delete(self, target: str) -> None:
        (self.root / target).unlink()

    def open(self) -> Store:
        return open_store(self.location, max_artifact_bytes=MAX_BYTES)


class TestDirectory(StorePromises):
    @pytest.fixture
    def place(self, tmp_path: Path) -> DirectoryPlace:
        root = tmp_path / "models"
        root.mkdir()
        (tmp_path / "neighbour").write_bytes(b"not ours")
        return DirectoryPlace(root)


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line per request on stderr
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(moto_url: str) -> Iterator[Any]:
    client = boto3.client(
        "s3", endpoint_url=moto_url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="acme-models")
    yield client
    client.close()


class S3Place:
    """An empty prefix of a bucket, with a key beside it whose name starts alike."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self.client, self.bucket, self.prefix = client, bucket, prefix
        self.location = f"s3://{bucket}/{prefix}"
        self.client.put_object(Bucket=bucket, Key=f"{prefix.rstrip('/')}-neighbour", Body=b"not ours")

    def put(self, target: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=self.prefix + target, Body=data)

    def delete(self, target: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=self.prefix + target)

    def open(self) -> Store:
        settings = S3Settings(endpoint_url=self.client.meta.endpoint_url)
        return open_store(self.location, max_artifact_bytes=MAX_BYTES, s3=settings)


class TestS3(StorePromises):
    @pytest.fixture
    def place(self, client: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Place]:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        place = S3Place(client, "acme-models", "house/prices/")
        yield place
        for found in client.list_objects_v2(Bucket=place.bucket).get("Contents", ()):
            client.delete_object(Bucket=place.bucket, Key=found["Key"])

    def test_folder_objects_are_no_artifacts(self, place: S3Place, store: Store) -> None:
        place.put("", b"")
        place.put("eu/", b"")
        place.put("eu/a", b"1")
        assert [stored.target for stored in store.list()] == ["eu/a"]


POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/acme-models"
MANY = "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap"
POINT_IN_CHINA = "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:acme"


@pytest.mark.parametrize(
    ("location", "bucket", "prefix"),
    [
        ("s3://acme", "acme", ""),
        ("s3://acme/", "acme", ""),
        ("s3://acme/models", "acme", "models/"),
        ("s3://acme/models/", "acme", "models/"),
        ("s3://acme.eu-1/a/b c/é%2F#?", "acme.eu-1", "a/b c/é%2F#?/"),
        (f"s3://{POINT}", POINT, ""),
        (f"s3://{POINT}/models", POINT, "models/"),
        ("s3://arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap/a/", MANY, "a/"),
        ("s3://arn:aws-cn:s3:cn-north-1:123456789012:accesspoint:acme/a", POINT_IN_CHINA, "a/"),
    ],
)
def test_an_s3_location_is_a_bucket_and_a_prefix(location: str, bucket: str, prefix: str) -> None:
    assert parse_location(location) == S3Location(bucket, prefix)


def test_a_directory_location_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_location("models/") == parse_location("./models") == tmp_path / "models"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("", "write s3://bucket/prefix/ or a directory"),
        ("a\0b", "write s3://bucket/prefix/ or a directory"),
        ("s3://", "'' is no bucket name"),
        ("s3:///models", "'' is no bucket name"),
        ("s3://a/models", "'a' is no bucket name"),
        ("s3://acme models/", "'acme models' is no bucket name"),
        (
            "s3://arn:aws:s3:eu-west-1:123:accesspoint/x/models",
            "'arn:aws:s3:eu-west-1:123:accesspoint' is no bucket name",
        ),
        ("s3://arn:aws:iam::123456789012:role/x", "is no bucket name"),
        (f"s3://{POINT}//models", "prefix '/models': it is absolute"),
        ("s3://acme//models", "prefix '/models': it is absolute"),
        ("s3://acme/models//", "prefix 'models/': it ends with a slash"),
        ("s3://acme/a/../b", "path segment '..'"),
        ("s3://acme/a\nb", "unprintable character U+000A"),
        ("S3://acme/models", "S3:// is not supported"),
        ("gs://acme/models", "gs:// is not supported"),
        ("https://acme.s3.amazonaws.com/models", "https:// is not supported"),
        ("no/such/directory", "there is no such directory"),
        (__file__, "is not a directory"),
    ],
)
def test_a_location_that_cannot_be_understood_is_refused_at_once(location: str, why: str) -> None:
    with pytest.raises(LocationInvalid) as caught:
        open_store(location)
    assert why in str(caught.value)
    assert repr(location) in str(caught.value)


def test_an_access_point_is_asked_by_its_own_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    store = S3Store(POINT, "models/", max_artifact_bytes=10, settings=S3Settings(region="eu-west-1", max_attempts=1))
    asked = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        asked.append(request.url)
        raw = Raw(b"")
        return AWSResponse(request.url, 404, {}, raw)

    store._connected().meta.events.register("before-send.s3", answer)
    with pytest.raises(ArtifactMissing):
        store.fetch("eu/a.tar.gz")
    assert store.uri("eu/a.tar.gz") == f"s3://{POINT}/models/eu/a.tar.gz"
    assert asked == ["https://acme-models-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/models/eu/a.tar.gz"]
    store.close()


class Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.getvalue()


def test_a_directory_store_needs_no_boto3(tmp_path: Path) -> None:
    code = "import sys; from handler.stores import open_store; open_store(sys.argv[1]); print('boto3' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=root, check=True, capture_output=True, text=True)
    assert ran.stdout == "False\n"
