"""What a platform knew is known by the next one with the same directory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from container.platform.clock import ManualClock
from container.platform.state import State, StateRefused
from tests.rig.platform import BUCKET, Account, account, client, platform


def test_the_next_run_goes_on_with_endpoints_artifacts_and_tags(tmp_path: Path) -> None:
    mine = account()
    with platform(clock=ManualClock(), state=tmp_path, account=mine) as played:
        aws = Account(played)
        aws.endpoint("kept", aws.config("kept-config", 2), Tags=[{"Key": "k", "Value": "v"}])
        aws.sagemaker.create_endpoint(EndpointName="gone", EndpointConfigName="kept-config")
        aws.settled("gone")
        aws.sagemaker.delete_endpoint(EndpointName="gone")
        aws.until_gone("gone")
        before = aws.describe("kept")
        client(aws.url, "cloudwatch").put_metric_alarm(
            AlarmName="a", Namespace="n", MetricName="m", Period=60, EvaluationPeriods=1, Threshold=1,
            ComparisonOperator="GreaterThanThreshold", Statistic="Sum",
        )  # fmt: skip
        aws.close()
    with platform(clock=ManualClock(), state=tmp_path, account=mine) as played:
        again = Account.__new__(Account)
        again.platform, again.url = played, played.url
        assert again.describe("kept")["EndpointStatus"] == "SystemUpdating"
        told = again.settled("kept")
        for member in ("EndpointArn", "EndpointConfigName", "CreationTime", "ProductionVariants"):
            assert told[member] == before[member], member
        assert again.ask("kept", "b.tar.gz")["who"] == "kept-config"
        assert again.sagemaker.list_tags(ResourceArn=told["EndpointArn"])["Tags"] == [{"Key": "k", "Value": "v"}]
        assert [one["EndpointName"] for one in again.sagemaker.list_endpoints()["Endpoints"]] == ["kept"]
        assert client(played.url, "s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 2
        assert client(played.url, "cloudwatch").describe_alarms()["MetricAlarms"][0]["AlarmName"] == "a"
        again.close()


@pytest.mark.parametrize("text", ["", "[]", '{"version": 0, "rooms": {}}', "{"])
def test_a_file_that_is_no_state_of_this_version_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "platform.json").write_text(text)
    state = State(tmp_path)
    with pytest.raises(StateRefused):
        state.restore({})
    state.close()


def test_a_directory_that_can_hold_no_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateRefused, match="cannot hold a state: File exists"):
        State(tmp_path / "file")


def test_a_state_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    class Room:
        value: object = 1

        def dump(self) -> object:
            return self.value

        def restore(self, value: object) -> None:
            self.value = value

    state, room = State(tmp_path), Room()
    state.keep({"room": room})
    room.value = object()
    with pytest.raises(TypeError):
        state.keep({"room": room})
    assert json.loads((tmp_path / "platform.json").read_text())["rooms"] == {"room": 1}
    state.close()
