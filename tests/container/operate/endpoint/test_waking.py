"""Calls that find nobody awake: that one refusal is waited out, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from container.operate.endpoint.calling import Answered, CallImpossible, CallRefused, Endpoint
from container.operate.endpoint.waking import awake
from container.operate.main import main
from tests.rig.fakes import FakeClock

# AWS's words, see the module.
ZERO = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if configured) "
    "or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)
ANSWER = Answered(b"1.0", "text/csv", 1.0, False, None)


def refusing(*errors: CallRefused) -> Callable[[], Answered]:
    left = list(errors)

    def call() -> Answered:
        if left:
            raise left.pop(0)
        return ANSWER

    return call


def asleep() -> CallRefused:
    return CallRefused("ValidationError", 400, ZERO, None, 1.0)


def wait(call: Callable[[], Answered], most_s: float = 1200.0) -> tuple[Answered, list[str], float]:
    clock, said = FakeClock(0.0), list[str]()
    answered = awake(call, most_s, said.append, sleep=clock.advance, monotonic=clock)
    return answered, said, clock.now


def test_a_wake_is_waited_out_and_told() -> None:
    starting = CallRefused("ModelNotReadyException", 429, "loading", None, 1.0)
    answered, said, took_s = wait(refusing(asleep(), asleep(), starting))
    assert answered == ANSWER
    assert took_s == pytest.approx(2 + 3 + 4.5)
    assert said == [
        "at zero, 0 s; waiting",
        "at zero, 2 s; waiting",
        "ModelNotReadyException, 5 s; waiting",
        "awake after 10 s",
    ]


def test_pauses_grow_to_a_quarter_of_a_minute() -> None:
    _, said, took_s = wait(refusing(*[asleep() for _ in range(30)]))
    assert len(said) == 31
    assert took_s < 30 * 15


@pytest.mark.parametrize(
    "error",
    [
        CallRefused("ValidationError", 400, "Endpoint prices of account 123456789012 not found.", None, 1.0),
        CallRefused("ModelError", 424, "broken", 422, 1.0),
        CallRefused("ModelNotReadyException", 429, "loading", None, 1.0),  # nothing was at zero
    ],
)
def test_any_other_refusal_is_told_at_once(error: CallRefused) -> None:
    with pytest.raises(CallRefused) as raised:
        wait(refusing(error))
    assert raised.value is error


def test_after_its_time_it_is_told_that_it_still_sleeps() -> None:
    with pytest.raises(CallRefused, match="no capacity"):
        wait(refusing(*[asleep() for _ in range(1000)]), most_s=60)


def test_a_target_that_attributes_cannot_carry_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    endpoint = Endpoint.on_sagemaker("prices", component="prices")
    with pytest.raises(CallImpossible, match="cannot travel"):
        endpoint.call("a,b.tar.gz", b"1.0")


def test_without_credentials_it_says_so_and_blames_no_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert main(["invoke", "--endpoint", "prices", "--target", "a.tar.gz", "1.0"]) == 1
    assert capsys.readouterr().err == "mme invoke: prices was not called: this machine has no credentials for AWS\n"


def test_waking_is_for_endpoints_of_sagemaker_however_short_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["invoke", "--target", "a.tar.gz", "--wake", "0", "1.0"]) == 2
    assert "--wake go with --endpoint" in capsys.readouterr().err
