from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from container.platform.jobs.rooms import Room
from tests.container.platform.jobs.conftest import PATIENCE_S, ROLE, Account, channel, read_json, until

CONFIG = "${MME_OPT_ML:-/opt/ml}"
HERE = f"cd {CONFIG}\n"
TWO_HOSTS = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}


def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_job_finds_what_the_guide_says_and_its_model_is_one_tar(account: Account) -> None:
    account.put_at("train/a/1.csv", "1\n")
    account.put_at("train/2.csv", "2\n")
    script = (
        HERE
        + """
cat input/config/hyperparameters.json; echo
cat input/config/inputdataconfig.json; echo
cat input/config/resourceconfig.json; echo
echo $TRAINING_JOB_NAME $TRAINING_JOB_ARN $MINE
(cd input/data/train && find . -type f | sort)
mkdir model/deep; echo model >model/deep/m; ln -s deep/m model/link; echo metrics >output/data/metrics
"""
    )
    name = account.train(
        script,
        HyperParameters={"depth": "5"},
        Environment={"MINE": "yes"},
        InputDataConfig=[channel("train", f"{account.uri}/train", S3DataDistributionType="FullyReplicated")],
    )
    told = account.trained(name)
    said = account.said("Training", name)
    assert told["TrainingJobStatus"] == "Completed", (told.get("FailureReason"), said)
    assert read_json(said[0]) == {"depth": "5"}
    assert read_json(said[1]) == {
        "train": {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}
    }
    assert {**read_json(said[2]), "instance_groups": 0} == {
        "current_host": "algo-1",
        "hosts": ["algo-1"],
        "network_interface_name": "lo",
        "current_instance_type": "ml.m5.large",
        "current_group_name": "homogeneousCluster",
        "instance_groups": 0,
    }
    assert said[3:] == [f"{name} {told['TrainingJobArn']} yes", "./2.csv", "./a/1.csv"]
    assert told["ModelArtifacts"]["S3ModelArtifacts"] == f"{account.uri}/out/{name}/output/model.tar.gz"
    assert account.tar(f"out/{name}/output/model.tar.gz") == {"deep/m": b"model\n"}
    assert account.tar(f"out/{name}/output/output.tar.gz") == {"metrics": b"metrics\n"}
    stages = ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert [one["Status"] for one in told["SecondaryStatusTransitions"]] == stages
    events = account.events(told["TrainingJobArn"])
    assert [one["SecondaryStatus"] for one in events] == stages
    assert [one["TrainingJobStatus"] for one in events] == ["InProgress"] * 4 + ["Completed"]
    assert events[-1]["CreationTime"] == str(round(told["CreationTime"].timestamp() * 1000))
    json.dumps(events)


def test_compression_none_leaves_plain_objects(account: Account) -> None:
    name = account.train(
        HERE + "echo m >model/m; echo d >output/data/d",
        OutputDataConfig={"S3OutputPath": f"{account.uri}/out/", "CompressionType": "NONE"},
    )
    told = account.trained(name)
    assert told["ModelArtifacts"]["S3ModelArtifacts"] == f"{account.uri}/out/{name}/output/model/"
    assert account.objects(f"out/{name}/output/") == {"model/m": b"m\n", "data/d": b"d\n"}


