"""Files of deployments for tests, and accounts as they would be after an `apply` of one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from container.operate.deploy.file import Wanted, parse
from container.operate.deploy.names import ASKED, BOUNDS, DEPLOYMENT
from container.operate.deploy.plan import memory_of
from container.operate.deploy.resources import WAKE_POLICY, resources
from container.operate.deploy.there import There

ROLE = "arn:aws:iam::123456789012:role/mme-execution"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/mme@sha256:" + "0" * 64
AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
LONG_AGO = datetime(2026, 11, 1, tzinfo=UTC)
ARN = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/prices"

_KINDS = {
    "multi-model": ('[instances]\ntype = "ml.m5.large"\nleast = 2\nmost = 4\n',),
    "zero": ('[instances]\ntype = "ml.m5.large"\nmost = 2\n', "[zero]\ncopies = 2\n"),
    "serverless": ("[serverless]\nconcurrency = 3\n",),
}


def text(
    kind: str = "multi-model", more: str = "", *, image: str = IMAGE, name: str = "prices", month_usd: int = 900
) -> str:
    """more: other keys of the top, or other tables, which stand in for the kind's own."""
    top = f'kind = "{kind}"\nname = "{name}"\nimage = "{image}"\nmodels = "s3://acme/prod/"\nrole = "{ROLE}"\n'
    lines, tables = more.partition("[")[::2]
    own = "".join(table for table in _KINDS[kind] if table.partition("\n")[0] not in more)
    return f"{top}month_usd = {month_usd}\n{lines}\n{own}{'[' + tables if tables else ''}"


def wanted(kind: str = "multi-model", more: str = "", **rest: Any) -> Wanted:
    return parse(text(kind, more, **rest))


def nothing(of: Wanted, **rest: Any) -> There:
    return There(name=of.name, region="us-east-1", role_exists=True, **rest)


def applied(of: Wanted, **rest: Any) -> There:
    """The account as AWS describes it once all is done."""
    made = resources(of, memory_of(of, nothing(of)))
    n = 1 if of.instances is None else max(1, of.instances.least)
    endpoint = {
        "EndpointName": of.name,
        "EndpointArn": ARN,
        "EndpointConfigName": made.config_name,
        "EndpointStatus": "InService",
        "CreationTime": LONG_AGO,
        "ProductionVariants": [{"VariantName": "AllTraffic", "CurrentInstanceCount": n, "DesiredInstanceCount": n}],
    }
    policies = {
        one["PolicyName"]: {
            **one,
            "PolicyARN": f"arn:aws:autoscaling:::{one['PolicyName']}",
            "Alarms": [{"AlarmName": "x"}],
        }
        for one in made.policies
    }
    wake = next((arn["PolicyARN"] for arn in policies.values() if arn["PolicyType"] == "StepScaling"), "")
    alarms = {
        one["AlarmName"]: {
            **{key: value for key, value in one.items() if key != "Tags"},
            "AlarmActions": [wake if action == WAKE_POLICY else action for action in one["AlarmActions"]],
            "StateValue": "OK",
            "ActionsEnabled": True,
        }
        for one in made.alarms
    }
    target = made.target
    component = made.component
    told: dict[str, Any] = {
        "endpoint": endpoint,
        "endpoint_tags": {
            DEPLOYMENT: of.name,
            ASKED: made.config_name,
            **({} if target is None else {BOUNDS: f"{target['MinCapacity']}-{target['MaxCapacity']}"}),
        },
        "config": made.config,
        "configs": {made.config_name: made.config},
        "models": {made.model["ModelName"]: made.model},
        "components": ()
        if component is None
        else (
            {
                **component,
                "InferenceComponentStatus": "InService",
                "RuntimeConfig": {"CurrentCopyCount": 1, "DesiredCopyCount": 1},
                "CreationTime": LONG_AGO,
                "LastModifiedTime": LONG_AGO,
            },
        ),
        "target": None if target is None else {**target, "SuspendedState": {}},
        "policies": policies,
        "scheduled": {one["ScheduledActionName"]: one for one in made.schedule},
        "alarms": alarms,
    }
    return nothing(of, **{**told, **rest})
