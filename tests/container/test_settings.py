"""What an operator may set, and how a mistake is told."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container import settings
from container.settings import Artifacts, Front, Memory, SettingInvalid, Settings, size_bytes
from handler.payload import ACCEPTED


def test_defaults_need_only_the_models() -> None:
    read = settings.read({}, {"MME_MODELS": "s3://bucket/prefix/"})
    assert read == Settings(artifacts=Artifacts(models="s3://bucket/prefix/"))
    assert (read.front.host, read.front.port, read.memory.memory_bytes) == ("127.0.0.1", 8080, None)


def test_a_flag_wins_over_its_variable() -> None:
    assert settings.read({"port": "9000"}, {"MME_MODELS": "m", "MME_PORT": "9001"}).front.port == 9000


def test_sagemaker_says_which_port() -> None:
    assert settings.read({}, {"MME_MODELS": "m", "SAGEMAKER_BIND_TO_PORT": "8081"}).front.port == 8081


def test_one_setting_is_read_without_the_others() -> None:
    assert settings.read_one("port", None, {"SAGEMAKER_BIND_TO_PORT": "8081"}) == 8081
    assert settings.read_one("port", "9000", {"MME_PORT": "8081"}) == 9000
    assert settings.read_one("admin_port", None, {}) is None
    with pytest.raises(SettingInvalid, match="MME_PORT"):
        settings.read_one("port", None, {"MME_PORT": "http"})


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1", 1),
        ("1073741824", 1 << 30),
        ("2GiB", 2 << 30),
        ("2 GiB", 2 << 30),
        ("512MB", 512_000_000),
        ("1.5G", 1_500_000_000),
        ("64k", 64_000),
        ("10KiB", 10_240),
    ],
)
def test_sizes(text: str, n_bytes: int) -> None:
    assert size_bytes(text) == n_bytes


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MME_PORT", "http", "MME_PORT: 'http' is not a whole number from 1 to 32766"),
        ("MME_CAPTURE_MEMORY", "1", "MME_CAPTURE_MEMORY: '1' is not a size of 1MiB or more"),
        ("MME_PORT", "40000", "MME_PORT: '40000' is not a whole number from 1 to 32766"),
        ("MME_MEMORY", "much", "MME_MEMORY: 'much' is not a size such as 2GiB"),
        ("MME_MEMORY", "0", "not a size above zero"),
        ("MME_METRICS_NAMESPACE", "AWS/SageMaker", "not beginning with AWS/"),
        ("MME_METRICS_NAMESPACE", ":mine", "not a CloudWatch namespace"),
        ("MME_METRICS_NAMESPACE", "x" * 256, "not a CloudWatch namespace"),
        ("MME_METRICS_NAMESPACE", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "not a CloudWatch namespace"),
        ("MME_MEMORY", "-1", "not a size"),
        ("MME_WAIT_S", "nan", "seconds from 0 to 55"),
        ("MME_WAIT_S", "56", "seconds from 0 to 55"),
        ("MME_LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("MME_IGNORE_CODE", "maybe", "true or false"),
        ("MME_HOST", "a\nb", "printable"),
        ("MME_OUTPUT", "predicted_label,probabilty", "there is no 'probabilty'; there are score, predicted_label"),
        ("SAGEMAKER_INFERENCE_OUTPUT", "score,,leaf", "there is no ''"),
        ("MME_LIKE", "azure", "one of aws"),
        ("MME_FALLBACK", "/_default.tar.gz", "a key below the models' location"),
        ("MME_FALLBACK", "us/../_default.tar.gz", "a key below the models' location"),
        ("MME_COLUMNS", "order", "one of named, positional"),
        ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "text/html", "one of csv, json, text/csv"),
        ("SAGEMAKER_INFERENCE_ENSEMBLE", "maybe", "one of all, first, true, false"),
    ],
)
def test_a_bad_value_is_told_with_its_variable_and_what_fits(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingInvalid, match=says):
        settings.read({}, {"MME_MODELS": "m", variable: value})


@pytest.mark.parametrize(
    ("environ", "field", "value"),
    [
        ({"SAGEMAKER_INFERENCE_OUTPUT": "Predicted_Label, probability"}, "outputs", "Predicted_Label, probability"),
        ({"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "application/json"}, "accept", "application/json"),
        ({"MME_ACCEPT": "JSON"}, "accept", "application/json"),
        ({"SAGEMAKER_INFERENCE_ENSEMBLE": "false"}, "folds", "first"),
        ({"SAGEMAKER_INFERENCE_ENSEMBLE": "true"}, "folds", "all"),
        ({"MME_LIKE": "aws"}, "like", "aws"),
    ],
)
def test_amazons_variables_are_read_as_its_image_reads_them(environ: dict[str, str], field: str, value: str) -> None:
    assert getattr(settings.read({}, {"MME_MODELS": "m", **environ}).answers, field) == value


def test_every_answer_that_can_be_written_can_be_the_usual_one() -> None:
    assert set(settings.ANSWER_TYPES.values()) == set(ACCEPTED)


def test_a_bad_flag_is_told_by_its_flag() -> None:
    with pytest.raises(SettingInvalid, match="--port: '0' is not"):
        settings.read({"port": "0"}, {"MME_MODELS": "m"})


def test_without_models_both_ways_to_say_them_are_told() -> None:
    with pytest.raises(SettingInvalid, match=r"--models \(or MME_MODELS\)"):
        settings.read({}, {})


def test_every_setting_has_a_flag_whose_help_names_its_variable() -> None:
    parser = argparse.ArgumentParser()
    settings.add_flags(parser)
    text = parser.format_help()
    for one in settings.every_setting():
        assert one.metadata["flag"] in text
        assert one.metadata["variables"][0] in text.replace("\n", "").replace(" ", "")


@given(st.integers(1, 512), st.booleans(), st.one_of(st.none(), st.integers(1, 2**40)))
def test_settings_survive_the_way_to_the_runtime(workers: int, ignore_code: bool, memory: int | None) -> None:
    one = Settings(
        front=Front(workers=workers),
        artifacts=Artifacts(models="s3://b/ü", ignore_code=ignore_code),
        memory=Memory(memory_bytes=memory),
    )
    assert Settings.from_json(one.to_json()) == one


def test_no_two_groups_have_a_setting_of_one_name() -> None:
    names = [one.name for one in settings.every_setting()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("flags", "environ", "says"),
    [
        ({"disk_dir": "/d"}, {}, "--disk-dir: '/d' is not a setting of hosted mode"),
        ({}, {"MME_DISK_DIR": "/d"}, "MME_DISK_DIR: '/d' is not a setting of hosted mode"),
        ({"disk_bytes": "1G"}, {}, "--disk"),
        ({"preload": "all"}, {}, "--preload"),
        ({"pin": "a*"}, {}, "--pin"),
        ({"min_residence_s": "1"}, {}, "--min-residence"),
        ({"max_age_s": "1"}, {}, "--max-age: '1' is not used in hosted mode without --models"),
        ({"wait_s": "1"}, {}, "--wait"),
        ({"fallback": "_default.tar.gz"}, {}, "--fallback"),
        ({"workers": "1"}, {}, "--workers"),
        ({"endpoint_url": "http://127.0.0.1:1"}, {}, "--s3-endpoint-url"),
    ],
)
def test_hosted_mode_refuses_what_it_would_ignore(flags: dict[str, str], environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingInvalid, match=says):
        settings.read({"hosted": "true", **flags}, environ)


def test_hosted_mode_takes_the_prefix_that_the_platform_unpacks_from() -> None:
    flags = {"hosted": "true", "models": "s3://b/live/", "max_age_s": "5", "endpoint_url": "http://127.0.0.1:1"}
    artifacts = settings.read(flags, {}).artifacts
    assert (artifacts.models, artifacts.max_age_s, artifacts.endpoint_url) == ("s3://b/live/", 5, "http://127.0.0.1:1")


def test_standalone_mode_refuses_what_it_would_ignore() -> None:
    with pytest.raises(SettingInvalid, match="--max-models: '5' is not a setting of standalone mode"):
        settings.read({"models": "m", "max_models": "5"}, {})


def test_iterations_are_all_or_the_best_or_nobody_says() -> None:
    assert settings.read({"models": "."}, {}).answers.iterations == ""
    for text, wanted in (("all", "all"), ("Best", "best")):
        assert settings.read({"models": "."}, {"MME_ITERATIONS": text}).answers.iterations == wanted
    with pytest.raises(SettingInvalid, match="one of all, best"):
        settings.read({"models": "."}, {"MME_ITERATIONS": "half"})
