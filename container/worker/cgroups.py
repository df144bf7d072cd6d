"""Where the kernel keeps the limits of the container that this process is in.

Source: cgroups(7); the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def own_groups(root: Path) -> dict[str, str]:
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


def folders(mount: Path, group: str) -> Iterator[Path]:
    """Of a group and of all groups above it. In a container the path may be the host's; the mount's root is ours."""
    here = mount / group.lstrip("/")
    for folder in (here, *here.parents):
        if mount not in (folder, *folder.parents):
            break
        yield folder