def test_hosts_share_an_input_that_is_sharded_and_have_the_same_of_a_manifest(account: Account) -> None:
    for number in range(5):
        account.put_at(f"rows/{number}", "")
    account.put_at("lists/one.manifest", json.dumps([{"prefix": f"{account.uri}/rows/"}, "1", "4"]))
    script = (
        HERE
        + """
host=$(sed 's/.*"current_host": "\\([^"]*\\)".*/\\1/' input/config/resourceconfig.json)
ls input/data/split >model/split-$host; ls input/data/named >model/named-$host
"""
    )
    name = account.train(
        script,
        ResourceConfig=TWO_HOSTS,
        InputDataConfig=[
            channel("split", f"{account.uri}/rows/", S3DataDistributionType="ShardedByS3Key"),
            channel("named", f"{account.uri}/lists/one.manifest", S3DataType="ManifestFile"),
        ],
    )
    assert account.trained(name)["TrainingJobStatus"] == "Completed", account.said("Training", name)
    model = account.tar(f"out/{name}/output/model.tar.gz")
    assert (model["named-algo-1"], model["named-algo-2"]) == (b"1\n4\n", b"1\n4\n")
    assert sorted((model["split-algo-1"] + model["split-algo-2"]).split()) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_failure_is_told_in_the_programs_words_and_the_other_hosts_are_ended(account: Account) -> None:
    ready = account.folder / "ready"
    script = (
        HERE
        + f"""
if ! grep -q '"current_host": "algo-1"' input/config/resourceconfig.json; then
    trap 'exit 0' TERM; touch {ready}; while :; do sleep 0.1; done
fi
while ! [ -e {ready} ]; do sleep 0.1; done
printf '%01100d' 7 >output/failure; echo left >model/m; exit 3
"""
    )
    name = account.train(script, ResourceConfig=TWO_HOSTS)
    told = account.trained(name)
    assert told["TrainingJobStatus"] == "Failed"
    assert told["FailureReason"] == f"AlgorithmError: {'0' * 1100}, exit code: 3"[:1024]
    assert account.tar(f"out/{name}/output/model.tar.gz") == {"m": b"left\n"}
    assert account.events(told["TrainingJobArn"])[-1]["FailureReason"] == told["FailureReason"]


def test_a_job_that_is_stopped_has_its_signal_and_keeps_its_model(account: Account) -> None:
    name = account.train(
        HERE + "trap 'echo saved >model/m; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    )
    until(lambda: "ready" in account.said("Training", name))
    account.sagemaker.stop_training_job(TrainingJobName=name)
    assert account.sagemaker.describe_training_job(TrainingJobName=name)["TrainingJobStatus"] in ("Stopping", "Stopped")
    told = account.trained(name)
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert account.tar(f"out/{name}/output/model.tar.gz") == {"m": b"saved\n"}
    assert [one["TrainingJobStatus"] for one in account.events(told["TrainingJobArn"])][-2:] == ["Stopping", "Stopped"]
    assert refused(lambda: account.sagemaker.stop_training_job(TrainingJobName=name)) == (
        "ValidationException",
        "The request was rejected because the training job is in status Stopped.",
    )


def test_a_job_that_takes_too_long_is_stopped(account: Account) -> None:
    name = account.train(
        HERE + "trap 'exit 0' TERM; while :; do sleep 0.1; done", StoppingCondition={"MaxRuntimeInSeconds": 1}
    )
    told = account.trained(name)
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_checkpoints_are_there_while_the_job_runs_and_those_of_before_are_brought(account: Account) -> None:
    account.put_at("kept/before", "1\n")
    account.put_at("kept-not", "")
    name = account.train(
        HERE + "ls checkpoints; echo 2 >checkpoints/new; while ! [ -e checkpoints/go ]; do sleep 0.1; done",
        CheckpointConfig={"S3Uri": f"{account.uri}/kept"},
        StoppingCondition={"MaxRuntimeInSeconds": int(PATIENCE_S)},
    )
    until(lambda: account.objects("kept/").get("new") == b"2\n")
    assert account.said("Training", name) == ["before"]
    account.sagemaker.stop_training_job(TrainingJobName=name)


def test_without_data_a_job_is_refused_in_awss_words(account: Account) -> None:
    code, message = refused(
        lambda: account.train("true", InputDataConfig=[channel("train", f"{account.uri}/nothing/")])
    )
    assert code == "ValidationException"
    assert message.startswith(f'No S3 objects found under S3 URL "{account.uri}/nothing/" given in input data source.')
    assert ROLE in message


def test_what_a_manifest_names_and_is_not_there_fails_the_job(account: Account) -> None:
    account.put_at("one.manifest", json.dumps([{"prefix": f"{account.uri}/"}, "gone"]))
    name = account.train(
        "true", InputDataConfig=[channel("train", f"{account.uri}/one.manifest", S3DataType="ManifestFile")]
    )
    told = account.trained(name)
    assert told["TrainingJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("ClientError: NoSuchKey (404)")


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({"EnableManagedSpotTraining": True}, "ValidationException", "MaxWaitTimeInSeconds"),
        ({"StoppingCondition": {"MaxWaitTimeInSeconds": 5}}, "ValidationException", "MaxWaitTimeInSeconds"),
        ({"TrainingJobName": "no_underscores"}, "ValidationException", "trainingJobName"),
        (
            {"InputDataConfig": [{**channel("a", "s3://b/c"), "InputMode": "Pipe"}]},
            "NotImplemented",
            "Pipe",
        ),
        ({"ResourceConfig": {}}, "ValidationException", "InstanceType"),
    ],
)
def test_what_is_wrong_or_not_played_is_refused(account: Account, asked: dict[str, Any], code: str, words: str) -> None:
    found, message = refused(lambda: account.train("true", **asked))
    assert (found, words in message) == (code, True), message
    assert account.sagemaker.list_training_jobs(NameContains=account.name())["TrainingJobSummaries"] == []


