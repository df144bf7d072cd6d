"""The wheel, built from a clone and installed where there is no compiler: it serves with the walker and the door."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.flow.test_hosted import invoke, is_answer_of, load, unload
from tests.rig import boosters
from tests.rig.clone import TOOLS, build, make_clone, path_of
from tests.rig.endpoint import Endpoint, free_port

COMPILERS = ("javac", "cc", "gcc", "as", "ld")
pytestmark = [
    pytest.mark.skipif(any(shutil.which(name) is None for name in COMPILERS), reason="no wheel without compilers"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clone(tmp_path_factory.mktemp("clone"), Path(sys.prefix))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with compilers."""
    return path_of(tmp_path_factory.mktemp("tools") / "bin", (*TOOLS, *COMPILERS))


@pytest.fixture(scope="module")
def wheel(clone: Path, tools: str) -> Path:
    done = build(clone, "wheel", PATH=tools)
    assert done.returncode == 0, done.stderr
    (path,) = (clone / "dist").iterdir()
    assert done.stdout.splitlines()[0] == f"built     dist/{path.name}"
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh venv with the wheel in it. What it runs on is read from where setup has put it, our own code is not: Python
    reads no .pth file of a folder that a .pth file names, and such a one is how an editable install is found."""
    venv = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        venv / "bin/python",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, wheel], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (packages,) = Path(sys.prefix).glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    return venv


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without a compiler, or anything else."""
    return {"PATH": str(tmp_path)}


def mapped(pid: int) -> set[str]:
    """The files in a process's memory."""
    return {
        fields[5] for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if len(fields := line.split()) == 6
    }


def read(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def test_its_name_says_where_it_runs_and_everything_compiled_is_in_it(wheel: Path) -> None:
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert wheel.name.split("-")[4].startswith("manylinux_2_")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"handler/libhandler.so", "container/launch/plugin/classes/HostedServer.class"} <= set(names)
    assert [name for name in names if name.endswith((".java", ".c", ".md", "build.sh")) or "image/" in name] == []


def test_the_same_sources_make_the_same_bytes(wheel: Path, clone: Path, tools: str) -> None:
    before = wheel.read_bytes()
    (clone / ".venv/.compiled").unlink()
    (clone / "handler/libhandler.so").unlink()
    assert build(clone, "wheel", "again", PATH=tools).returncode == 0
    assert (clone / "again" / wheel.name).read_bytes() == before


def test_without_a_java_compiler_there_is_no_wheel(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    clone = make_clone(tmp_path_factory.mktemp("clone"), Path(sys.prefix))
    done = build(clone, "wheel", PATH=path_of(tmp_path / "bin", {*TOOLS, *COMPILERS} - {"javac"}))
    assert (done.returncode, done.stdout) == (1, "")
    assert "install a JDK" in done.stderr.splitlines()[-1]
    assert not (clone / "dist").exists()


def test_standalone_walks_models_and_answers_pings_itself(
    installed: Path, segments: Path, scratch: Path, nowhere: dict[str, str]
) -> None:
    admin = f"http://127.0.0.1:{free_port()}"
    flags = ("--admin-port", admin.rpartition(":")[2])
    mme = [installed / "bin/mme"]
    with Endpoint(segments, scratch, *flags, environment=nowhere, root=scratch.parent, mme=mme) as endpoint:
        rows = boosters.rows(1, 6)
        reply = endpoint.post("us/1.tar.gz", ",".join(map(str, rows[0].tolist())))
        expected = float(boosters.expected(boosters.segment(1), rows)[0, 0])
        assert (reply.status, float(reply.body)) == (200, pytest.approx(expected))
        (library,) = installed.glob("lib/python*/site-packages/handler/libhandler.so")
        assert str(library) in mapped(endpoint.runtime)
        (model,) = read(f"{admin}/models")["models"]
        assert model["n_bytes"] < len(boosters.document(boosters.segment(1)))  # a booster takes 1.4 times as much
        assert read(f"http://127.0.0.1:{endpoint.port}/execution-parameters")["MaxPayloadInMB"] > 0
        assert not [line for line in endpoint.log if "compiled" in line]


def test_hosted_mode_has_its_door(installed: Path, tmp_path: Path, scratch: Path, nowhere: dict[str, str]) -> None:
    (tmp_path / "xgboost-model").write_bytes(boosters.document(boosters.segment(2)))
    with Endpoint(None, scratch, environment=nowhere, root=scratch.parent, mme=[installed / "bin/mme"]) as endpoint:
        command = Path(f"/proc/{endpoint.jvm}/cmdline").read_text().split("\0")
        assert "HostedServer" in command
        assert any(f":{installed}/" in word for word in command)
        assert load(endpoint, "two", tmp_path).status == 200
        assert is_answer_of(2, invoke(endpoint, "two"))
        assert unload(endpoint, "two").status == 200
