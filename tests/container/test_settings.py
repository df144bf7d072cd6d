"""What an operator may set, and how a mistake is told."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container import settings
from container.settings import SettingInvalid, Settings, size_bytes


def test_defaults_need_only_the_models() -> None:
    read = settings.read({}, {"MME_MODELS": "s3://bucket/prefix/"})
    assert read == Settings(models="s3://bucket/prefix/")
    assert (read.host, read.port, read.memory_bytes) == ("127.0.0.1", 8080, None)


def test_a_flag_wins_over_its_variable() -> None:
    assert settings.read({"port": "9000"}, {"MME_MODELS": "m", "MME_PORT": "9001"}).port == 9000


def test_sagemaker_says_which_port() -> None:
    assert settings.read({}, {"MME_MODELS": "m", "SAGEMAKER_BIND_TO_PORT": "8081"}).port == 8081


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
    ],
)
def test_a_bad_value_is_told_with_its_variable_and_what_fits(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingInvalid, match=says):
        settings.read({}, {"MME_MODELS": "m", variable: value})


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
    for one in fields(Settings):
        assert one.metadata["flag"] in text
        assert one.metadata["variables"][0] in text.replace("\n", "").replace(" ", "")


@given(st.integers(1, 512), st.booleans(), st.one_of(st.none(), st.integers(1, 2**40)))
def test_settings_survive_the_way_to_the_runtime(workers: int, ignore_code: bool, memory: int | None) -> None:
    one = Settings(models="s3://b/ü", workers=workers, ignore_code=ignore_code, memory_bytes=memory)
    assert Settings.from_json(one.to_json()) == one


def test_mms_is_told_neither_credentials_nor_settings_of_its_own() -> None:
    environ = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_SESSION_TOKEN": "t",
        "MY_PASSWORD": "p",
        "MMS_CONFIG_FILE": "/evil",
        "MODEL_SERVER_HOME": "/evil",
        "JAVA_TOOL_OPTIONS": "-Dx=y",
    }
    assert settings.mms_environment(environ) == {"PATH": "/bin", "JAVA_TOOL_OPTIONS": "-Dx=y"}


def test_the_demo_is_served_with_nobodys_credentials_and_settings() -> None:
    environ = {
        "PATH": "/bin",
        "MME_JAVA_HOME": "/opt/java",
        "MME_SCRATCH": "/scratch",
        "MME_PORT": "9000",
        "SAGEMAKER_MULTI_MODEL": "true",
        "AWS_PROFILE": "mine",
        "AWS_SESSION_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "s",
        "NO_PROXY": "example.com",
    }
    given = settings.demo_environment(environ)
    kept = {name: given[name] for name in given if not name.startswith("AWS_") and name.lower() != "no_proxy"}
    assert kept == {"PATH": "/bin", "MME_JAVA_HOME": "/opt/java", "MME_SCRATCH": "/scratch"}
    assert given["AWS_SECRET_ACCESS_KEY"] == "demo"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & given.keys()
    assert given["NO_PROXY"] == given["no_proxy"] == "127.0.0.1"


def test_java_may_come_from_elsewhere() -> None:
    assert settings.java_home({}) is None
    assert settings.java_home({"MME_JAVA_HOME": "/opt/java"}) == Path("/opt/java")
