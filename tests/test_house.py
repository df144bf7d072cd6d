"""The walls of the house: which room may import which, who reads the environment and who makes AWS clients."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("handler/**/*.py"), *ROOT.glob("container/**/*.py")])
CONTAINER = [path for path in sorted(ROOT.glob("container/**/*.py")) if path != ROOT / "container/__init__.py"]

# Which rooms of container/ each may import besides itself. `handler` is all of handler/.
ROOMS: dict[str, set[str]] = {
    "environments": set(),
    "limits": set(),
    "log_stream": set(),
    "link": {"handler.files", "handler.messages"},
    "settings": {"handler.attributes", "handler.errors", "handler.archives.limits"},
    "examine": {"limits", "environments", "handler"},
    "assembly": {"settings", "examine", "limits", "handler"},
    "metrics": {"link", "handler"},
    "launch": {"link", "limits", "settings", "environments", "handler.errors"},
    "capture": {"handler"},
    "traces": {"handler"},
    "worker": {
        "assembly",
        "capture",
        "examine",
        "limits",
        "link",
        "log_stream",
        "metrics",
        "settings",
        "environments",
        "traces",
        "handler",
    },
    "platform": {"settings", "environments", "handler"},
    "image": {"handler"},
    "operate": {
        *(
            "assembly",
            "capture",
            "environments",
            "examine",
            "limits",
            "link",
            "log_stream",
            "metrics",
            "platform",
            "settings",
            "handler",
        ),
    },
}
MAY_LAUNCH = ROOT / "container/operate/main.py"


def imported_names(path: Path) -> Iterator[str]:
    """Modules; of `from container import settings`, container.settings."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            is_package = node.module in {"container", "handler"}
            yield from (f"{node.module}.{alias.name}" for alias in node.names) if is_package else [node.module]


def room_of(name: str) -> str:
    """container.worker.hosted.leases is of the room `worker`."""
    return name.split(".")[1]


def walls_broken(path: Path, root: Path = ROOT) -> list[str]:
    """What a file of container/ imports that its room may not."""
    own = path.relative_to(root).with_suffix("").parts[1]
    allowed = ROOMS[own]
    broken = []
    for name in imported_names(path):
        if name.startswith("handler"):
            is_allowed = "handler" in allowed or any(name == one or name.startswith(f"{one}.") for one in allowed)
        elif name.startswith("container."):
            room = room_of(name)
            is_allowed = room == own or room in allowed or (room == "launch" and path == MAY_LAUNCH)
        else:
            continue
        if not is_allowed:
            broken.append(name)
    return broken


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sorted(ROOT.glob("handler/**/*.py")), ids=shown)
def test_handler_never_imports_container(path: Path) -> None:
    assert not [name for name in imported_names(path) if name.split(".")[0] == "container"]


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("container/*/**/*.py")) + sorted(ROOT.glob("container/[a-z]*.py")), ids=shown
)
def test_a_room_imports_what_the_table_says(path: Path) -> None:
    assert walls_broken(path) == []


def test_a_broken_wall_is_found(tmp_path: Path) -> None:
    path = tmp_path / "container" / "platform" / "instance.py"
    path.parent.mkdir(parents=True)
    path.write_text("from container import settings\nfrom container.worker import runtime\nimport handler.errors\n")
    assert walls_broken(path, tmp_path) == ["container.worker"]
    path = tmp_path / "container" / "link" / "wire.py"
    path.parent.mkdir(parents=True)
    path.write_text("from handler.messages import Request\nfrom handler.dispatch import Dispatcher\n")
    assert walls_broken(path, tmp_path) == ["handler.dispatch"]


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_only_settings_and_environments_read_the_environment(path: Path) -> None:
    if path in {ROOT / "container/settings.py", ROOT / "container/environments.py"}:
        return
    tree = ast.parse(path.read_text())
    reads = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"} and isinstance(node.value, ast.Name)
    ]
    assert not reads, f"{path} reads the environment at lines {reads}; settings.py is the place"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_only_one_place_makes_aws_clients(path: Path) -> None:
    if path != ROOT / "handler/aws.py":
        made = [name for name in imported_names(path) if name.split(".")[0] == "boto3"]
        assert not made, f"{path} imports boto3; handler/aws.py is the place"


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_whoever_expects_what_is_no_json_expects_what_is_nested_too_deep(path: Path) -> None:
    careless = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Try)
        and any(ast.unparse(one) in {"json.loads", "json.load"} for part in node.body for one in ast.walk(part))
        and any("ValueError" in words for words in _expected(node))
        and not any("RecursionError" in words for words in _expected(node))
    ]
    assert not careless, f"{path}: json.loads raises RecursionError too; see lines {careless}"


def _expected(node: ast.Try) -> list[str]:
    return [ast.unparse(handler.type) for handler in node.handlers if handler.type is not None]
