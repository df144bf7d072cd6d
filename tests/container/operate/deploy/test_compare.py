"""The bill before and after, held against AWS's own sums."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from container.operate.deploy.compare import GIB, Load, Machines, compared, picture

# AWS's blog of 2019: two ml.c5.large (0.119) for each of 1,000 models; two ml.r5.2xlarge (0.706) for all; 720 hours.
AWS_LOAD = Load(n_models=1000, model_bytes=10 << 20, share_busy=0.1)
AWS_MACHINES = Machines(each_usd=0.119, shared_usd=0.706, shared_bytes=48 * GIB, n_least=2, hours_a_month=720)


def test_awss_own_sum_comes_out() -> None:
    each, multi, *_ = compared(AWS_LOAD, AWS_MACHINES)
    assert (round(each.usd), round(multi.usd)) == (171_360, 1_017)


def test_each_way_by_hand() -> None:
    load = Load(n_models=3000, model_bytes=4 << 20, calls_a_day=50_000, ms_a_call=10, awake_h=9, n_wakes=2, job_h=1)
    machines = Machines(each_usd=0.056, shared_usd=0.115, shared_bytes=6 * GIB, n_least=1)
    usd = {line.name: line.usd for line in compared(load, machines, serverless_gb=2)}
    days = 730 / 24
    assert usd["an endpoint each"] == pytest.approx(3000 * 0.056 * 730)
    assert usd["multi-model"] == pytest.approx(2 * 0.115 * 730)  # 11.7 GiB of models, 6 on each
    assert usd["zero"] == pytest.approx(2 * 0.115 * (9 + 2 * 25 / 60) * days)
    assert usd["serverless"] == pytest.approx(50_000 * days * 0.010 * 2 * 0.00002)
    assert usd["nightly batch"] == pytest.approx(0.115 * days)


def test_a_day_has_no_more_than_its_hours() -> None:
    zero = compared(Load(n_models=1, awake_h=24, n_wakes=10), AWS_MACHINES)[2]
    assert zero.usd == pytest.approx(0.706 * 730)


def test_the_picture_is_an_svg_with_every_line() -> None:
    lines = compared(AWS_LOAD, AWS_MACHINES)
    drawn = ElementTree.fromstring(picture(lines, "1,000 models & more"))
    text = " ".join(one.text or "" for one in drawn.iter() if one.tag.endswith("text"))
    assert all(line.name in text for line in lines)
    assert "171,360 USD" in text
    bars = [float(one.get("width", "0")) for one in list(drawn.iter("{http://www.w3.org/2000/svg}rect"))[1:]]
    assert bars[0] == max(bars)
