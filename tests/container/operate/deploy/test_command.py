"""`mme deploy` as it is typed, from an empty account to an invoked endpoint and back to nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.operate.demo.houses import pack
from container.operate.deploy import apply, trial
from container.operate.deploy.file import KINDS
from container.operate.main import main
from container.platform.platform import Platform
from tests.container.operate.deploy.files import IMAGE, ROLE, text
from tests.rig.platform import client, platform

TINY = Path(__file__).parents[3] / "rig/tiny_container.py"
COMMAND = [sys.executable, "-S", str(TINY), "{port}"]
NEXT = IMAGE.replace("000", "111")
QUICK = "[update]\nwait_s = 60\nold_s = 60\nmost_s = 600\n"


@pytest.fixture(scope="module")
def played() -> Iterator[Platform]:
    with platform(speed=600.0, images={IMAGE: COMMAND, NEXT: COMMAND}) as one:
        client(one.url, "iam").create_role(RoleName=ROLE.rsplit("/", 1)[-1], AssumeRolePolicyDocument="{}")
        with contextlib.suppress(ClientError):
            client(one.url, "s3").create_bucket(Bucket="acme")
        yield one


@pytest.fixture
def mme(
    played: Platform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    for name, value in {
        "AWS_ENDPOINT_URL": played.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_from_an_empty_account_to_an_answer_and_back_to_nothing(played: Platform, mme: Any, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(text(more=QUICK, name="shop"))
    quick = (str(file), "--poll", "0.05")

    status, out, _ = mme("deploy", "plan", *quick)
    assert status == 0
    assert "steps     1. make the model" in out
    assert (
        "costs     167.90 to 335.80 USD a month (2 to 4 ml.m5.large of 0.115 USD an hour; prices of 2026-09-28)" in out
    )
    assert out.splitlines()[-1] == f"next      mme deploy apply {file}"

    status, out, err = mme("deploy", "apply", *quick)
    assert (status, "nobody is there to ask; --yes does it" in err) == (2, True)
    status, out, err = mme("deploy", "apply", "--yes", *quick)
    assert status == 0
    assert "make the endpoint" in err
    assert "done      8 calls" in out
    assert out.splitlines()[-1] == "next      mme invoke --endpoint shop --target KEY 1.0,2.0,3.0"

    status, out, _ = mme("deploy", "apply", "--yes", *quick)
    assert (status, "done      nothing was to do" in out) == (0, True)
    status, out, _ = mme("deploy", "status", *quick)
    assert (status, out.splitlines()[-1]) == (0, "as asked  yes")
    assert ": no call yet, or none for 24 h" in out
    client(played.url, "s3").put_object(Bucket="acme", Key="prod/us/a.tar.gz", Body=pack(b"a model"))
    status, out, _ = mme("invoke", "--endpoint", "shop", "--target", "us/a.tar.gz", "--json", "1,2,3")
    assert (status, json.loads(out)["body"]) == (0, "1.0")

    file.write_text(text(more=QUICK, name="shop", image=NEXT))
    assert mme("deploy", "status", *quick)[0] == 1
    assert mme("deploy", "apply", "--yes", *quick)[0] == 0
    status, out, _ = mme("deploy", "rollback", "--yes", *quick)
    assert status == 0
    assert "go back to shop-" in out

    status, out, _ = mme("deploy", "delete", "--yes", *quick)
    assert (status, out.splitlines()[-1]) == (0, "left      nothing of shop")
    status, out, _ = mme("deploy", "status", "--json", *quick)
    assert (status, json.loads(out)["now"]) == (1, "not there")


def test_the_first_call_that_apply_names_can_be_typed_of_every_kind(played: Platform, mme: Any, tmp_path: Path) -> None:
    client(played.url, "s3").put_object(Bucket="acme", Key="prod/us/b.tar.gz", Body=pack(b"a model"))
    file, quick = tmp_path / "first.toml", ("--poll", "0.05", "--yes")
    for kind in KINDS:
        file.write_text(text(kind, month_usd=900, name=f"first-{kind}"))
        status, out, err = mme("deploy", "apply", str(file), *quick)
        assert status == 0, err
        line = out.splitlines()[-1].removeprefix("next").replace("KEY", "us/b.tar.gz")
        status, out, err = mme(*shlex.split(line)[1:])
        assert (status, out.splitlines()[:1]) == (0, ["1.0"]), err
        assert mme("deploy", "delete", str(file), *quick)[0] == 0


def test_the_doctor_has_names_prices_and_an_exit_code(mme: Any, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(text(more=QUICK, name="shop"))
    status, out, _ = mme("deploy", "doctor", "--json", str(file))
    assert status == 1
    assert json.loads(out)["found"][0]["check"] == "endpoint-missing"


def test_every_file_that_init_writes_can_be_planned_and_is_refused_for_a_role_that_is_not_there(
    mme: Any, tmp_path: Path
) -> None:
    for kind in ("multi-model", "zero", "serverless"):
        status, out, _ = mme("deploy", "init", kind)
        assert status == 0
        (tmp_path / "one.toml").write_text(out.replace("role/mme-execution", "role/nobody"))
        status, out, _ = mme("deploy", "plan", str(tmp_path / "one.toml"))
        assert status == 3
        assert "role/nobody is not there" in out
        assert "steps     none, since it is refused" in out
        status, out, _ = mme("deploy", "status", str(tmp_path / "one.toml"))
        assert (status, out.splitlines()[-1]) == (1, "as asked  no: the file is refused")
        assert "refused   role" in out


def test_templates_and_policies_need_no_account(mme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    file = tmp_path / "shop.toml"
    file.write_text(text("zero", name="shop"))
    status, out, _ = mme("deploy", "template", str(file))
    assert (status, json.loads(out)["Resources"]["Component"]["Type"]) == (0, "AWS::SageMaker::InferenceComponent")
    status, out, _ = mme("deploy", "template", "--iam", "caller", "--target", "eu/*", str(file))
    assert (status, json.loads(out)["Statement"][0]["Action"]) == (0, ["sagemaker:InvokeEndpoint"])
    assert mme("deploy", "template", "--target", "eu/*", str(file))[0] == 2
    status, _, err = mme("deploy", "plan", str(file))
    assert (status, "no answer" in err) == (6, True)


def test_a_file_that_is_wrong_is_told_on_one_line(mme: Any, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(text(more="month_us = 3"))
    status, _, err = mme("deploy", "plan", str(file))
    assert (status, err) == (2, f"mme deploy plan: {file}: there is no key month_us; did you mean month_usd?\n")
    assert mme("deploy", "plan", str(tmp_path / "none.toml"))[0] == 2


def test_without_a_region_it_says_what_gives_one(mme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    file = tmp_path / "shop.toml"
    file.write_text(text(name="shop"))
    status, _, err = mme("deploy", "plan", str(file))
    assert (status, err.strip()) == (
        2,
        "mme deploy plan: no region: set region in the file, or AWS_DEFAULT_REGION",
    )
    monkeypatch.setenv(err.split()[-1], "us-east-1")
    assert mme("deploy", "plan", str(file))[0] == 0


def test_interrupted_it_says_that_aws_goes_on(mme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(apply, "apply", interrupted)
    file = tmp_path / "shop.toml"
    file.write_text(text(name="shop"))
    status, _, err = mme("deploy", "apply", "--yes", str(file))
    assert (status, "what AWS has begun goes on; call again" in err) == (130, True)


def test_a_trial_that_is_ended_by_a_signal_is_taken_down_and_nobody_is_told_to_go_on(
    mme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: Any, **__: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it came behind the signal")

    monkeypatch.setattr(trial, "trial", ended)
    file = tmp_path / "shop.toml"
    file.write_text(text(name="shop"))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        status, _, err = mme("deploy", "trial", "--most-usd", "5", "--yes", str(file))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (status, "it was taken down" in err, "call again" in err) == (130, True, False)


def test_a_doctor_that_goes_on_for_ever_ends_by_a_signal(
    mme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    file = tmp_path / "shop.toml"
    file.write_text(text(name="shop"))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        status, out, _ = mme("deploy", "doctor", "--every", "1h", "--json", str(file))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (status, json.loads(out)["endpoint"]) == (130, "shop")


@pytest.mark.parametrize("words", [["plan", "--poll", "-1"], ["trial", "--most-usd", "nan"]])
def test_a_bound_or_a_pause_that_is_none_is_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["deploy", *words, "shop.toml"])
    assert ended.value.code == 2


def test_a_file_that_cannot_be_written_is_told_before_anything_is_paid_for(
    mme: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "trial", None)
    file, nowhere = tmp_path / "shop.toml", tmp_path / "none/there"
    file.write_text(text(name="shop"))
    for words in (
        ["trial", "--most-usd", "5", "--yes", "--report", str(nowhere), str(file)],
        ["costs", "--models", "3", "--picture", str(nowhere)],
    ):
        status, _, err = mme("deploy", *words)
        assert (status, f"{nowhere} cannot be written: No such file or directory\n" in err) == (2, True)


def test_where_aws_knows_no_targets_it_says_that_a_caller_is_not_limited(mme: Any, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    for kind in KINDS:
        file.write_text(text(kind, name="shop"))
        status, out, err = mme("deploy", "template", "--iam", "caller", "--target", "eu/*", str(file))
        is_limited = "Condition" in json.loads(out)["Statement"][0]
        assert (status, is_limited, "--target limits nothing here" in err) == (
            0, kind == "multi-model", kind != "multi-model",
        )  # fmt: skip


def test_what_a_month_costs_before_and_after(mme: Any, tmp_path: Path) -> None:
    picture = tmp_path / "costs.svg"
    status, out, _ = mme("deploy", "costs", "--models", "3000", "--json", "--picture", str(picture))
    names = [one["name"] for one in json.loads(out)["lines"]]
    assert (status, names) == (0, ["an endpoint each", "multi-model", "zero", "serverless", "nightly batch"])
    assert picture.read_text().startswith("<svg")
