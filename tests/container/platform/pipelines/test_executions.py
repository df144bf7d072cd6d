"""A pipeline runs: its steps one after the other or beside each other, what they say of one another, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.container.platform.jobs.conftest import until
from tests.container.platform.pipelines.conftest import Lines, at_most, got, joined, said, token
from tests.rig.platform import client, platform

ONE_FAILED = "Step failure: One or multiple steps failed."
INPUT = {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated"}


def s3_input(name: str, uri: Any) -> dict[str, Any]:
    source = {"S3Uri": uri, "LocalPath": f"/opt/ml/processing/{name}", "S3DataType": "S3Prefix", "S3InputMode": "File"}
    return {"InputName": name, "S3Input": source}


def abalone(account: Lines) -> list[dict[str, Any]]:
    """The steps of AWS's tutorial: prepare, train, evaluate, and where the error is small enough register."""
    prepare = account.processing("Prepare", "mkdir -p processing/out; echo 1,2 >processing/out/rows.csv", writes=True)
    prepared = got("Steps.Prepare.ProcessingOutputConfig.Outputs['out'].S3Output.S3Uri")
    channel = {
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {**INPUT, "S3Uri": prepared}},
        "ContentType": "text/csv",
    }
    train = account.training(
        "Train",
        "cat input/data/train/rows.csv >model/m; cat input/config/hyperparameters.json; echo 'loss=0.25;'",
        InputDataConfig=[channel],
        HyperParameters={"num_round": got("Parameters.Rounds"), "run": got("Execution.PipelineExecutionId")},
    )
    train["Arguments"]["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": "loss=([0-9.]+);"}]
    evaluate = account.processing(
        "Evaluate",
        "tar xzf processing/model/model.tar.gz -C processing/model; mkdir -p processing/out\n"
        'printf \'{"metrics": {"mse": {"value": 4.5}}, "of": "%s"}\' "$(cat processing/model/m)" >processing/out/out.json',
        writes=True,
    )
    evaluate["Arguments"]["ProcessingInputs"] = [s3_input("model", got("Steps.Train.ModelArtifacts.S3ModelArtifacts"))]
    container = {"Image": "image", "ModelDataUrl": got("Steps.Train.ModelArtifacts.S3ModelArtifacts")}
    register = {
        "Name": "Register",
        "Type": "RegisterModel",
        "Arguments": {
            "ModelPackageGroupName": account.name("group"),
            "ModelApprovalStatus": got("Parameters.Approval"),
            "CustomerMetadataProperties": {"of": said("Evaluate", "of"), "loss": joined(got(LOSS), on="")},
            "InferenceSpecification": {
                "Containers": [container],
                "SupportedContentTypes": ["text/csv"],
                "SupportedResponseMIMETypes": ["text/csv"],
            },
        },
    }
    model = {
        "Name": "Model",
        "Type": "Model",
        "Arguments": {"PrimaryContainer": container, "ExecutionRoleArn": train["Arguments"]["RoleArn"]},
    }
    decide = {
        "Name": "Decide",
        "Type": "Condition",
        "Arguments": {
            "Conditions": [at_most(said("Evaluate", "metrics.mse.value"), got("Parameters.Most"))],
            "IfSteps": [register, model],
            "ElseSteps": [
                {
                    "Name": "TooBad",
                    "Type": "Fail",
                    "Arguments": {"ErrorMessage": joined("mse >", got("Parameters.Most"), on=" ")},
                }
            ],
        },
    }
    return [prepare, train, evaluate, decide]


LOSS = "Steps.Train.FinalMetricDataList['loss'].Value"
PARAMETERS = [
    {"Name": "Rounds", "Type": "String", "DefaultValue": "10"},
    {"Name": "Most", "Type": "Float"},
    {"Name": "Approval", "Type": "String", "DefaultValue": "PendingManualApproval"},
]


