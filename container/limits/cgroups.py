"""Where the kernel keeps the limits of the container that this process is in.

Source: cgroups(7); the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def folders_v2(root: Path) -> Iterator[Path]:
    """Of this process's group in cgroup v2 and of all above it; beside cgroup v1 it is mounted one below."""
    group = _own_groups(root).get("")
    if group is not None:
        yield from _up(root / "sys/fs/cgroup", group)
        yield from _up(root / "sys/fs/cgroup/unified", group)


def folders_v1(root: Path, controller: str) -> Iterator[Path]:
    """Of this process's group for a controller in cgroup v1 and of all above it."""
    group = _own_groups(root).get(controller)
    if group is not None:
        yield from _up(root / "sys/fs/cgroup" / controller, group)


def _own_groups(root: Path) -> dict[str, str]:
    """This process's cgroup by controller; v2 is the one without a name. Lines are `4:memory:/a/b` and `0::/a/b`."""
    groups: dict[str, str] = {}
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return groups
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _up(mount: Path, group: str) -> Iterator[Path]:
    """From a group to the mount. In a container the path may be the host's; the mount's root is ours."""
    here = mount / group.lstrip("/")
    for folder in (here, *here.parents):
        if mount not in (folder, *folder.parents):
            break
        yield folder
