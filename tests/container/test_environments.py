"""What each child process may see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from container import environments, settings


def test_arrow_takes_its_memory_from_malloc_unless_somebody_has_said_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    for said in ("", "jemalloc"):
        monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", said) if said else None
        environments.let_arrow_use_malloc()
        assert os.environ["ARROW_DEFAULT_MEMORY_POOL"] == (said or "system")


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
    assert environments.mms_environment(environ) == {"PATH": "/bin", "JAVA_TOOL_OPTIONS": "-Dx=y"}


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
    given = environments.demo_environment(environ)
    kept = {name: given[name] for name in given if not name.startswith("AWS_") and name.lower() != "no_proxy"}
    assert kept == {"PATH": "/bin", "MME_JAVA_HOME": "/opt/java", "MME_SCRATCH": "/scratch"}
    assert given["AWS_SECRET_ACCESS_KEY"] == "demo"
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & given.keys()
    assert given["NO_PROXY"] == given["no_proxy"] == "127.0.0.1"


def test_java_may_come_from_elsewhere() -> None:
    assert environments.java_home({}) is None
    assert environments.java_home({"MME_JAVA_HOME": "/opt/java"}) == Path("/opt/java")


def test_a_hosted_container_is_given_no_setting_that_it_would_refuse() -> None:
    standalone_only = {
        variable: "x"
        for one in settings.every_setting()
        if "hosted" not in one.metadata["modes"]
        for variable in one.metadata["variables"]
    }
    assert environments.container_environment(standalone_only) == {"SAGEMAKER_MULTI_MODEL": "true"}
    needing = {
        variable: "1"
        for one in settings.every_setting()
        if one.metadata["needs"]
        for variable in one.metadata["variables"]
    }
    assert environments.container_environment(needing) == {"SAGEMAKER_MULTI_MODEL": "true"}
    needing["MME_MODELS"] = "s3://bucket/live/"
    assert environments.container_environment(needing) == {**needing, "SAGEMAKER_MULTI_MODEL": "true"}
    kept = {"MME_MEMORY": "1GiB", "MME_LOADERS": "2"}
    assert environments.container_environment(kept) == {**kept, "SAGEMAKER_MULTI_MODEL": "true"}


def test_the_examiner_which_runs_on_strangers_bytes_has_no_credentials() -> None:
    environ = {"PATH": "/bin", "LD_LIBRARY_PATH": "/opt", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ACCESS_KEY_ID": "a"}
    environ |= {
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/token",
        "DB_PASSWORD": "p",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": "u",
    }
    given = environments.examiner_environment(environ)
    assert given.keys() & environ.keys() == {"PATH", "LD_LIBRARY_PATH"}
    assert given["OMP_NUM_THREADS"] == "1"


def test_a_jobs_files_are_where_sagemaker_puts_them_unless_said_otherwise() -> None:
    assert environments.opt_ml({}) == Path("/opt/ml")
    assert environments.opt_ml({"MME_OPT_ML": "/tmp/job/ml"}) == Path("/tmp/job/ml")
