"""`apply` against SageMaker played on this machine: what it does, that it does it once, that it may be cut off."""

from __future__ import annotations

import contextlib
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.operate.deploy.apply import Pace, apply
from container.operate.deploy.aws import Aws
from container.operate.deploy.back import delete, rollback_steps
from container.operate.deploy.file import Wanted
from container.operate.deploy.look import look
from container.operate.deploy.plan import plan
from container.operate.deploy.trouble import NotAsAsked
from container.operate.troubles import NotNow, Refused
from container.platform.endpoints import containers
from container.platform.platform import Platform
from tests.container.operate.deploy.files import IMAGE, ROLE, wanted
from tests.rig.platform import client, platform

TINY = Path(__file__).parents[3] / "rig/tiny_container.py"
NEXT = IMAGE.replace("000", "111")
BROKEN = IMAGE.replace("000", "222")
COMMAND = [sys.executable, "-S", str(TINY), "{port}"]
QUICK = "[update]\nwait_s = 60\nold_s = 60\nmost_s = 600\n"
SPEED = 600.0


@pytest.fixture(scope="module")
def played() -> Iterator[Platform]:
    images = {IMAGE: COMMAND, NEXT: COMMAND, BROKEN: [*COMMAND, "broken"]}
    with platform(speed=SPEED, images=images) as one:
        client(one.url, "iam").create_role(RoleName=ROLE.rsplit("/", 1)[-1], AssumeRolePolicyDocument="{}")
        with contextlib.suppress(ClientError):  # moto's S3 is one for all accounts of this process
            client(one.url, "s3").create_bucket(Bucket="acme")
        yield one


shared = cache(client)  # making a client costs more than what most tests ask of it