def test_the_tutorials_pipeline_trains_evaluates_and_registers(account: Lines) -> None:
    account.sagemaker.create_model_package_group(ModelPackageGroupName=account.name("group"))
    name = account.pipeline(*abalone(account), Parameters=PARAMETERS)
    arn = account.start(name, PipelineParameters=[{"Name": "Most", "Value": "6.0"}], PipelineExecutionDisplayName="a")
    told = account.over(arn)
    steps = account.steps(arn)
    assert told["PipelineExecutionStatus"] == "Succeeded", steps
    assert list(steps) == ["Prepare", "Train", "Evaluate", "Decide", "Register", "Model"]
    assert {one["StepStatus"] for one in steps.values()} == {"Succeeded"}
    assert steps["Decide"]["Metadata"] == {"Condition": {"Outcome": "True"}}
    job = steps["Train"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    id = arn.rpartition("/")[2]
    assert job.startswith(f"pipelines-{id}-")
    asked = account.sagemaker.describe_training_job(TrainingJobName=job)
    assert asked["HyperParameters"] == {"num_round": "10", "run": id}
    package = account.sagemaker.describe_model_package(
        ModelPackageName=steps["Register"]["Metadata"]["RegisterModel"]["Arn"]
    )
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert package["CustomerMetadataProperties"] == {"of": "1,2", "loss": "0.25"}
    assert package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"].endswith(f"{job}/output/model.tar.gz")
    model = steps["Model"]["Metadata"]["Model"]["Arn"].rpartition("/")[2]
    assert account.sagemaker.describe_model(ModelName=model)["ModelArn"] == steps["Model"]["Metadata"]["Model"]["Arn"]
    shown = account.sagemaker.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"]
    assert [(one["PipelineExecutionArn"], one["PipelineExecutionDisplayName"]) for one in shown] == [(arn, "a")]
    given = account.sagemaker.list_pipeline_parameters_for_execution(PipelineExecutionArn=arn)["PipelineParameters"]
    assert given == [{"Name": "Most", "Value": "6.0"}]


def test_what_is_not_good_enough_takes_the_other_branch(account: Lines) -> None:
    name = account.pipeline(*abalone(account), Parameters=PARAMETERS)
    arn = account.start(name, PipelineParameters=[{"Name": "Most", "Value": "4"}])
    assert account.over(arn)["FailureReason"] == ONE_FAILED
    steps = account.steps(arn)
    assert list(steps) == ["Prepare", "Train", "Evaluate", "Decide", "TooBad"]
    assert steps["Decide"]["Metadata"] == {"Condition": {"Outcome": "False"}}
    assert steps["TooBad"]["FailureReason"] == "mse > 4.0"
    assert steps["TooBad"]["Metadata"] == {"Fail": {"ErrorMessage": "mse > 4.0"}}


def test_each_state_is_an_event_in_the_guides_shape(account: Lines) -> None:
    name = account.pipeline(account.processing("First", "true"))
    arn = account.start(name, PipelineExecutionDescription="why")
    account.over(arn)
    pipeline = account.sagemaker.describe_pipeline(PipelineName=name)["PipelineArn"]
    until(lambda: len(account.events(arn)) >= 5)
    sent = [one for one in account.platform.bus.sent if arn in one.resources]
    assert {one.resources for one in sent} == {(pipeline, arn)}
    whole = [one.detail for one in sent if one.detail_type.endswith("Pipeline Execution Status Change")]
    parts = [one.detail for one in sent if one.detail_type.endswith("Pipeline Execution Step Status Change")]
    assert [one["currentPipelineExecutionStatus"] for one in whole] == ["Executing", "Succeeded"]
    assert whole[-1].keys() == {
        *("pipelineExecutionDescription", "pipelineExecutionDisplayName", "currentPipelineExecutionStatus"),
        *("previousPipelineExecutionStatus", "executionStartTime", "executionEndTime", "pipelineArn"),
        "pipelineExecutionArn",
    }
    assert [one["currentStepStatus"] for one in parts] == ["Starting", "Executing", "Succeeded"]
    job = account.steps(arn)["First"]["Metadata"]["ProcessingJob"]["Arn"]
    last = dict(parts[-1])
    assert last.pop("stepStartTime") <= last.pop("stepEndTime")
    assert last == {
        "metadata": {"processingJob": {"arn": job}},
        "stepName": "First",
        "stepType": "Processing",
        "previousStepStatus": "Executing",
        "currentStepStatus": "Succeeded",
        "pipelineArn": pipeline,
        "pipelineExecutionArn": arn,
    }


def test_a_job_that_fails_fails_the_execution_and_nothing_begins_after_it(account: Lines) -> None:
    slow = account.processing("Slow", "while [ ! -e %s ]; do sleep 0.05; done")
    stop = account.folder / "stop"
    script = account.folder / "Slow.sh"
    script.write_text(script.read_text().replace("%s", str(stop)))
    bad = account.processing("Bad", "exit 3")
    name = account.pipeline(slow, bad, account.processing("After", "true", DependsOn=["Slow"]))
    arn = account.start(name)
    until(lambda: account.statuses(arn).get("Bad") == "Failed")
    assert account.statuses(arn)["Slow"] == "Executing"  # and is let end
    stop.touch()
    told = account.over(arn)
    assert (told["PipelineExecutionStatus"], told["FailureReason"]) == ("Failed", ONE_FAILED)
    assert account.statuses(arn) == {"Slow": "Succeeded", "Bad": "Failed"}
    assert account.steps(arn)["Bad"]["FailureReason"].startswith("AlgorithmError: ")


def test_a_job_that_is_refused_says_so_in_awss_words(account: Lines) -> None:
    refused = account.processing("Refused", "true")
    refused["Arguments"]["ProcessingResources"]["ClusterConfig"]["InstanceCount"] = got("Parameters.N")
    name = account.pipeline(refused, Parameters=[{"Name": "N", "Type": "Integer", "DefaultValue": 0}])
    arn = account.start(name)
    account.over(arn)
    reason = account.steps(arn)["Refused"]["FailureReason"]
    assert reason.startswith("ClientError: Failed to invoke sagemaker:CreateProcessingJob. Error Details: 1 validation")
    assert f"with PipelineExecutionArn {arn} and StepId Refused." in reason


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (said("Look", "missing.key"), "nothing at 'missing'"),
        (said("Look", "all"), "is no single value"),
        (got("Steps.Look.Nothing"), "nothing at 'Nothing'"),
        (
            {"Std:JsonGet": {"PropertyFile": got("Steps.Look.PropertyFiles.Other"), "Path": "a"}},
            "no property file Other",
        ),
    ],
)
def test_what_a_condition_does_not_find_fails_it(account: Lines, value: Mapping[str, Any], why: str) -> None:
    look = account.processing(
        "Look", "mkdir -p processing/out; echo '{\"all\": [1]}' >processing/out/out.json", writes=True
    )
    decide = {"Name": "Decide", "Type": "Condition", "Arguments": {"Conditions": [at_most(value, 1)], "IfSteps": []}}
    arn = account.start(account.pipeline(look, decide))
    assert account.over(arn)["PipelineExecutionStatus"] == "Failed"
    assert why in account.steps(arn)["Decide"]["FailureReason"]


