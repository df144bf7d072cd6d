from __future__ import annotations

import json
import signal
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.container.platform.jobs.conftest import ROLE, Account, read_json, until

HERE = "cd ${MME_OPT_ML:-/opt/ml}\n"


def s3_input(name: str, uri: str, **source: str) -> dict[str, Any]:
    return {
        "InputName": name,
        "S3Input": {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/{name}", "S3DataType": "S3Prefix", **source},
    }


def outputs(uri: str, mode: str = "EndOfJob") -> dict[str, Any]:
    target = {"S3Uri": uri, "LocalPath": "/opt/ml/processing/out", "S3UploadMode": mode}
    return {"ProcessingOutputConfig": {"Outputs": [{"OutputName": "out", "S3Output": target}]}}


def test_inputs_are_brought_outputs_taken_and_the_message_told(account: Account) -> None:
    account.put_at("rows/a.csv", "1\n")
    script = (
        HERE
        + """
cat config/processingjobconfig.json; echo; cat config/resourceconfig.json; echo
cat processing/rows/a.csv; mkdir processing/out/deep; echo score >processing/out/deep/s
ln -s deep/s processing/out/link; printf '%s' 'all is well' >output/message
"""
    )
    name = account.process(
        script, ProcessingInputs=[s3_input("rows", f"{account.uri}/rows/")], **outputs(f"{account.uri}/scores/")
    )
    told = account.processed(name)
    said = account.said("Processing", name)
    assert (told["ProcessingJobStatus"], told["ExitMessage"]) == ("Completed", "all is well"), said
    assert account.objects("scores/") == {"deep/s": b"score\n"}
    config = read_json(said[0])
    assert config["ProcessingJobArn"] == told["ProcessingJobArn"]
    source = config["ProcessingInputs"][0]["S3Input"]
    assert source.pop("LocalPath").endswith("/ml/processing/rows")  # below /opt, where namespaces are permitted
    assert source == {
        "S3Uri": f"{account.uri}/rows/",
        "S3DataDistributionType": "FullyReplicated",
        "S3DataType": "S3Prefix",
        "S3InputMode": "File",
        "S3CompressionType": "None",
        "S3DownloadMode": "StartOfJob",
    }
    assert read_json(said[1]) == {"current_host": "algo-1", "hosts": ["algo-1"]}
    assert said[2:] == ["1"]
    events = account.events(told["ProcessingJobArn"])
    assert [one["ProcessingJobStatus"] for one in events] == ["InProgress", "Completed"]
    json.dumps(events)


def test_continuous_outputs_are_there_before_the_job_ends(account: Account) -> None:
    name = account.process(
        HERE + "trap 'echo last >processing/out/z; exit 0' INT; echo 1 >processing/out/a; while :; do sleep 0.1; done",
        **outputs(f"{account.uri}/scores", "Continuous"),
    )
    until(lambda: account.objects("scores/") == {"a": b"1\n"})
    assert account.sagemaker.describe_processing_job(ProcessingJobName=name)["ProcessingJobStatus"] == "InProgress"
    account.sagemaker.stop_processing_job(ProcessingJobName=name)
    assert account.processed(name)["ProcessingJobStatus"] == "Stopped"
    assert account.objects("scores/") == {"a": b"1\n", "z": b"last\n"}


def test_a_job_that_fails_leaves_no_outputs_of_its_end_and_says_where_to_look(account: Account) -> None:
    script = HERE + "echo 1 >processing/out/a; printf 'no such column' >output/message; exit 9"
    told = account.processed(account.process(script, **outputs(f"{account.uri}/scores")))
    assert told["ProcessingJobStatus"] == "Failed"
    assert told["FailureReason"] == "AlgorithmError: See job logs for more information"
    assert told["ExitMessage"] == "no such column"
    assert account.objects("scores/") == {}


def test_a_job_is_done_when_all_its_hosts_are_and_their_messages_are_one(account: Account) -> None:
    script = (
        HERE
        + """
host=$(sed 's/.*"current_host": "\\([^"]*\\)".*/\\1/' config/resourceconfig.json)
printf '%s.' $host >output/message; echo $host >processing/out/$host
"""
    )
    told = account.processed(account.process(script, n_hosts=3, **outputs(f"{account.uri}/scores")))
    assert (told["ProcessingJobStatus"], told["ExitMessage"]) == ("Completed", "algo-1.algo-2.algo-3.")
    assert account.objects("scores/") == {f"algo-{at}": f"algo-{at}\n".encode() for at in (1, 2, 3)}


def test_a_message_that_is_no_text_fails_the_job_and_a_long_one_is_cut(account: Account) -> None:
    told = account.processed(account.process(HERE + "printf '\\377\\376' >output/message"))
    assert told["ProcessingJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("ClientError:")
    account.number += 1000
    told = account.processed(
        account.process(HERE + "printf 'x%.0s' $(seq 1023) >output/message; printf 'é' >>output/message")
    )
    assert told["ExitMessage"] == "x" * 1023


def test_the_signal_that_stops_is_sigint(account: Account) -> None:
    name = account.process(
        HERE + "trap 'echo INT; exit 1' INT; trap 'echo TERM; exit 1' TERM; echo ready; while :; do sleep 0.1; done"
    )
    until(lambda: "ready" in account.said("Processing", name))
    account.sagemaker.stop_processing_job(ProcessingJobName=name)
    assert account.processed(name)["ProcessingJobStatus"] == "Stopped"
    assert account.said("Processing", name) == ["ready", signal.SIGINT.name.removeprefix("SIG")]


def test_arguments_alone_keep_the_entry_point_of_the_image(account: Account) -> None:
    name = account.name()
    account.sagemaker.create_processing_job(
        ProcessingJobName=name,
        RoleArn=ROLE,
        AppSpecification={"ImageUri": "image", "ContainerArguments": ["--help"]},
        ProcessingResources={"ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}},
    )
    assert account.processed(name)["ProcessingJobStatus"] == "Completed"
    assert account.said("Processing", name)[0].startswith("usage: mme")


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({"ProcessingInputs": [s3_input("a", "s3://b/c", LocalPath="/opt/ml/input")]}, "ValidationException", "LocalPath"),
        ({"ProcessingInputs": [s3_input("a", "s3://b", LocalPath="/opt/ml/processing/..")]}, "ValidationException", "Local"),
        ({"ProcessingInputs": [s3_input("a", "s3://b/c", S3InputMode="Pipe")]}, "NotImplemented", "Pipe"),
        ({"ProcessingInputs": [s3_input("a", "s3://b/c", S3CompressionType="Gzip")]}, "ValidationException", "Gzip"),
        ({"ProcessingInputs": [s3_input("a", "s3://b/c"), s3_input("a", "s3://b/c")]}, "ValidationException", "unique"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_not_played_is_refused(account: Account, asked: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(ClientError) as caught:
        account.process("true", **asked)
    error = caught.value.response["Error"]
    assert (error["Code"], words in error["Message"]) == (code, True), error


def test_an_input_without_objects_fails_the_job(account: Account) -> None:
    told = account.processed(account.process("true", ProcessingInputs=[s3_input("a", f"{account.uri}/none/")]))
    assert told["FailureReason"].startswith('ClientError: No S3 objects found under S3 URL "')