def test_a_name_is_used_once_and_jobs_are_listed(account: Account) -> None:
    name = account.train("true", Tags=[{"Key": "team", "Value": "prices"}])
    code, message = refused(lambda: account.train("true"))
    assert (code, name in message) == ("ResourceInUse", True)
    told = account.trained(name)
    assert account.sagemaker.list_tags(ResourceArn=told["TrainingJobArn"])["Tags"] == [
        {"Key": "team", "Value": "prices"}
    ]
    listed = account.sagemaker.list_training_jobs(NameContains=name, StatusEquals="Completed")["TrainingJobSummaries"]
    assert [one["TrainingJobName"] for one in listed] == [name]
    assert refused(lambda: account.sagemaker.describe_training_job(TrainingJobName="none")) == (
        "ValidationException",
        "Requested resource not found.",
    )


def test_network_isolation_leaves_no_way_out(account: Account) -> None:
    if not account.platform.jobs.room.is_namespace:
        pytest.skip("namespaces are not permitted here")
    name = account.train("ls /sys/class/net; cat /proc/net/route | wc -l", EnableNetworkIsolation=True)
    assert account.trained(name)["TrainingJobStatus"] == "Completed"
    assert account.said("Training", name)[-1] in ("0", "1")  # a heading, at most


def test_the_last_value_of_a_metric_is_read_from_the_log(account: Account) -> None:
    script = "echo 'rmse: 3.5;'; echo 'rmse: 1.25;'; echo 'mae: none;'"
    metrics = [{"Name": name, "Regex": f"{name}: (.*?);"} for name in ("rmse", "mae")]
    algorithm = {
        "TrainingImage": "image",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": account.program(script),
        "MetricDefinitions": metrics,
    }
    told = account.trained(account.train(script, AlgorithmSpecification=algorithm))
    assert [(one["MetricName"], one["Value"]) for one in told["FinalMetricDataList"]] == [("rmse", 1.25)]
    algorithm["MetricDefinitions"] = [{"Name": "broken", "Regex": "("}]
    account.number += 1000
    assert refused(lambda: account.train(script, AlgorithmSpecification=algorithm))[0] == "ValidationException"


def test_without_a_namespace_what_names_opt_ml_names_the_hosts_tree(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(account.platform.jobs.__dict__, "room", Room())
    account.put_at("train/rows.csv", "1\n")
    script = """
cat $(sed 's/.*"data": "\\([^"]*\\)".*/\\1/' $MME_OPT_ML/input/config/hyperparameters.json)/rows.csv
cp "$1" $MME_OPT_ML/model/copied
"""
    words = [*account.program(script), "/opt/ml/input/data/train/rows.csv"]
    name = account.train(
        script,
        AlgorithmSpecification={"TrainingImage": "image", "TrainingInputMode": "File", "ContainerEntrypoint": words},
        HyperParameters={"data": "/opt/ml/input/data/train"},
        InputDataConfig=[channel("train", f"{account.uri}/train/")],
    )
    told = account.trained(name)
    assert told["TrainingJobStatus"] == "Completed", account.said("Training", name)
    assert account.said("Training", name) == ["1"]
    assert account.tar(f"out/{name}/output/model.tar.gz") == {"copied": b"1\n"}