def test_a_step_of_a_kind_that_is_not_played_fails_it_before_anything_is_started(account: Lines) -> None:
    name = account.pipeline(account.processing("First", "true"), {"Name": "Call", "Type": "Lambda", "Arguments": {}})
    arn = account.start(name)
    told = account.over(arn)
    assert told["FailureReason"] == "mme platform does not play these steps: Call (Lambda)"
    assert account.steps(arn) == {}


def test_stopped_it_stops_what_runs(account: Lines) -> None:
    runs = account.folder / "runs"
    name = account.pipeline(
        account.processing("Long", f"trap 'exit 0' INT; touch {runs}; while :; do sleep 0.05; done"),
        account.processing("After", "true", DependsOn=["Long"]),
    )
    arn = account.start(name)
    until(lambda: account.statuses(arn).get("Long") == "Executing" and runs.exists())
    with pytest.raises(ClientError, match="executions that run") as error:
        account.sagemaker.delete_pipeline(PipelineName=name, ClientRequestToken=token())
    assert error.value.response["Error"]["Code"] == "ConflictException"
    account.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=token())
    assert account.over(arn)["PipelineExecutionStatus"] == "Stopped"
    assert account.statuses(arn) == {"Long": "Stopped"}
    job = account.steps(arn)["Long"]["Metadata"]["ProcessingJob"]["Arn"].rpartition("/")[2]
    assert account.sagemaker.describe_processing_job(ProcessingJobName=job)["ProcessingJobStatus"] == "Stopped"
    with pytest.raises(ClientError, match="cannot be stopped"):
        account.sagemaker.stop_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=token())
    account.sagemaker.delete_pipeline(PipelineName=name, ClientRequestToken=token())
    with pytest.raises(ClientError) as gone:
        account.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
    assert gone.value.response["Error"]["Code"] == "ResourceNotFound"