class Asked(Aws):
    """Writes down what is asked; `cut`, given the call and how many changes were made before it, may raise around it."""

    def __init__(self, url: str, cut: Callable[[str, int], str] | None = None) -> None:
        super().__init__(client=lambda service: shared(url, service))
        self.changes: list[str] = []
        self._cut = cut or (lambda _operation, _n: "")

    def call(self, service: str, operation: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        is_change = not operation.startswith(("Describe", "List", "Get", "Invoke"))
        when = self._cut(operation, len(self.changes)) if is_change else ""
        if when == "before":
            raise KeyboardInterrupt
        answer = super().call(service, operation, arguments)
        if is_change:
            self.changes.append(operation)
        if when == "after":
            raise KeyboardInterrupt
        return answer


@pytest.fixture
def made(played: Platform, request: pytest.FixtureRequest) -> Iterator[Callable[..., Wanted]]:
    """Files of deployments, which are taken down in the end."""
    found: list[Wanted] = []

    def make(kind: str = "multi-model", more: str = QUICK, **rest: Any) -> Wanted:
        name = f"t{zlib.crc32(request.node.name.encode())}"
        found.append(wanted(kind, more, **{"name": name, **rest}))
        return found[-1]

    yield make
    for one in found[:1]:
        delete(Asked(played.url), one, tell=lambda _: None, pace=PACE)


PACE = Pace(poll_s=0.05)


def run(url: str, of: Wanted, **rest: Any) -> list[str]:
    said: list[str] = []
    apply(Asked(url), of, tell=said.append, pace=PACE, **rest)
    return said


def state(url: str, of: Wanted) -> dict[str, Any]:
    """What is there, without times and whatever else differs from run to run."""
    there = look(Asked(url), of)
    assert there.endpoint is not None
    return {
        "config": there.endpoint["EndpointConfigName"],
        "status": there.endpoint["EndpointStatus"],
        "tags": there.endpoint_tags,
        "configs": sorted(there.configs),
        "models": sorted(there.models),
        "components": [(one["InferenceComponentName"], one["Specification"]) for one in there.components],
        "bounds": None if there.target is None else (there.target["MinCapacity"], there.target["MaxCapacity"]),
        "policies": sorted(there.policies),
        "alarms": {name: one["AlarmActions"] for name, one in there.alarms.items()},
    }


def test_an_endpoint_comes_answers_and_a_second_apply_changes_nothing(played: Platform, made: Any) -> None:
    of = made()
    said = run(played.url, of)
    assert "make the endpoint" in said
    assert any(line.startswith("  InService") for line in said)
    assert state(played.url, of)["bounds"] == (2, 4)
    again = Asked(played.url)
    assert apply(again, of, tell=lambda _: None, pace=PACE).n_calls == 0
    assert again.changes == []


def cut_to_pieces(url: str, of: Wanted) -> list[str]:
    """Each `apply` here is cut off after, or before, its first change; so every change in turn is the last of one."""
    changes = []
    for n in range(60):
        n_left, when = (0, "after") if n % 2 else (1, "before")
        asked = Asked(url, lambda _operation, n, at=n_left, when=when: when if n == at else "")
        try:
            apply(asked, of, tell=lambda _: None, pace=PACE)
        except KeyboardInterrupt:
            changes += asked.changes
            continue
        return changes + asked.changes
    raise AssertionError(f"it comes to no end: {changes}")


def test_cut_off_at_each_change_in_turn_it_ends_as_one_that_was_not(played: Platform, made: Any) -> None:
    first, second = made(), made(image=NEXT)
    changes = cut_to_pieces(played.url, first)
    assert changes.count("CreateEndpoint") == 1
    pieces = state(played.url, first)
    assert apply(Asked(played.url), first, tell=lambda _: None, pace=PACE).n_calls == 0
    changes = cut_to_pieces(played.url, second)
    assert changes.count("UpdateEndpoint") == 1
    assert state(played.url, second)["config"] != pieces["config"]

    cut = state(played.url, second)
    delete(Asked(played.url), second, tell=lambda _: None, pace=PACE)
    run(played.url, first)
    assert state(played.url, first) == pieces
    run(played.url, second)
    assert state(played.url, second) == cut


def test_an_image_that_never_answers_is_rolled_back_in_silence_and_told(
    played: Platform, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "REAL_PATIENCE_S", 3.0)  # else a minute, whatever the platform's clock says
    of, broken = made(), made(image=BROKEN, more=QUICK)
    run(played.url, of)
    with pytest.raises(NotAsAsked, match=r"rolled back: .* answers, not .*: the rollback was silent"):
        run(played.url, broken)
    there = look(Asked(played.url), broken)
    planned = plan(broken, there)
    assert any("was rolled back" in one for one in planned.notices)
    assert planned.drift == ()
    said = state(played.url, of)
    assert said["config"] == plan(of, there).resources.config_name


def test_machines_that_take_ten_minutes_longer_are_waited_for() -> None:
    of = wanted(more=QUICK, name="slow")
    with platform(speed=SPEED, images={IMAGE: COMMAND}, traps=["slow-start"]) as one:
        client(one.url, "iam").create_role(RoleName=ROLE.rsplit("/", 1)[-1], AssumeRolePolicyDocument="{}")
        began_s = one.clock.monotonic()
        run(one.url, of)
        assert one.clock.monotonic() - began_s >= 600.0
        assert state(one.url, of)["status"] == "InService"
        assert apply(Asked(one.url), of, tell=lambda _: None, pace=PACE).n_calls == 0
        delete(Asked(one.url), of, tell=lambda _: None, pace=PACE)


def test_the_new_fleet_is_warmed_while_it_bakes_in_each_phase(played: Platform, made: Any) -> None:
    long = QUICK.replace("wait_s = 60", "wait_s = 1200").replace("old_s = 60", "old_s = 1200").replace("600", "6000")
    first, second = made(more=long), made(more=long, image=NEXT)
    run(played.url, first)
    phases: list[str] = []

    def warm() -> None:
        endpoint = look(Asked(played.url), second).endpoint
        assert endpoint is not None
        phases.append(endpoint["EndpointStatus"])

    run(played.url, second, warm=warm)
    assert phases[0] == "Updating"  # half of the calls reach it then, and in the second phase all
    assert len(phases) <= 2


def test_back_to_the_config_before_and_forward_again(played: Platform, made: Any) -> None:
    from container.operate.deploy.apply import Carrier

    first, second = made(), made(image=NEXT)
    run(played.url, first)
    before = state(played.url, first)["config"]
    with pytest.raises(Refused, match="nothing was there before"):
        rollback_steps(first, look(Asked(played.url), first))
    run(played.url, second)
    aws = Asked(played.url)
    Carrier(aws, second, lambda _: None, PACE).carry_out(rollback_steps(second, look(aws, second)))
    assert state(played.url, second)["config"] == before
    run(played.url, second)
    assert state(played.url, second)["config"] != before


def test_somebody_elses_endpoint_is_neither_updated_nor_deleted(played: Platform, made: Any) -> None:
    of = made()
    run(played.url, of)
    arn = look(Asked(played.url), of).endpoint["EndpointArn"]  # type: ignore[index]
    client(played.url, "sagemaker").delete_tags(ResourceArn=arn, TagKeys=["mme.deployment"])
    with pytest.raises(Refused, match="somebody else's"):
        run(played.url, of)
    with pytest.raises(Refused, match="was not made here") as refused:
        rollback_steps(of, look(Asked(played.url), of))
    assert "--not-ours" not in str(refused.value)  # rollback has no such flag
    with pytest.raises(Refused, match=r"was not made here.*--not-ours takes it"):
        delete(Asked(played.url), of, tell=lambda _: None, pace=PACE)
    assert state(played.url, of)["status"] == "InService"
    client(played.url, "sagemaker").add_tags(ResourceArn=arn, Tags=[{"Key": "mme.deployment", "Value": of.name}])


def test_what_was_changed_by_hand_is_told_and_run_over_only_when_asked(played: Platform, made: Any) -> None:
    of = made()
    run(played.url, of)
    target = look(Asked(played.url), of).target
    assert target is not None
    client(played.url, "application-autoscaling").register_scalable_target(
        ServiceNamespace="sagemaker", ResourceId=target["ResourceId"], ScalableDimension=target["ScalableDimension"],
        MaxCapacity=40,
    )  # fmt: skip
    with pytest.raises(Refused, match="changed by hand since: scaling bounds: 2-40 there, 2-4 in the file"):
        run(played.url, of)
    run(played.url, of, over_drift=True)
    assert state(played.url, of)["bounds"] == (2, 4)


def test_nothing_is_left_after_a_delete(played: Platform, made: Any) -> None:
    of = made()
    run(played.url, of)
    delete(Asked(played.url), of, tell=lambda _: None, pace=PACE)
    there = look(Asked(played.url), of)
    assert (there.endpoint, there.configs, there.models, there.alarms, there.policies, there.target) == (
        *(None, {}, {}, {}, {}), None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "status", "kind", "said"),
    [
        ("ThrottlingException", 400, NotNow, "AWS is busy"),
        ("ExpiredTokenException", 403, NotNow, "the credentials ran out"),
        ("AccessDeniedException", 403, Refused, "a right is missing"),
    ],
)
def test_what_aws_says_in_the_middle_ends_it_with_what_to_do(
    played: Platform, made: Any, code: str, status: int, kind: type[Exception], said: str
) -> None:
    of = made()
    asked = Asked(played.url)
    sagemaker = client(played.url, "sagemaker")

    def refused(**_: Any) -> tuple[Any, dict[str, Any]]:
        class Http:
            status_code = status

        return Http(), {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}

    sagemaker.meta.events.register("before-call.sagemaker.CreateEndpointConfig", refused)
    asked._clients["sagemaker"] = sagemaker
    with pytest.raises(kind, match=said):
        apply(asked, of, tell=lambda _: None, pace=PACE)
    assert asked.changes == ["CreateModel"]
    run(played.url, of)
    assert state(played.url, of)["status"] == "InService"
