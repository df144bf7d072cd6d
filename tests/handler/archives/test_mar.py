"""Multi Model Server's own archives, and what they may try."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler.archives.limits import Limits
from handler.archives.members import Member, read_artifact
from handler.errors import ArtifactBroken, ArtifactError, ArtifactRefused
from tests.rig import boosters

URI = "/models/houston.mar"
UBJ = boosters.document(boosters.segment(1))


def mar(files: dict[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_booster_is_read_and_mms_own_folder_is_not(method: int) -> None:
    blob = mar({"MAR-INF/MANIFEST.json": b"{ any", "MAR-INF/code.py": b"x", "xgboost-model": UBJ}, method)
    assert read_artifact(blob, URI, Limits()) == (Member("xgboost-model", UBJ),)


def test_only_what_is_named_so_is_read() -> None:
    with pytest.raises(ArtifactRefused, match=r"publish a \.tar\.gz"):
        read_artifact(mar({"xgboost-model": UBJ}), "/models/houston.zip", Limits())


@pytest.mark.parametrize("name", ["../xgboost-model", "/xgboost-model", "a/../../xgboost-model", "a\\xgboost-model"])
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(ArtifactRefused, match="leads out"):
        read_artifact(mar({"xgboost-model": UBJ, name: UBJ}), URI, Limits())


def test_a_link_is_refused() -> None:
    link = zipfile.ZipInfo("xgboost-model")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(ArtifactRefused, match="symbolic link"):
        read_artifact(mar({link: b"/etc/passwd"}), URI, Limits())


def test_bombs_and_crowds_are_refused() -> None:
    with pytest.raises(ArtifactRefused, match="unpacks to more"):
        read_artifact(mar({"xgboost-model": bytes(64 << 20)}), URI, Limits())
    with pytest.raises(ArtifactRefused, match="more than 3 members"):
        read_artifact(mar({f"{number}.txt": b"" for number in range(4)}), URI, Limits(max_members=3))


def test_an_encrypted_member_is_broken() -> None:
    blob = bytearray(mar({"xgboost-model": UBJ}))
    blob[blob.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArtifactBroken, match="encrypted"):
        read_artifact(bytes(blob), URI, Limits())


@given(st.data())
def test_damage_is_told_or_does_no_harm(data: st.DataObject) -> None:
    blob = bytearray(mar({"MAR-INF/MANIFEST.json": b"{}", "xgboost-model": UBJ}))
    for _ in range(data.draw(st.integers(1, 6))):
        blob[data.draw(st.integers(4, len(blob) - 1))] = data.draw(st.integers(0, 255))
    del blob[data.draw(st.integers(len(blob) // 2, len(blob))) :]
    try:
        members = read_artifact(bytes(blob), URI, Limits())
    except ArtifactError:
        return
    assert [member.data for member in members] == [UBJ]
