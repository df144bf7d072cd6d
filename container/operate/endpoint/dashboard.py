"""`mme dashboard`: a CloudWatch dashboard with its alarms, or a Grafana dashboard, as JSON or put in place."""

from __future__ import annotations

import argparse
import json
import sys

from container.operate.exits import Exit
from container.operate.printing import say


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "dashboard",
        help="write a CloudWatch dashboard with its alarms, or a Grafana one",
        description="Write dashboards over this endpoint's metrics as JSON to stdout; --apply puts them into CloudWatch.",
    )
    parser.add_argument("kind", choices=("cloudwatch", "alarms", "grafana"))
    parser.add_argument("--endpoint-name", default="local", help="as mme serve was told; default %(default)s")
    parser.add_argument("--variant-name", default="AllTraffic", help="default %(default)s")
    parser.add_argument("--metrics-namespace", default="MultiModelEndpoint", help="default %(default)s")
    parser.add_argument("--region", default="us-east-1", help="of the metrics; default %(default)s")
    parser.add_argument(
        "--alarm-action", action="append", default=[], metavar="ARN", help="whom alarms tell; repeatable"
    )
    parser.add_argument("--apply", action="store_true", help="put the dashboard and the alarms into CloudWatch")
    parser.add_argument("--cloudwatch-endpoint-url", metavar="URL", help="another CloudWatch than Amazon's")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    from container.metrics import dashboards  # boto3 costs 0.2 s, which --help need not pay

    if chosen.kind == "grafana":
        if chosen.apply:
            print("mme dashboard: Grafana takes its dashboard by import; --apply is for CloudWatch", file=sys.stderr)
            return Exit.USAGE
        print(json.dumps(dashboards.grafana_dashboard(), indent=2))
        return Exit.OK
    dimensions = {"EndpointName": chosen.endpoint_name, "VariantName": chosen.variant_name}
    namespace, name = chosen.metrics_namespace, f"{chosen.endpoint_name}-{chosen.variant_name}"
    dashboard = dashboards.cloudwatch_dashboard(namespace=namespace, dimensions=dimensions, region=chosen.region)
    alarms = dashboards.cloudwatch_alarms(
        namespace=namespace, dimensions=dimensions, prefix=name, actions=chosen.alarm_action
    )
    if not chosen.apply:
        print(json.dumps(dashboard if chosen.kind == "cloudwatch" else alarms, indent=2))
        return Exit.OK
    from handler.aws import cloudwatch

    try:
        applied = dashboards.apply_to_cloudwatch(
            cloudwatch(chosen.region, chosen.cloudwatch_endpoint_url), name, dashboard, alarms
        )
    except dashboards.CloudWatchRefused as error:
        print(f"mme dashboard: {error}", file=sys.stderr)
        return Exit.FAILED
    print(f"dashboard {applied.dashboard}")
    for alarm in applied.alarms:
        say("alarm", alarm)
    for warning in applied.warnings:
        print(f"mme dashboard: CloudWatch warns: {warning}", file=sys.stderr)
    return Exit.OK
