"""What jobs would have cost, by the events that they really send."""

from __future__ import annotations

import pytest

from container.platform.bill.ledger import Line
from tests.container.platform.jobs.conftest import Account

USD_PER_HOUR = 0.115  # ml.m5.large


def line(account: Account, name: str) -> Line:
    (found,) = [one for one in account.platform.bill().lines if one.what == name]
    return found


def test_a_processing_job_costs_on_each_of_its_hosts_from_start_to_end(account: Account) -> None:
    name = account.process("exit 0", n_hosts=2)
    told = account.processed(name)
    found = line(account, name)
    seconds = 2 * (told["ProcessingEndTime"] - told["ProcessingStartTime"]).total_seconds()
    assert (found.kind, found.instance_type, found.n_running) == ("processing", "ml.m5.large", 0)
    assert found.seconds == pytest.approx(seconds, abs=0.1)
    assert found.usd == pytest.approx(seconds / 3600 * USD_PER_HOUR, abs=1e-5)


def test_a_training_job_costs_what_is_billed(account: Account) -> None:
    name = account.train("exit 0")
    told = account.trained(name)
    found = line(account, name)
    assert (found.kind, found.seconds) == ("training", told["BillableTimeInSeconds"])
    assert found.usd == pytest.approx(told["BillableTimeInSeconds"] / 3600 * USD_PER_HOUR)
