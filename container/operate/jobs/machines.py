"""What a job runs on, as the flags of every command that starts one say it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from container.operate.troubles import Misused


@dataclass(frozen=True, slots=True)
class Machines:
    """What a job runs on. max_s: of its work; spot jobs may wait as long again for machines."""

    role: str
    image: str
    instance_type: str
    n_instances: int
    volume_gb: int
    max_s: int
    is_spot: bool


def add_machines(group: Any) -> None:
    group.add_argument("--role", metavar="ARN", help="of the job")
    group.add_argument("--image", metavar="URI", help="this project's image, with pyarrow in it")
    group.add_argument("--instance-type", default="ml.c7i.4xlarge", metavar="TYPE", help="default %(default)s")
    group.add_argument("--instances", type=int, default=1, metavar="N", help="hosts that share the work; default 1")
    group.add_argument("--volume-gb", type=int, default=50, metavar="GB", help="disk of each host; default %(default)s")
    group.add_argument("--max-hours", type=float, default=12.0, metavar="H", help="the job's; default %(default)s")
    group.add_argument("--spot", action="store_true", help="managed spot: cheaper, and may be interrupted")


def machines_of(chosen: argparse.Namespace) -> Machines:
    """Raises Misused."""
    if not chosen.role or not chosen.image:
        raise Misused("a job needs --role and --image")
    if chosen.instances < 1 or chosen.max_hours <= 0 or chosen.volume_gb < 1:
        raise Misused("--instances, --max-hours and --volume-gb are above 0")
    max_s = round(chosen.max_hours * 3600)
    return Machines(
        chosen.role, chosen.image, chosen.instance_type, chosen.instances, chosen.volume_gb, max_s, chosen.spot
    )
