"""What S3 and the network can do to a fetch, through real boto3.

Rule: whatever happens is a clear error in bounded time, nothing comes by halves, and the next call tries again.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from handler.errors import ArtifactError, ArtifactForbidden, ArtifactMissing, ArtifactRefused, ArtifactUnavailable
from handler.stores import open_store
from handler.stores.s3 import S3Settings, S3Store
from tests.rig import faulty_s3
from tests.rig.faulty_s3 import ANY_KEY, ENVIRONMENT, LISTING, Fault, FaultyS3

KEY = "models/eu/a.tar.gz"
TARGET = "eu/a.tar.gz"
DATA = bytes(range(256)) * 800  # 200 KiB: more than one recv, less than any buffer that would hide a cut

READ_TIMEOUT_S = 0.5
DEADLINE_S = 1.0
BOUND_S = DEADLINE_S + READ_TIMEOUT_S + 2.0  # what a fetch may take, and some for two busy cores


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3() -> Iterator[FaultyS3]:
    with FaultyS3() as s3:
        s3.put(KEY, DATA)
        yield s3


Open = Callable[..., S3Store]


@pytest.fixture
def open_s3(s3: FaultyS3) -> Iterator[Open]:
    opened = []

    def open_s3(
        location: str = "s3://models/models/", max_artifact_bytes: int = 1_000_000, **settings: object
    ) -> S3Store:
        chosen = {
            "endpoint_url": s3.url,
            "connect_timeout_s": 0.5,
            "read_timeout_s": READ_TIMEOUT_S,
            "max_attempts": 1,
            "deadline_s": DEADLINE_S,
        } | settings
        store = open_store(location, max_artifact_bytes=max_artifact_bytes, s3=S3Settings(**chosen))
        assert isinstance(store, S3Store)
        store.connect()  # so that a test's clock measures fetches only
        opened.append(store)
        return store

    yield open_s3
    for store in opened:
        store.close()


FAULTS = [
    (faulty_s3.status(403, "AccessDenied"), ArtifactForbidden, "AccessDenied"),
    (faulty_s3.status(403, "InvalidAccessKeyId"), ArtifactUnavailable, "InvalidAccessKeyId"),
    (faulty_s3.status(403, "SignatureDoesNotMatch"), ArtifactUnavailable, "SignatureDoesNotMatch"),
    (faulty_s3.status(403, "InvalidObjectState"), ArtifactForbidden, "InvalidObjectState"),
    (faulty_s3.status(400, "KMS.DisabledException"), ArtifactForbidden, "KMS.DisabledException"),
    (faulty_s3.status(400, "ExpiredToken"), ArtifactUnavailable, "ExpiredToken"),
    (faulty_s3.status(400, "KMS.ThrottlingException"), ArtifactUnavailable, "KMS.ThrottlingException"),
    (faulty_s3.status(400, "RequestTimeout"), ArtifactUnavailable, "RequestTimeout"),
    (faulty_s3.status(403, "RequestTimeTooSkewed"), ArtifactUnavailable, "RequestTimeTooSkewed"),
    (faulty_s3.status(400, "AuthorizationHeaderMalformed"), ArtifactUnavailable, "AuthorizationHeaderMalformed"),
    (
        faulty_s3.status(400, "IllegalLocationConstraintException"),
        ArtifactUnavailable,
        "IllegalLocationConstraintException",
    ),
    (faulty_s3.status(301, "PermanentRedirect"), ArtifactUnavailable, "PermanentRedirect"),
    (faulty_s3.status(404, "NoSuchAccessPoint"), ArtifactUnavailable, "NoSuchAccessPoint"),
    (faulty_s3.status(404, "NoSuchKey"), ArtifactMissing, None),
    (faulty_s3.status(400, "KeyTooLongError"), ArtifactMissing, None),
    (faulty_s3.status(404, "NoSuchBucket"), ArtifactUnavailable, "NoSuchBucket"),
    (faulty_s3.status(429, "TooManyRequests"), ArtifactUnavailable, "TooManyRequests"),
    (faulty_s3.status(500, "InternalError"), ArtifactUnavailable, "InternalError"),
    (faulty_s3.status(503, "SlowDown"), ArtifactUnavailable, "SlowDown"),
    (faulty_s3.hang(), ArtifactUnavailable, "ReadTimeout"),
    (faulty_s3.hang_mid_body(0), ArtifactUnavailable, "ReadTimeout"),
    (faulty_s3.hang_mid_body(100_000), ArtifactUnavailable, "ReadTimeout"),
    (faulty_s3.cut_short(0), ArtifactUnavailable, "ConnectionBroken"),
    (faulty_s3.cut_short(100_000), ArtifactUnavailable, "ConnectionBroken"),
    (faulty_s3.cut_short(len(DATA) - 1), ArtifactUnavailable, "ConnectionBroken"),
    (faulty_s3.flip_byte(0), ArtifactUnavailable, "ChecksumMismatch"),
    (faulty_s3.flip_byte(len(DATA) - 1), ArtifactUnavailable, "ChecksumMismatch"),
    (faulty_s3.reset(), ArtifactUnavailable, "ConnectionClosed"),
    (faulty_s3.reset(after_bytes=100_000), ArtifactUnavailable, "ConnectionBroken"),
    (faulty_s3.without_header("Content-Length"), ArtifactUnavailable, "NoContentLength"),
    (faulty_s3.without_header("ETag"), ArtifactUnavailable, "NoETag"),
    (faulty_s3.drip(chunk_bytes=1, pause_s=0.05), ArtifactUnavailable, "DeadlinePassed"),
    (faulty_s3.drip(chunk_bytes=5_000, pause_s=0.05), ArtifactUnavailable, "DeadlinePassed"),
]


@pytest.mark.parametrize(
    ("fault", "kind", "code"), FAULTS, ids=[f"{i}-{kind.__name__}-{code}" for i, (_, kind, code) in enumerate(FAULTS)]
)
def test_a_fault_is_a_clear_error_in_bounded_time_and_the_next_call_tries_again(
    s3: FaultyS3, open_s3: Open, fault: Fault, kind: type[ArtifactError], code: str | None
) -> None:
    store = open_s3()
    s3.faults[KEY] = Fault(fault.act, times=1)
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        store.fetch(TARGET)
    assert time.monotonic() - started < BOUND_S
    assert type(caught.value) is kind
    assert caught.value.uri == "s3://models/models/eu/a.tar.gz"
    assert getattr(caught.value, "code", None) == code
    assert s3.requests[KEY] == 1

    assert store.fetch(TARGET).data == DATA
    assert s3.requests[KEY] == 2


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faulty_s3.status(503, "SlowDown"), "SlowDown"),
        (faulty_s3.hang(), "ReadTimeout"),
        (faulty_s3.cut_short(10), "ConnectionBroken"),
    ],
    ids=["503", "hang", "cut"],
)
def test_a_conditional_fetch_that_fails_is_an_error_and_never_unchanged(
    s3: FaultyS3, open_s3: Open, fault: Fault, code: str
) -> None:
    store = open_s3()
    version = store.fetch(TARGET).version
    s3.put(KEY, b"new" * 100)
    s3.faults[KEY] = Fault(fault.act, times=1)
    with pytest.raises(ArtifactUnavailable, match=code):
        store.fetch_if_changed(TARGET, version)
    fetched = store.fetch_if_changed(TARGET, version)
    assert fetched is not None
    assert fetched.data == b"new" * 100


def test_nobody_listening_is_unavailable(open_s3: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ArtifactUnavailable, match="EndpointConnection"):
        open_s3(endpoint_url=f"http://127.0.0.1:{port}").fetch(TARGET)


def test_a_bucket_that_does_not_exist_is_not_blamed_on_the_target(open_s3: Open) -> None:
    with pytest.raises(ArtifactUnavailable, match="NoSuchBucket"):
        open_s3("s3://another/models/").fetch(TARGET)


@pytest.mark.parametrize(
    ("location", "said"),
    [("s3://models/models/", ""), ("s3://another/models/", "there is no bucket 'another': no model can be served")],
)
def test_a_bucket_that_does_not_exist_is_said_at_the_start(
    location: str, said: str, open_s3: Open, caplog: pytest.LogCaptureFixture
) -> None:
    open_s3(location).look_for_bucket()
    assert [record.levelname for record in caplog.records] == (["ERROR"] if said else [])
    assert said in caplog.text


def test_a_bucket_in_another_region_is_said_at_the_start(
    s3: FaultyS3, open_s3: Open, caplog: pytest.LogCaptureFixture
) -> None:
    s3.bucket_answer = faulty_s3.Answer(400, {"x-amz-bucket-region": "eu-west-1", "Content-Length": "0"}, b"")
    open_s3().look_for_bucket()
    assert "bucket 'models' is in eu-west-1, and is asked for in us-east-1" in caplog.text


def test_a_role_that_may_not_look_and_a_store_that_is_away_keep_nobody_from_starting(
    s3: FaultyS3, open_s3: Open, caplog: pytest.LogCaptureFixture
) -> None:
    s3.bucket_answer = faulty_s3.Answer(403, {"Content-Length": "0"}, b"")
    open_s3().look_for_bucket()
    assert caplog.text == ""
    open_s3(endpoint_url="http://127.0.0.1:1").look_for_bucket()
    assert "could not be asked" in caplog.text


def test_what_s3_says_goes_to_the_log_and_not_to_the_caller(s3: FaultyS3, open_s3: Open) -> None:
    store = open_s3()
    s3.faults[KEY] = faulty_s3.status(403, "AccessDenied")
    with pytest.raises(ArtifactForbidden) as caught:
        store.fetch(TARGET)
    assert caught.value.detail == "told to"
    assert "told to" not in str(caught.value)


def test_an_endpoint_that_is_no_url_is_told_at_once() -> None:
    store = S3Store("models", "", max_artifact_bytes=10, settings=S3Settings(endpoint_url="not a url"))
    with pytest.raises(ArtifactUnavailable):
        store.connect()
    with pytest.raises(ArtifactUnavailable):
        store.fetch("a")
    with pytest.raises(ArtifactUnavailable):
        list(store.list())


def test_a_passing_failure_is_retried_within_the_call(s3: FaultyS3, open_s3: Open) -> None:
    s3.faults[KEY] = faulty_s3.status(503, "SlowDown", times=1)
    assert open_s3(max_attempts=2, deadline_s=10).fetch(TARGET).data == DATA
    assert s3.requests[KEY] == 2


@pytest.mark.parametrize("code", ["AccessDenied", "NoSuchKey"])
def test_a_lasting_failure_is_not_retried(s3: FaultyS3, open_s3: Open, code: str) -> None:
    s3.faults[KEY] = faulty_s3.status(403 if code == "AccessDenied" else 404, code)
    with pytest.raises(ArtifactError):
        open_s3(max_attempts=3, deadline_s=10).fetch(TARGET)
    assert s3.requests[KEY] == 1


def test_retries_end_with_the_deadline(s3: FaultyS3, open_s3: Open) -> None:
    s3.faults[KEY] = faulty_s3.hang()
    store = open_s3(max_attempts=10, deadline_s=0.2)
    started = time.monotonic()
    with pytest.raises(ArtifactUnavailable, match="DeadlinePassed"):
        store.fetch(TARGET)
    assert time.monotonic() - started < 0.2 + READ_TIMEOUT_S + 2.0
    assert s3.requests[KEY] == 1


def test_a_late_answer_is_an_answer(s3: FaultyS3, open_s3: Open) -> None:
    store = open_s3()
    s3.faults[KEY] = faulty_s3.latency(0.1)
    fetched = store.fetch(TARGET)
    assert fetched.data == DATA
    assert store.fetch_if_changed(TARGET, fetched.version) is None


def test_a_fetch_is_one_request_on_a_connection_that_is_kept(s3: FaultyS3, open_s3: Open) -> None:
    store = open_s3()
    for _ in range(5):
        fetched = store.fetch(TARGET)
    assert store.fetch_if_changed(TARGET, fetched.version) is None
    with pytest.raises(ArtifactMissing):
        store.fetch("nope")
    assert s3.requests == {KEY: 6, "models/nope": 1}
    assert s3.connections == 1


def test_a_connection_with_bytes_still_on_it_is_not_used_again(s3: FaultyS3, open_s3: Open) -> None:
    store = open_s3(max_artifact_bytes=len(DATA) - 1)
    s3.put("models/small", b"small")
    for _ in range(3):
        with pytest.raises(ArtifactRefused, match=f"{len(DATA)} bytes are more than {len(DATA) - 1}"):
            store.fetch(TARGET)
        assert store.fetch("small").data == b"small"
    assert s3.connections == 4


def test_a_body_that_grows_beyond_what_was_announced_is_not_read_to_its_end(s3: FaultyS3, open_s3: Open) -> None:
    s3.faults[KEY] = faulty_s3.overlong(2**30, times=1)
    store = open_s3(max_artifact_bytes=len(DATA), deadline_s=20)
    with pytest.raises(ArtifactRefused, match=f"bytes are more than {len(DATA)}"):
        store.fetch(TARGET)
    assert store.fetch(TARGET).data == DATA


def test_threads_share_one_client_and_keep_a_connection_each(s3: FaultyS3, open_s3: Open) -> None:
    store = open_s3(max_connections=8, deadline_s=20, read_timeout_s=10)
    met = threading.Barrier(8)

    def fetch(_: int) -> bytes:
        met.wait(20)
        return store.fetch(TARGET).data

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fetch, range(8))) == {DATA}
        assert set(threads.map(fetch, range(8))) == {DATA}
    assert 1 <= s3.connections <= 8
    assert s3.requests[KEY] == 16


def test_one_hanging_key_does_not_hold_up_another(s3: FaultyS3, open_s3: Open) -> None:
    opened = threading.Event()
    s3.faults[KEY] = faulty_s3.held_until(opened)
    s3.put("models/b", b"b")
    store = open_s3(read_timeout_s=20, deadline_s=20)
    with ThreadPoolExecutor(1) as thread:
        held = thread.submit(store.fetch, TARGET)
        assert store.fetch("b").data == b"b"
        assert not held.done()
        opened.set()
        assert held.result(20).data == DATA


def test_a_listing_is_read_page_by_page(open_s3: Open) -> None:
    with FaultyS3(page_size=2) as s3:
        for i in range(5):
            s3.put(f"models/eu & <co>/{i}", b"x" * i)
        s3.put("models-of-others", b"")
        listed = list(open_s3(endpoint_url=s3.url).list("eu & "))
        assert [(stored.target, stored.size) for stored in listed] == [(f"eu & <co>/{i}", i) for i in range(5)]
        assert s3.requests[LISTING] == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faulty_s3.status(403, "AccessDenied"), ArtifactForbidden),
        (faulty_s3.status(503, "SlowDown"), ArtifactUnavailable),
        (faulty_s3.hang(), ArtifactUnavailable),
        (faulty_s3.cut_short(30), ArtifactUnavailable),
        (faulty_s3.flip_byte(60), ArtifactUnavailable),
    ],
    ids=["403", "503", "hang", "cut", "damaged"],
)
def test_a_listing_that_fails_is_an_error_and_never_a_short_list(
    s3: FaultyS3, open_s3: Open, fault: Fault, kind: type[ArtifactError]
) -> None:
    s3.faults[ANY_KEY] = Fault(fault.act, times=1)
    store = open_s3()
    with pytest.raises(kind, match="s3://models/models/"):
        list(store.list())
    assert [stored.target for stored in store.list()] == [TARGET]


def test_without_credentials_a_fetch_fails_until_there_are_some(open_s3: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_s3()
    for call in (lambda: store.fetch(TARGET), lambda: list(store.list())):
        with pytest.raises(ArtifactUnavailable, match="NoCredentials"):
            call()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert store.fetch(TARGET).data == DATA


def test_without_credentials_a_public_bucket_is_asked_unsigned_when_allowed(
    s3: FaultyS3, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert open_s3(allow_anonymous=True).fetch(TARGET).data == DATA
    assert s3.access_keys == [None]


def test_credentials_are_used_where_there_are_some_though_none_are_needed(s3: FaultyS3, open_s3: Open) -> None:
    assert open_s3(allow_anonymous=True).fetch(TARGET).data == DATA
    assert s3.access_keys == ["AKIATEST"]


def test_looking_for_credentials_again_reads_no_description_of_s3_again(s3: FaultyS3, open_s3: Open) -> None:
    """Each would be 11 MB more for as long as the collector leaves the last client alone."""
    store = open_s3()
    described = []
    for _ in range(2):
        described.append(store._connected().meta.service_model.metadata)
        s3.faults[KEY] = faulty_s3.status(400, "ExpiredToken", times=1)
        with pytest.raises(ArtifactUnavailable, match="ExpiredToken"):
            store.fetch(TARGET)
    assert described[0] is described[1]


def test_credentials_that_expired_are_looked_up_again_by_the_next_call(
    s3: FaultyS3, open_s3: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_s3()
    s3.faults[KEY] = faulty_s3.status(400, "ExpiredToken", times=1)
    with pytest.raises(ArtifactUnavailable, match="ExpiredToken"):
        store.fetch(TARGET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIARENEWED")
    assert store.fetch(TARGET).data == DATA
    assert s3.access_keys[-1] == "AKIARENEWED"
