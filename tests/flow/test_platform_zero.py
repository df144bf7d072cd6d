"""Thousands of models behind one component that scales to zero: our real container on `mme platform` at --speed 600.

Its models are found by the container itself; the target travels in CustomAttributes, since a component takes no TargetModel.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from botocore.exceptions import ClientError

from tests.container.platform.test_zero import Bare, Zero
from tests.flow.test_platform_endpoints import BUCKET, CSV, OURS, PREFIX, ask, expected, put
from tests.rig.endpoint import needs_classes
from tests.rig.platform import ROLE, client, platform

pytestmark = needs_classes
SPEED = 600
PATIENCE_S = 90.0


class Segments(Zero):
    def make(self) -> None:
        self.config()
        self.aws.endpoint(self.name, self.name)
        self.aws.sagemaker.create_model(
            ModelName=self.name,
            PrimaryContainer={"Image": OURS, "Environment": {"MME_MODELS": f"s3://{BUCKET}/{PREFIX}/"}},
            ExecutionRoleArn=ROLE,
        )
        self.aws.sagemaker.create_inference_component(
            InferenceComponentName=self.component,
            EndpointName=self.name,
            VariantName=self.variant,
            Specification={
                "ModelName": self.name,
                "ComputeResourceRequirements": {"MinMemoryRequiredInMb": 1024, "NumberOfCpuCoresRequired": 1},
            },
            RuntimeConfig={"CopyCount": 1},
        )
        self.until(("InService", 1, 1), real_s=0.1)

    def answer(self, number: int) -> np.ndarray:
        return ask(
            self.aws,
            self.name,
            None,
            InferenceComponentName=self.component,
            CustomAttributes=f"TargetModel=segment-{number}.tar.gz",
        )

    def streamed(self, number: int) -> bytes:
        """The same, as a stream of events."""
        answer = self.aws.runtime.invoke_endpoint_with_response_stream(**self._call(number))
        return b"".join(event["PayloadPart"]["Bytes"] for event in answer["Body"])

    def said(self, number: int) -> bytes:
        said: bytes = self.aws.runtime.invoke_endpoint(**self._call(number))["Body"].read()
        return said

    def _call(self, number: int) -> dict[str, Any]:
        return {
            "EndpointName": self.name,
            "InferenceComponentName": self.component,
            "ContentType": "text/csv",
            "Body": CSV,
            "CustomAttributes": f"TargetModel=segment-{number}.tar.gz",
        }

    def answer_in_the_end(self, number: int) -> tuple[np.ndarray, int]:
        """As a caller that waits out the wake, and how often it was refused."""
        deadline, n_refused = time.monotonic() + PATIENCE_S, 0
        while True:
            try:
                return self.answer(number), n_refused
            except ClientError as error:
                if "has no capacity to process this request" not in str(error) or time.monotonic() > deadline:
                    raise
                n_refused += 1
                time.sleep(0.1)


@pytest.fixture
def zero() -> Iterator[Segments]:
    scratch = Path(tempfile.mkdtemp(prefix="mt-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MME_SCRATCH", str(scratch))
        with platform(speed=SPEED) as played:
            aws = Bare(played)
            s3 = client(aws.url, "s3")
            s3.create_bucket(Bucket=BUCKET)
            s3.close()
            for number in (0, 1):
                put(aws, number)
            zero = Segments(aws, "night")
            zero.make()
            yield zero
            zero.close()
            aws.close()
    scratch.rmdir()


def test_it_answers_as_xgboost_does_goes_to_zero_and_comes_back(zero: Segments) -> None:
    for number in (0, 1):
        np.testing.assert_allclose(zero.answer(number), expected(number), rtol=1e-6)
    assert zero.streamed(1) == zero.said(1)
    logs = client(zero.aws.url, "logs")
    groups = logs.describe_log_groups(logGroupNamePrefix="/aws/sagemaker/InferenceComponents/")["logGroups"]
    assert [one["logGroupName"] for one in groups] == ["/aws/sagemaker/InferenceComponents/night-ic"]
    logs.close()
    zero.policies()
    zero.until(("InService", 0, 0), real_s=0.1)
    came, n_refused = zero.answer_in_the_end(1)
    np.testing.assert_allclose(came, expected(1), rtol=1e-6)
    assert n_refused > 0

    # Whatever the load here made of the times: what was billed is what ran, and less than had it run all the time.
    bill, ledger = zero.aws.platform.bill(), zero.aws.platform.ledger
    (line,) = bill.lines
    first, second, *_ = ledger.meters()  # on a slow machine it is asleep again, or has been
    assert first.ended is not None
    assert first.ended < second.began
    assert line.usd == pytest.approx(line.seconds / 3600 * 0.115)
    assert line.seconds < (bill.at - ledger.began).total_seconds()
    done = [status for what, status in zero.activities() if what == "Setting desired copy count to 0."]
    assert done[0] == "Successful"
