"""The file: what is read, what is refused, and what `init` writes."""

from __future__ import annotations

import pytest

from container.operate.deploy import command, file
from container.operate.deploy.file import FileInvalid, parse
from container.operate.deploy.plan import plan
from container.operate.deploy.starting import file_of
from tests.container.operate.deploy.files import nothing, text


@pytest.mark.parametrize("kind", file.KINDS)
def test_what_init_writes_can_be_read(kind: str) -> None:
    wanted = parse(file_of(kind))
    assert (wanted.kind, wanted.name, wanted.month_usd) == (kind, "prices", 500.0)


@pytest.mark.parametrize("kind", file.KINDS)
def test_what_init_writes_is_planned_as_it_is(kind: str) -> None:
    wanted = parse(file_of(kind))
    planned = plan(wanted, nothing(wanted))
    assert planned.refused == ()
    assert planned.steps


@pytest.mark.parametrize("kind", file.KINDS)
def test_every_key_that_init_writes_as_a_comment_holds_its_default(kind: str) -> None:
    def uncommented(line: str) -> str:
        return line[2:] if line.startswith("# ") and " = " in line and not line.startswith("# MME") else line

    given = "\n".join(uncommented(line) for line in file_of(kind).splitlines())
    assert parse(given) == parse(file_of(kind))


def test_the_command_knows_the_kinds() -> None:
    assert command.KINDS == file.KINDS


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("month_us = 3", "there is no key month_us; did you mean month_usd?"),
        ("[instances]\ntype = 'ml.m5.large'\nmots = 3", "there is no key instances.mots; did you mean most?"),
        ("[updates]\nway = 'canary'", "there is no key updates; did you mean update?"),
        ("[instances]\ntype = 'm5.large'\nmost = 3", "instances.type: 'm5.large' is not an instance type such as"),
        ("[instances]\ntype = 'ml.m5.large'", "instances.most is missing: machines at most"),
        ("[instances]\ntype = 'ml.m5.large'\nleast = 3\nmost = 2", "instances.least is 3, more than instances.most, 2"),
        ("[instances]\ntype = 'ml.m5.large'\nmost = true", "instances.most: True is not a whole number"),
        ("[serverless]\nconcurrency = 3", "[serverless] means nothing where kind is multi-model"),
        (
            "[update]\nway = 'canari'",
            "update.way: 'canari' is not one of all-at-once, canary, linear, rolling; did you mean",
        ),
        ("[update]\nwait_s = 3000\nold_s = 900", "the waits of an update alone take 3900 s"),
        ("[update]\nway = 'linear'\nstep_percent = 10\nwait_s = 400", "the waits of an update alone take 4300 s"),
        ("[update]\nway = 'linear'\nstep_percent = 5\nwait_s = 1", "update.step_percent is 10 to 50"),
        ("[environment]\nMME_MODELS = 's3://x/'", "environment.MME_MODELS is the deployment's own"),
        ("[environment]\nMME_PORT = 8080", "environment: {'MME_PORT': 8080} is not a table of texts"),
        ("[tags]\n'mme.asked' = 'x'", "tags.mme.asked: names that begin with"),
        ("update = 3", "update is a table: [update]"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(given: str, said: str) -> None:
    with pytest.raises(FileInvalid) as refused:
        parse(text(more=given))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (
            "zero",
            "[instances]\ntype = 'ml.m5.large'\nmost = 2\nleast = 1",
            "instances.least means nothing where kind is zero",
        ),
        ("zero", "[zero]\nnights = '22'", "zero.nights: '22' is not two hours"),
        ("zero", "[zero]\nnights = '22-22'", "zero.nights: '22-22' is not two hours"),
        ("zero", "[zero]\ntimezone = 'Berlin'", "zero.timezone: 'Berlin' is not a time zone"),
        ("zero", "[zero]\ntimezone = ['UTC']", "zero.timezone: ['UTC'] is not a time zone"),
        ("zero", "[zero]\nmemory = 64", 'zero.memory: 64 is not "auto" or MiB'),
        ("zero", "[update]\nwarm = ['a']", "update.warm means nothing where kind is zero"),
        ("serverless", "[serverless]\nmemory_gb = 7\nconcurrency = 1", "serverless.memory_gb: 7 is not a whole number"),
    ],
)
def test_what_a_kind_would_ignore_is_refused(kind: str, given: str, said: str) -> None:
    with pytest.raises(FileInvalid) as refused:
        parse(text(kind, given))
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["", "-a", "a-", "a_b", "a" * 51, "prices\n"])
def test_a_name_that_aws_would_refuse_is_refused_here(name: str) -> None:
    with pytest.raises(FileInvalid, match="name"):
        parse(text().replace('name = "prices"', f"name = {name!r}"))


def test_a_component_holds_fewer_variables() -> None:
    more = "[environment]\n" + "\n".join(f"MME_{n} = 'x'" for n in range(15))
    parse(text("multi-model", more))
    with pytest.raises(FileInvalid, match="environment has 15 variables; 13 is the most"):
        parse(text("zero", more))


def test_a_file_that_is_none_is_told_with_where() -> None:
    with pytest.raises(FileInvalid, match="Invalid value"):
        parse("kind = ")
    with pytest.raises(FileInvalid, match="kind is missing"):
        parse("")
