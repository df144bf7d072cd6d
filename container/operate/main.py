"""The `mme` command.

Rule: facts go to stdout, progress and trouble to stderr, and the next step comes last.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from container import settings


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="mme", description="Serve thousands of XGBoost models from one endpoint, the busy ones from memory."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the artifacts below an S3 prefix or in a directory")
    settings.add_flags(serve)
    serve.set_defaults(run=_serve)
    chosen = parser.parse_args(arguments)
    run = chosen.run
    status: int = run(chosen)
    return status


def _serve(chosen: argparse.Namespace) -> int:
    # Imported here so that the other commands do not pay for it.
    from container.launch.supervisor import Supervisor
    from handler.stores import LocationInvalid, parse_location

    try:
        chosen_settings = settings.read(vars(chosen))
        if not chosen_settings.hosted:
            parse_location(chosen_settings.models)
    except (settings.SettingInvalid, LocationInvalid) as error:
        print(f"mme serve: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(
        level=chosen_settings.log_level, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    return Supervisor(chosen_settings).run()


if __name__ == "__main__":
    sys.exit(main())
