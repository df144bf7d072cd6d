"""`mme fleet`: what a balancer needs to send each model's calls where the model is, and a whole fleet on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from container import environments
from container.operate.exits import CommandFailed, Exit
from container.operate.fleet.replicas import ALL_LOAD_PERCENT, HOT_LOAD_PERCENT, Fleet, parse_address, parse_replicas
from container.operate.troubles import Misused

BALANCERS = {
    "haproxy": "HAProxy's configuration, 2.6 or later",
    "envoy": "Envoy's configuration, as JSON",
    "nginx": "nginx's configuration; it has no bound on a hot model's replica and no health checks",
}
EPILOG = """\
A call's target, in X-Amzn-SageMaker-Target-Model or as TargetModel in the custom attributes, is the key: each model is in one
replica's memory, so that n replicas hold n times as many models and not n copies. A model that is asked for too often for one
replica spills to the next ones.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fleet = commands.add_parser(
        "fleet", help="replicas that share the models: a balancer's configuration, or all of it here"
    )
    kinds = fleet.add_subparsers(dest="kind", required=True, metavar="KIND")
    for kind, text in BALANCERS.items():
        parser = _parser(kinds, kind, f"print {text}")
        _add_replicas(parser)
        parser.set_defaults(run=lambda chosen: _guarded(_print, chosen))
    parser = _parser(
        kinds, "kubernetes", "print manifests: replicas, HAProxy before them, and what scales and guards them"
    )
    parser.add_argument("--name", default="multi-model-endpoint", help="of everything; default %(default)s")
    parser.add_argument("--namespace", default="default", metavar="NAME", help="default %(default)s")
    parser.add_argument(
        "--models", default="s3://acme-models/prod/", metavar="LOC", help="s3://bucket/prefix/; default %(default)s"
    )
    parser.add_argument("--image", metavar="REF", help="repository and digest, as ./build.sh push prints them")
    parser.add_argument("--replicas", type=int, default=4, metavar="N", help="at least; default %(default)s")
    parser.add_argument("--most", type=int, default=12, metavar="N", help="replicas at most; default %(default)s")
    parser.add_argument("--memory", default="4Gi", metavar="SIZE", help="of each replica; default %(default)s")
    _add_load(parser)
    parser.set_defaults(run=lambda chosen: _guarded(_kubernetes, chosen))
    parser = _parser(kinds, "local", "run replicas, a balancer and their page on this machine until Ctrl-C")
    parser.add_argument("--models", required=True, metavar="LOC", help="s3://bucket/prefix/ or a directory")
    parser.add_argument("--replicas", type=int, default=4, metavar="N", help="default %(default)s")
    parser.add_argument("--memory", metavar="SIZE", help="memory for models in each replica, such as 64MiB")
    parser.add_argument("--balancer", choices=sorted(BALANCERS), default="haproxy", help="default %(default)s")
    parser.add_argument("--balancer-program", metavar="PATH", help="where it is; else it is looked for")
    parser.add_argument("--port", type=int, default=8080, help="where calls go; default %(default)s")
    parser.add_argument("--page-port", type=int, default=9090, help="where the page is; default %(default)s")
    parser.add_argument("serve", nargs="*", metavar="-- FLAG", help="more flags of mme serve, for each replica")
    _add_load(parser)
    parser.set_defaults(run=lambda chosen: _guarded(_local, chosen))


def _parser(
    kinds: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    return kinds.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _add_replicas(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replica",
        action="append",
        default=[],
        metavar="HOST:PORT[/ADMINPORT]",
        help="a replica, and its admin port if it has one; once for each, or with commas",
    )
    parser.add_argument("--dns", metavar="NAME:PORT[/ADMINPORT]", help="instead: a name that resolves to all replicas")
    parser.add_argument(
        "--most", type=int, default=20, metavar="N", help="replicas behind the name; default %(default)s"
    )
    parser.add_argument("--resolver", metavar="ADDRESS", help="the name server that nginx asks for the name")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="default %(default)s")
    _add_load(parser)


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--load",
        type=int,
        metavar="PERCENT",
        help="of the mean number of calls under way, what a replica has at most before its models spill to the next; "
        f"0 for no bound; default {HOT_LOAD_PERCENT} for HAProxy, whose bound is for hot models alone, {ALL_LOAD_PERCENT} "
        "for Envoy, whose is for all",
    )


def _guarded(do: Callable[[argparse.Namespace], int], chosen: argparse.Namespace) -> int:
    try:
        return do(chosen)
    except CommandFailed as error:
        print(f"mme fleet: {error}", file=sys.stderr)
        return error.exit


def _print(chosen: argparse.Namespace) -> int:
    from container.operate.fleet.balancer import configuration

    fleet = Fleet(
        parse_address(chosen.listen, "address to listen on"),
        parse_replicas(chosen.replica),
        None if chosen.dns is None else parse_address(chosen.dns, "name of replicas"),
        chosen.most,
        chosen.resolver,
        chosen.load,
    )
    print(configuration(chosen.kind, fleet), end="")
    return Exit.OK


def _kubernetes(chosen: argparse.Namespace) -> int:
    from container.operate.fleet import kubernetes

    print(kubernetes.manifests(kubernetes.Wanted.of(chosen)), end="")
    return Exit.OK


def _local(chosen: argparse.Namespace) -> int:
    from container.operate.fleet.balancer import find
    from container.operate.fleet.local import LocalFleet, Wanted
    from container.operate.serving import free_port

    if not 1 <= chosen.replicas <= 64:
        raise Misused(f"{chosen.replicas} replicas cannot be run on one machine: from 1 to 64")
    # Said before anything is started.
    for flag, port, least in (("--port", chosen.port, 1), ("--page-port", chosen.page_port, 0)):
        if not least <= port < 65536:
            raise Misused(f"{flag} {port}: there is no such port")
        free_port([port], flag)
    serve = [*(["--memory", chosen.memory] if chosen.memory else []), *chosen.serve]
    wanted = Wanted(
        chosen.models,
        chosen.replicas,
        chosen.balancer,
        find(chosen.balancer, chosen.balancer_program),
        chosen.port,
        chosen.page_port,
        chosen.load,
        serve,
    )
    LocalFleet(wanted, environments.replica_environment()).run()
    return Exit.OK
