"""`mme models`: what a running endpoint holds in memory, asked of its admin port."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from container.operate.exits import Exit

TIMEOUT_S = 10.0
SORTS = ("name", "bytes", "age", "idle", "hits")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "models",
        help="list the models a running endpoint holds in memory",
        description="List the models a running endpoint holds in memory. It must have been started with --admin-port.",
        epilog="exit codes: 0 listed, 1 the port answered something else, 6 nobody answers at the address",
    )
    parser.add_argument(
        "--admin",
        default="http://127.0.0.1:9090",
        metavar="URL",
        help="the endpoint's admin port, or a fleet's page; default %(default)s",
    )
    parser.add_argument("--contains", default="", metavar="TEXT", help="only models whose key holds this")
    parser.add_argument("--sort", choices=SORTS, default="hits", help="default %(default)s")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many; default %(default)s")
    parser.add_argument("--json", action="store_true", help="print what the port answers, as it is")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    query = urllib.parse.urlencode({"contains": chosen.contains, "sort": chosen.sort, "limit": chosen.limit})
    url = f"{chosen.admin.rstrip('/')}/models?{query}"
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        print(f"mme models: {chosen.admin} is no http address", file=sys.stderr)
        return Exit.USAGE
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310  http and https only, see above
            page = json.load(answer)
    except urllib.error.HTTPError as error:
        print(f"mme models: {url} answered {error.code}: {error.read(500).decode(errors='replace')}", file=sys.stderr)
        return Exit.FAILED
    except OSError as error:
        print(f"mme models: nobody answers at {chosen.admin}: {error}; start with --admin-port", file=sys.stderr)
        return Exit.UNREACHABLE
    if chosen.json:
        print(json.dumps(page, indent=2))
    else:
        _print(page)
    return Exit.OK


def _print(page: dict[str, Any]) -> None:
    models = page["models"]
    width = max([len(model["name"]) for model in models] + [5])
    is_fleet = any("replicas" in model for model in models)
    on = "on" if is_fleet else ""
    print(f"{'model':{width}}  {'KiB':>8}  {'hits':>8}  {'age':>8}  {'idle':>8}  {'pinned':6}  {on}".rstrip())
    for model in models:
        size = f"{model['n_bytes'] / 1024:,.0f}"
        age, idle = _ago(model["age_s"]), _ago(model["idle_s"])
        pinned = "pinned" if model["is_pinned"] else ""
        on = ", ".join(model.get("replicas", ()))
        print(
            f"{model['name']:{width}}  {size:>8}  {model['hits']:>8,}  {age:>8}  {idle:>8}  {pinned:6}  {on}".rstrip()
        )
    print(f"{len(models)} of {page['total']} in memory")


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
