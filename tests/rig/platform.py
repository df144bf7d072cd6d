"""The platform for tests: in this process, asked over HTTP by plain boto3 clients, each with an account of its own.

`FAKE` is an image of a few milliseconds; what it does its Environment says, see fake_container.py.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
import botocore.config

from container.platform.clock import ManualClock
from container.platform.platform import Platform
from tests.rig import boosters

ROLE = "arn:aws:iam::123456789012:role/execution"
FAKE = "fake"
IMAGES = {FAKE: [sys.executable, "-I", "-S", str(Path(__file__).with_name("fake_container.py")), "{port}"]}
BUCKET = "models"
PATIENCE_S = 60.0


def account() -> str:
    """One that no other platform of this process has, for moto keeps what it knows by account."""
    return "".join(random.SystemRandom().choices("123456789", k=12))


def platform(**options: Any) -> Platform:
    """`Platform`, to be used in a `with`."""
    return Platform(**{"account": account(), "images": IMAGES, **options})


def client(url: str, service: str, **options: Any) -> Any:
    """Plain boto3, one attempt unless `retries` says otherwise."""
    config = botocore.config.Config(**{"retries": {"total_max_attempts": 1}, "read_timeout": 60, **options})
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=config,
    )


class Account:
    """One platform as its user sees it, with a bucket of two models, a.tar.gz and b.tar.gz."""

    def __init__(self, played: Platform) -> None:
        self.platform = played
        self.url = played.url
        s3 = client(self.url, "s3")
        s3.create_bucket(Bucket=BUCKET)
        archive = boosters.archive({"xgboost-model": b"whatever"})
        for key in ("a.tar.gz", "b.tar.gz"):
            s3.put_object(Bucket=BUCKET, Key=f"live/{key}", Body=archive)
        s3.close()

    @cached_property
    def sagemaker(self) -> Any:
        return client(self.url, "sagemaker")

    @cached_property
    def runtime(self) -> Any:
        return client(self.url, "sagemaker-runtime", max_pool_connections=16)

    def close(self) -> None:
        for name in ("sagemaker", "runtime"):
            if name in self.__dict__:
                getattr(self, name).close()

    def model(self, name: str, *, is_multi: bool = True, **environment: str) -> str:
        container: dict[str, Any] = {"Image": FAKE, "Environment": {"WHO": name, **environment}}
        if is_multi:
            container |= {"Mode": "MultiModel", "ModelDataUrl": f"s3://{BUCKET}/live/"}
        self.sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=ROLE)
        return name

    def config(
        self, name: str, n: int = 1, *, variants: Mapping[str, float] | None = None, is_multi: bool = True,
        type_: str = "ml.m5.large", variant: Mapping[str, Any] | None = None, **environment: str,
    ) -> str:  # fmt: skip
        """A config with a model of each variant: with one, of its own name; with several, of NAME-VARIANT."""
        weights = variants or {"AllTraffic": 1.0}
        made = [
            {
                "VariantName": key,
                "ModelName": self.model(
                    name if len(weights) == 1 else f"{name}-{key}", is_multi=is_multi, **environment
                ),
                "InstanceType": type_,
                "InitialInstanceCount": n,
                "InitialVariantWeight": weight,
                **(variant or {}),
            }
            for key, weight in weights.items()
        ]
        self.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=made)
        return name

    def endpoint(self, name: str, config: str, **options: Any) -> str:
        """Made and in service."""
        self.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config, **options)
        assert self.settled(name)["EndpointStatus"] == "InService"
        return name

    def describe(self, name: str) -> Any:
        return self.sagemaker.describe_endpoint(EndpointName=name)

    def settled(self, name: str) -> Any:
        """Its description when nothing happens to it any more. The clock does not go on for it."""
        return self.until(name, lambda told: told["EndpointStatus"] in ("InService", "Failed", "UpdateRollbackFailed"))

    def until(self, name: str, condition: Any) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not condition(told := self.describe(name)):
            assert time.monotonic() < deadline, told
            self.tick()
            time.sleep(0.01)
        return told

    def until_gone(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.platform.endpoints.find(name) is not None:
            assert time.monotonic() < deadline
            self.tick()
            time.sleep(0.01)

    def tick(self, seconds: float = 0.0) -> None:
        if isinstance(self.platform.clock, ManualClock):
            self.platform.clock.advance(seconds)

    def note(self, name: str) -> str | None:
        """What the deployment says of its one variant: Status, StatusMessage."""
        told = self.describe(name)
        pending = told.get("PendingDeploymentSummary") or told
        notes = pending["ProductionVariants"][0].get("VariantStatus")
        return f"{notes[0]['Status']}: {notes[0]['StatusMessage']}" if notes else None

    def ask(self, name: str, target: str | None = "a.tar.gz", body: bytes = b"1,2", **options: Any) -> Any:
        """What the fake container told."""
        where = {"TargetModel": target} if target else {}
        answer = self.runtime.invoke_endpoint(EndpointName=name, Body=body, **where, **options)
        return json.loads(answer["Body"].read())

    def whose(self, name: str, n: int = 40) -> dict[str, int]:
        """How many of n calls each model answered."""
        counts: dict[str, int] = {}
        for _ in range(n):
            who = self.ask(name)["who"]
            counts[who] = counts.get(who, 0) + 1
        return counts
