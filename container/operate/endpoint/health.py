"""`mme health`: whether the endpoint on this machine answers, as an exit code. The image's HEALTHCHECK.

The admin port is asked where there is one, and the serving port must then answer something; else /ping. Where our plugin for
MMS has not been compiled, /ping is MMS's own: 200 whatever it finds, so its words are read too.
"""

from __future__ import annotations

import argparse
import sys

from container import settings
from container.metrics.serving_port import silence_at, trouble_at
from container.operate.exits import Exit


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "health",
        help="whether the endpoint on this machine is well: exit code 0, or 1 and why",
        description="Ask the endpoint on this machine how it is: the admin port when there is one, and whether the serving "
        "port answers; else /ping.",
    )
    parser.add_argument(
        "--port", metavar="PORT", help="the endpoint's (MME_PORT, SAGEMAKER_BIND_TO_PORT; default 8080)"
    )
    parser.add_argument("--admin-port", metavar="PORT", help="its admin port (MME_ADMIN_PORT; none without it)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    try:
        admin_port = settings.read_one("admin_port", chosen.admin_port)
        admin_host = settings.read_one("admin_host", None)
        host, port = settings.read_one("host", None), settings.read_one("port", chosen.port)
    except settings.SettingInvalid as error:
        print(f"mme health: {error}", file=sys.stderr)
        return Exit.USAGE
    if admin_port is None:
        trouble = trouble_at(host, port, "/ping")
    else:
        trouble = trouble_at(admin_host, admin_port, "/healthz") or silence_at(host, port)
    print(trouble or "well")
    return Exit.FAILED if trouble else Exit.OK
