"""`mme health`: whether the endpoint on this machine answers, as an exit code. The image's HEALTHCHECK.

The admin port is asked where there is one, else /ping. Where our plugin for MMS has not been compiled, /ping is MMS's own:
200 whatever it finds, so its words are read too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys

from container import settings
from container.link.loopback import asked_at
from container.operate.exits import Exit

TIMEOUT_S = 2.0  # SageMaker's own for /ping
# What MMS says when no worker answers. "Partial Healthy" is no reason to replace a container.
_MMS_IS_SICK = "Unhealthy"


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "health",
        help="whether the endpoint on this machine is well: exit code 0, or 1 and why",
        description="Ask the endpoint on this machine how it is: the admin port when there is one, else /ping.",
    )
    parser.add_argument(
        "--port", metavar="PORT", help="the endpoint's (MME_PORT, SAGEMAKER_BIND_TO_PORT; default 8080)"
    )
    parser.add_argument("--admin-port", metavar="PORT", help="its admin port (MME_ADMIN_PORT; none without it)")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    try:
        admin_port = settings.read_one("admin_port", chosen.admin_port)
        if admin_port is not None:
            host, port, path = settings.read_one("admin_host", None), admin_port, "/healthz"
        else:
            host, port, path = settings.read_one("host", None), settings.read_one("port", chosen.port), "/ping"
    except settings.SettingInvalid as error:
        print(f"mme health: {error}", file=sys.stderr)
        return Exit.USAGE
    trouble = trouble_at(asked_at(host), port, path)
    print(trouble or "well")
    return Exit.FAILED if trouble else Exit.OK


def trouble_at(host: str, port: int, path: str) -> str:
    """What is wrong, in words; empty when nothing is."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(64 * 1024)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()
    text = body.decode(errors="replace").strip()
    if response.status != http.HTTPStatus.OK:
        return f"{path} says {response.status}: {text}"
    return f"{path} says {text}" if _mms_status(body) == _MMS_IS_SICK else ""


def _mms_status(body: bytes) -> str | None:
    """What MMS's own /ping says; None when it is not MMS that answered."""
    try:
        return str(json.loads(body)["status"])
    except (ValueError, KeyError, TypeError):
        return None
