"""What is taken out of an archive or a bundle, and everything an archive may try."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import socket
import tarfile
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.archives.limits import Limits
from handler.archives.members import Member, read_artifact, read_bundle
from handler.errors import ArtifactBroken, ArtifactMissing, ArtifactRefused

LIMITS = Limits()
URI = "s3://acme/models/houston.tar.gz"


@pytest.fixture(scope="module")
def booster() -> xgboost.Booster:
    rows = np.random.RandomState(0).normal(size=(50, 3))
    return xgboost.train({"max_depth": 2, "nthread": 1}, xgboost.DMatrix(rows, label=rows[:, 0]), 2)


@pytest.fixture(scope="module")
def ubj(booster) -> bytes:
    return bytes(booster.save_raw("ubj"))


@pytest.fixture(scope="module")
def text(booster) -> bytes:
    return bytes(booster.save_raw("json"))


def tar_of(files: dict[str, bytes], mode: str = "w:gz", **more) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode, **more) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def tar_with(*infos: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for info in infos:
            tar.addfile(info, io.BytesIO(b"\0" * info.size))
    return stream.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


NAMES = ["xgboost-model", "model.bst", "./model.ubj", "a/b/c/model.bin", "./deep/er/churn.json", "whatever"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_a_booster_is_found_under_any_name_at_any_sane_depth(name, mode, ubj):
    assert read_artifact(tar_of({name: ubj}, mode), URI, LIMITS) == (Member(name.removeprefix("./"), ubj),)


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_dialect_of_tar_is_read(format_, ubj):
    name = (
        "d" * 90 + "/" + "e" * 60 + "/modél.ubj"
        if format_ != tarfile.USTAR_FORMAT
        else "d" * 90 + "/" + "e" * 60 + "/model.ubj"
    )
    assert read_artifact(tar_of({name: ubj}, format=format_), URI, LIMITS) == (Member(name, ubj),)


def test_a_booster_by_itself_is_an_artifact(ubj, text, booster):
    for data in (ubj, text, pickle.dumps(booster)):
        assert read_artifact(data, "s3://acme/models/churn.ubj", LIMITS) == (Member("churn.ubj", data),)
        assert read_artifact(gzip.compress(data), "s3://acme/churn.gz", LIMITS) == (Member("churn.gz", data),)


def test_other_small_files_do_not_confuse_it(ubj):
    files = {
        "README.md": b"# our model\nxgboost " * 20,
        "metadata.json": b'{"learner": "xgboost", "version": [1, 2, 3], "trees": 100}',
        "features.json": b'["a", "b"]',
        "feature_names.txt": b"a\nb\n",
        "._xgboost-model": ubj,
        ".DS_Store": b"\0\0\0\1Bud1",
        "__MACOSX/._model.ubj": ubj,
        "scaler.pkl": pickle.dumps({"mean": [1.0]}),
        "empty": b"",
        "xgboost-model": ubj,
    }
    assert read_artifact(tar_of(files), URI, LIMITS) == (Member("xgboost-model", ubj),)


def test_a_saved_configuration_is_not_taken_for_a_booster(booster, text):
    files = {"config.json": booster.save_config().encode(), "model.json": text}
    assert read_artifact(tar_of(files), URI, LIMITS) == (Member("model.json", text),)


def test_folds_are_returned_in_their_order(ubj, text):
    files = {f"xgboost-model-{n}": text if n == 2 else ubj for n in (10, 3, 0, 2, 1, 4, 5, 6, 7, 8, 9)}
    members = read_artifact(tar_of(files), URI, LIMITS)
    assert [member.name for member in members] == [f"xgboost-model-{n}" for n in range(11)]
    assert members[2].data == text


@pytest.mark.parametrize(
    "names",
    [
        ["model.ubj", "model.json"],
        ["xgboost-model", "xgboost-model-0"],
        ["xgboost-model-0", "xgboost-model-2"],
        ["xgboost-model-1", "xgboost-model-2"],
        ["a/xgboost-model-0", "a/xgboost-model-1"],
        ["xgboost-model-0", "xgboost-model-01"],
        ["a/model.ubj", "b/model.ubj"],
    ],
)
def test_several_boosters_that_are_no_k_fold_ensemble_are_ambiguous(names, ubj):
    with pytest.raises(ArtifactRefused, match="no k-fold ensemble"):
        read_artifact(tar_of(dict.fromkeys(names, ubj)), URI, LIMITS)


def test_below_the_top_level_nothing_counts_when_the_top_has_a_booster(ubj, text):
    files = {"xgboost-model": ubj, "checkpoints/xgboost-checkpoint.0": text}
    assert read_artifact(tar_of(files), URI, LIMITS) == (Member("xgboost-model", ubj),)


def test_an_archive_with_inference_code_is_refused_unless_told_otherwise(ubj):
    blob = tar_of({"code/inference.py": b"import os", "code/requirements.txt": b"", "xgboost-model": ubj})
    with pytest.raises(ArtifactRefused, match=r"code/inference\.py"):
        read_artifact(blob, URI, LIMITS)
    assert read_artifact(blob, URI, Limits(ignore_code=True)) == (Member("xgboost-model", ubj),)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../model.ubj", "a/../../model.ubj", "a/..", "a\\..\\model.ubj", "C:\\model.ubj"]
)
def test_a_name_that_leads_out_is_refused(name, ubj):
    with pytest.raises(ArtifactRefused, match="leads out"):
        read_artifact(tar_of({"xgboost-model": ubj, name: b"x"}), URI, LIMITS)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "fifo"),
        (b"S", "sparse"),
        (b"?", "type"),
    ],
)
def test_links_devices_and_fifos_are_refused_by_their_kind(kind, word):
    with pytest.raises(ArtifactRefused, match=word):
        read_artifact(tar_with(special("xgboost-model", kind, "/etc/passwd")), URI, LIMITS)


def test_a_member_given_twice_is_refused(ubj):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("xgboost-model", "./xgboost-model"):
            info = tarfile.TarInfo(name)
            info.size = len(ubj)
            tar.addfile(info, io.BytesIO(ubj))
    with pytest.raises(ArtifactRefused, match="twice"):
        read_artifact(stream.getvalue(), URI, LIMITS)


@pytest.mark.parametrize(("magic", "word"), [(b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")])
def test_other_compressions_are_refused_with_a_clear_word(magic, word):
    for blob in (magic + b"x" * 600, gzip.compress(magic + b"x" * 600)):
        with pytest.raises(ArtifactRefused, match=word):
            read_artifact(blob, URI, LIMITS)


def test_a_zip_is_refused_with_a_clear_word(ubj):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.ubj", ubj)
    with pytest.raises(ArtifactRefused, match="zip"):
        read_artifact(stream.getvalue(), URI, LIMITS)


@pytest.mark.parametrize(
    "blob",
    [b"", b"\x1f\x8b", b"x", b"\0" * 10240, b"hello " * 200, gzip.compress(b""), tar_of({})],
    ids=range(7),  # the bytes hold the time, and pytest-xdist wants the same names in all its processes
)
def test_what_holds_no_booster_is_broken(blob):
    with pytest.raises(ArtifactBroken):
        read_artifact(blob, URI, LIMITS)


def test_an_archive_without_a_booster_says_so(ubj):
    with pytest.raises(ArtifactBroken, match="none of its 2 files"):
        read_artifact(tar_of({"README": b"hello", "notes.txt": b"world"}), URI, LIMITS)


def test_a_damaged_booster_is_handed_on_by_its_name_so_that_the_importer_can_say_what_is_wrong():
    (member,) = read_artifact(tar_of({"xgboost-model": b"\x07damaged", "README": b"hello"}), URI, LIMITS)
    assert member == Member("xgboost-model", b"\x07damaged")


@pytest.mark.parametrize("cut", [1, 10, 50, 200, -1, -4, -8])
def test_a_truncated_archive_is_broken(cut, ubj):
    for blob in (tar_of({"xgboost-model": ubj}), gzip.compress(ubj)):
        with pytest.raises(ArtifactBroken):
            read_artifact(blob[:cut], URI, LIMITS)


def test_a_plain_tar_cut_at_the_edge_of_a_member_is_broken(ubj):
    plain = tar_of({"xgboost-model-0": ubj, "xgboost-model-1": ubj}, "w")
    edge = 512 + -(-len(ubj) // 512) * 512
    for cut in (edge, edge + 512, edge + 700):
        with pytest.raises(ArtifactBroken, match=r"truncated|left"):
            read_artifact(plain[:cut], URI, LIMITS)


@pytest.mark.parametrize("place", [3, 12, 40, -6, -2])
def test_a_changed_byte_in_a_gzip_is_noticed(place, ubj):
    blob = bytearray(tar_of({"xgboost-model": ubj}))
    blob[place] ^= 0xFF
    with contextlib.suppress(ArtifactBroken):  # the header's time stamp and name are not covered by the checksum
        assert read_artifact(bytes(blob), URI, LIMITS) == (Member("xgboost-model", ubj),)


def test_trailing_garbage_is_broken_and_zero_padding_is_not(ubj):
    blob = tar_of({"xgboost-model": ubj})
    assert read_artifact(blob + b"\0" * 1000, URI, LIMITS)
    for garbage in (b"x", b"\0\0x", b"\x1f\x8bxx"):
        with pytest.raises(ArtifactBroken):
            read_artifact(blob + garbage, URI, LIMITS)
    with pytest.raises(ArtifactBroken, match="behind its end marker"):
        read_artifact(gzip.compress(gzip.decompress(blob) + b"x"), URI, LIMITS)


def test_a_gzip_of_several_members_is_one_stream(ubj):
    plain = tar_of({"xgboost-model": ubj}, "w")
    blob = gzip.compress(plain[:700]) + gzip.compress(plain[700:])
    assert read_artifact(blob, URI, LIMITS) == (Member("xgboost-model", ubj),)


def test_a_gzip_bomb_is_refused_by_its_ratio_without_being_unpacked():
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(b"\0" * (1 << 20)) for _ in range(300)) + squeeze.flush()
    tracemalloc.start()
    with pytest.raises(ArtifactRefused, match="200 times"):
        read_artifact(bomb, URI, LIMITS)
    assert tracemalloc.get_traced_memory()[1] < (len(bomb) * 200) * 2.5
    tracemalloc.stop()
    with pytest.raises(ArtifactRefused, match="more than 1000000 bytes"):
        read_artifact(bomb, URI, Limits(unpacked_max_bytes=1_000_000))


def test_ten_thousand_members_are_refused_at_once():
    blob = tar_of({f"f{n}": b"" for n in range(10_000)})
    begun = time.perf_counter()
    with pytest.raises(ArtifactRefused, match="1000 members"):
        read_artifact(blob, URI, LIMITS)
    assert time.perf_counter() - begun < 10


def test_limits_on_sizes_names_and_depth_are_named(ubj):
    for limits, files, word in (
        (Limits(artifact_max_bytes=100), {"model.ubj": ubj}, "limit is 100"),
        (Limits(max_depth=3), {"a/b/c/model.ubj": ubj}, "levels deep"),
        (Limits(name_max_bytes=20), {"m" * 30: ubj}, "name has 30"),
    ):
        with pytest.raises(ArtifactRefused, match=word):
            read_artifact(tar_of(files), URI, limits)


def header(name: bytes = b"xgboost-model", size: bytes = b"%011o\0" % 4, kind: bytes = b"0") -> bytes:
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108], head[124 : 124 + len(size)], head[156:157], head[257:265] = b"0000644\0", size, kind, b"ustar\x0000"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


@pytest.mark.parametrize(
    "size",
    [
        b"77777777777\0",
        b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7,
        b"\xff" * 12,
        b"\xc0" + b"\0" * 11,
        b"-0000000001\0",
        b"0x000000010\0",
    ],
)
def test_a_size_that_is_huge_negative_or_no_number_is_broken(size):
    for kind in (b"0", b"L", b"x", b"5"):
        with pytest.raises(ArtifactBroken):
            read_artifact(header(size=size, kind=kind) + b"\0" * 2048, URI, LIMITS)


@pytest.mark.parametrize(
    "record",
    [
        b"0 path=x\n",
        b"5 path=x\n",
        b"99999 path=x\n",
        b"path=x\n",
        b"-9 path=x\n",
        b"13 size=9999\n",
        b"22 GNU.sparse.major=1\n",
        b"\0" * 30,
    ],
)
def test_a_damaged_or_tricky_pax_header_is_broken(record):
    blob = (
        header(kind=b"x", size=b"%011o\0" % len(record))
        + record.ljust(512, b"\0")
        + header()
        + b"data".ljust(512, b"\0")
        + b"\0" * 1024
    )
    with pytest.raises(ArtifactBroken, match="pax"):
        read_artifact(blob, URI, LIMITS)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_archives_give_members_or_one_of_two_errors(data):
    blob = bytearray(tar_of({"xgboost-model": b"{L" + b"\0" * 7 + b"\7learner" + b"x" * 50, "README": b"hello"}, "w"))
    for _ in range(data.draw(st.integers(1, 6))):
        blob[data.draw(st.integers(0, 2048))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):  # with a sound checksum the damage gets past the first look
        blob[148:156] = b" " * 8
        blob[148:156] = b"%06o\0 " % sum(blob[:512])
    with contextlib.suppress(ArtifactBroken, ArtifactRefused):
        read_artifact(bytes(blob), URI, LIMITS)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=1500))
def test_any_bytes_give_members_or_one_of_two_errors(blob):
    for data in (blob, b"\x1f\x8b\x08" + blob):
        with contextlib.suppress(ArtifactBroken, ArtifactRefused):
            read_artifact(data, URI, LIMITS)


# ------------------------------------------------------------------------------------------------------------ bundles


@pytest.fixture
def bundle(tmp_path: Path, ubj) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "xgboost-model").write_bytes(ubj)
    return folder


def test_a_bundle_is_read_by_the_rules_of_an_archive(bundle, ubj):
    (bundle / "README.md").write_text("hello")
    (bundle / ".hidden").write_bytes(ubj)
    (bundle / "__MACOSX").mkdir()
    (bundle / "__MACOSX" / "model.ubj").write_bytes(ubj)
    (bundle / "checkpoints").mkdir()
    (bundle / "checkpoints" / "one.ubj").write_bytes(ubj)
    assert read_bundle(bundle, LIMITS) == (Member("xgboost-model", ubj),)


def test_folds_of_a_bundle_are_returned_in_their_order(bundle, ubj):
    (bundle / "xgboost-model").rename(bundle / "xgboost-model-1")
    (bundle / "xgboost-model-0").write_bytes(ubj)
    assert [member.name for member in read_bundle(bundle, LIMITS)] == ["xgboost-model-0", "xgboost-model-1"]


def test_a_bundle_that_is_not_there_is_missing(tmp_path):
    with pytest.raises(ArtifactMissing):
        read_bundle(tmp_path / "nowhere", LIMITS)


def test_code_in_a_bundle_is_refused(bundle):
    (bundle / "code").mkdir()
    (bundle / "code" / "inference.py").write_text("")
    with pytest.raises(ArtifactRefused, match="code"):
        read_bundle(bundle, LIMITS)


@pytest.mark.parametrize("target", ["/etc/passwd", "xgboost-model", "/", ".", "/dev/zero", "nowhere"])
def test_no_link_in_a_bundle_is_followed(bundle, target):
    (bundle / "model.ubj").symlink_to(target)
    with pytest.raises(ArtifactRefused, match="symbolic link"):
        read_bundle(bundle, LIMITS)


def test_no_fifo_or_socket_in_a_bundle_is_opened(bundle):
    os.mkfifo(bundle / "model.ubj")
    with pytest.raises(ArtifactRefused, match="fifo"):
        read_bundle(bundle, LIMITS)
    (bundle / "model.ubj").unlink()
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(bundle)  # the address of a unix socket is short
        try:
            listener.bind("model.ubj")
        finally:
            os.chdir(here)
        with pytest.raises(ArtifactRefused, match="socket"):
            read_bundle(bundle, LIMITS)


def test_a_bundle_has_limits_too(bundle):
    with pytest.raises(ArtifactRefused, match="more than 100 bytes"):
        read_bundle(bundle, Limits(unpacked_max_bytes=100))
    for n in range(5):
        (bundle / f"f{n}").write_bytes(b"")
    with pytest.raises(ArtifactRefused, match="members"):
        read_bundle(bundle, Limits(max_members=3))
    deep = bundle / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    with pytest.raises(ArtifactRefused, match="levels deep"):
        read_bundle(bundle, Limits(max_depth=3))


def test_reading_a_bundle_leaves_no_descriptor_open(bundle):
    (bundle / "a" / "b").mkdir(parents=True)
    (bundle / "z").symlink_to("a")
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(ArtifactRefused):
            read_bundle(bundle, LIMITS)
    assert set(os.listdir("/proc/self/fd")) == before
