"""What wakes is warm: our own container, asleep and awake again, has in memory what was busy before."""

from __future__ import annotations

import contextlib

from botocore.exceptions import ClientError

from container.operate.demo import houses
from container.operate.deploy.apply import Carrier, Pace, apply
from container.operate.deploy.back import delete
from container.operate.deploy.plan import COMPONENT_SETTLED, Step
from container.operate.endpoint.calling import Answered, CallRefused, Endpoint
from container.operate.endpoint.waking import is_asleep
from tests.container.operate.deploy.files import ROLE, wanted
from tests.container.operate.deploy.test_apply import Asked
from tests.rig.endpoint import until
from tests.rig.platform import client, platform

CITY = "Houston_TX"
PACE = Pace(poll_s=0.1)


def test_a_woken_copy_has_the_busiest_models_in_memory_before_its_first_call() -> None:
    of = wanted("zero", "[zero]\ncopies = 1", name="warm")
    with platform(speed=30.0) as one:
        client(one.url, "iam").create_role(RoleName=ROLE.rsplit("/", 1)[-1], AssumeRolePolicyDocument="{}")
        s3 = client(one.url, "s3")
        with contextlib.suppress(ClientError):
            s3.create_bucket(Bucket="acme")
        s3.put_object(Bucket="acme", Key=f"prod/us/{CITY}.tar.gz", Body=houses.train_city(CITY, 310_000).archive)
        apply(Asked(one.url), of, tell=lambda _: None, pace=PACE)
        endpoint = Endpoint.on_sagemaker("warm", component="warm", url=one.url)

        def call() -> Answered | None:
            try:
                return endpoint.call(f"us/{CITY}.tar.gz", b"1998,1600,4,2,0.3,1")
            except CallRefused as error:
                if not is_asleep(error.type, error.message):
                    raise
                return None

        first, second = call(), call()
        assert first is not None
        assert second is not None
        assert (first.is_hit, second.is_hit) == (False, True)

        to_zero = {"InferenceComponentName": "warm", "DesiredRuntimeConfig": {"CopyCount": 0}}
        step = Step("", "sagemaker", "UpdateInferenceComponentRuntimeConfig", to_zero, COMPONENT_SETTLED)
        Carrier(Asked(one.url), of, lambda _: None, PACE).carry_out((step,))
        assert call() is None
        woken: list[Answered] = []

        def has_answered() -> bool:
            answer = call()
            woken.extend([] if answer is None else [answer])
            return answer is not None

        until(has_answered, 60)
        assert woken[0].is_hit
        assert woken[0].body == first.body
        delete(Asked(one.url), of, tell=lambda _: None, pace=PACE)