def test_retried_it_goes_on_where_it_failed(account: Lines) -> None:
    mended = account.folder / "mended"
    first = account.processing(
        "First", "mkdir -p processing/out; echo '{\"n\": 1}' >processing/out/out.json", writes=True
    )
    second = account.processing("Second", f"[ -e {mended} ]", DependsOn=["First"])
    decide = {
        "Name": "Decide",
        "Type": "Condition",
        "DependsOn": ["Second"],
        "Arguments": {"Conditions": [at_most(said("First", "n"), 1)], "IfSteps": [account.processing("Third", "true")]},
    }
    arn = account.start(account.pipeline(first, second, decide))
    assert account.over(arn)["PipelineExecutionStatus"] == "Failed"
    before = account.steps(arn)
    mended.touch()
    for _ in range(2):  # asked again because the answer was lost
        account.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken="r" * 32)
    assert "FailureReason" not in until(
        lambda: told if (told := account.over(arn))["PipelineExecutionStatus"] == "Succeeded" else None
    )
    steps = account.steps(arn)
    assert {name: one["AttemptCount"] for name, one in steps.items()} == {
        "First": 1,
        "Second": 2,
        "Decide": 1,
        "Third": 1,
    }
    assert steps["First"] == before["First"]
    assert steps["Second"]["Metadata"] != before["Second"]["Metadata"]
    with pytest.raises(ClientError, match="can be retried"):
        account.sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=token())


def test_no_more_steps_run_at_once_than_allowed(account: Lines) -> None:
    stop = account.folder / "stop"
    waits = f"while [ ! -e {stop} ]; do sleep 0.05; done"
    name = account.pipeline(*(account.processing(f"Step{n}", waits) for n in range(3)))
    arn = account.start(name, ParallelismConfiguration={"MaxParallelExecutionSteps": 2})
    until(lambda: list(account.statuses(arn).values()) == ["Executing", "Executing"])
    stop.touch()
    assert account.over(arn)["PipelineExecutionStatus"] == "Succeeded"
    assert len(account.statuses(arn)) == 3


def test_a_start_asked_twice_is_one_and_what_it_gives_is_checked(account: Lines) -> None:
    word = {"Name": "W", "Type": "String", "EnumValues": ["a"], "DefaultValue": "a"}
    name = account.pipeline(Parameters=[{"Name": "N", "Type": "Integer"}, word])
    one, given = token(), [{"Name": "N", "Value": "3"}]
    arns = {account.start(name, ClientRequestToken=one, PipelineParameters=given) for _ in range(2)}
    assert len(arns) == 1
    assert account.over(arns.pop())["PipelineExecutionStatus"] == "Succeeded"
    for wrong, why in (
        ([], "do not have default value"),
        ([{"Name": "N", "Value": "three"}], "is no Integer"),
        ([*given, {"Name": "M", "Value": "1"}], "Unknown parameters"),
        ([*given, {"Name": "W", "Value": "b"}], "is none of"),
    ):
        with pytest.raises(ClientError, match=why):
            account.start(name, PipelineParameters=wrong)
    for what in ({"PipelineVersionId": 1}, {"SelectiveExecutionConfig": {"SelectedSteps": [{"StepName": "a"}]}}):
        with pytest.raises(ClientError) as error:
            account.start(name, PipelineParameters=given, **what)
        assert error.value.response["Error"]["Code"] == "NotImplemented"


def test_a_platform_that_ends_takes_its_executions_with_it_and_knows_of_them_later(tmp_path: Any) -> None:
    with platform(account="123123123123", state=tmp_path / "state") as made:
        account = Lines(made, tmp_path)
        stop = tmp_path / "stop"
        quick = account.processing("Quick", "true")
        long = account.processing("Long", f"while [ ! -e {stop} ]; do sleep 0.05; done", DependsOn=["Quick"])
        arn = account.start(account.pipeline(quick, long))
        until(lambda: account.statuses(arn).get("Long") == "Executing")
    with platform(account="123123123123", state=tmp_path / "state") as made:
        sagemaker = client(made.url, "sagemaker")
        told = sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        assert told["PipelineExecutionStatus"] == "Failed"
        assert "the platform ended" in told["FailureReason"]
        steps = sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=arn)["PipelineExecutionSteps"]
        assert [one["StepStatus"] for one in steps] == ["Failed", "Succeeded"]
        text = sagemaker.describe_pipeline_definition_for_execution(PipelineExecutionArn=arn)["PipelineDefinition"]
        assert json.loads(text)["Steps"][0]["Name"] == "Quick"
        stop.touch()
        sagemaker.retry_pipeline_execution(PipelineExecutionArn=arn, ClientRequestToken=token())
        again = Lines(made, tmp_path)
        until(lambda: again.over(arn)["PipelineExecutionStatus"] == "Succeeded")
        assert again.statuses(arn) == {"Quick": "Succeeded", "Long": "Succeeded"}
