"""The arithmetic of a month."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cost
from benchmarks.cost import Footprint, Instance, Prices, PricesInvalid

# AWS, "Save on inference costs by using Amazon SageMaker multi-model endpoints", November 2019: 1,000 models on endpoints
# of two ml.c5.large each cost $171,360 a month, on one endpoint of two ml.r5.2xlarge $1,017. The prices of that day:
POST = """
as_of = "2019-11-26"
source = "AWS Machine Learning Blog"
currency = "USD"
hours_per_month = 720
models = [10, 1000]
reserve = 0.1
instances_at_least = 2

[[instance]]
name = "ml.r5.2xlarge"
memory_gib = 64
per_hour = 0.706

[single]
name = "ml.c5.large"
memory_gib = 4
per_hour = 0.119
instances = 2
"""
STOCK = Footprint(fixed_bytes=1e9, model_bytes=45e6)  # what stock Multi Model Server takes
SMALL = Footprint(fixed_bytes=250e6, model_bytes=150e3)


@pytest.fixture
def post(tmp_path: Path) -> Prices:
    (tmp_path / "prices.toml").write_text(POST)
    return cost.read(tmp_path / "prices.toml")


def test_the_figures_of_awss_post_come_out_of_its_prices(post: Prices) -> None:
    assert cost.single_month(post, 1000) == pytest.approx(171_360)
    for footprint in (STOCK, SMALL):
        assert round(cost.shared_month(post, post.shared[0], 1000, footprint)) == 1_017
    assert cost.single_month(post, 10) - cost.shared_month(post, post.shared[0], 10, SMALL) < 1_000


def test_no_more_instances_are_paid_than_hold_the_models(post: Prices) -> None:
    tiny = Instance("tiny", memory_gib=1, per_hour=1.0)
    footprint = Footprint(fixed_bytes=0.4 * cost.GIB, model_bytes=0.09 * cost.GIB)
    # 0.9 GiB are for use, 0.5 of them for models: five to an instance.
    assert [cost.n_instances(post, tiny, n, footprint) for n in (1, 10, 11, 15, 16)] == [2, 2, 3, 3, 4]


def test_an_instance_without_room_for_one_model_is_said_to_be_so(post: Prices) -> None:
    with pytest.raises(ValueError, match=r"ml\.r5\.2xlarge has no room for one model"):
        cost.n_instances(post, post.shared[0], 1, Footprint(fixed_bytes=100e9, model_bytes=1e6))


def test_the_prices_in_the_repository_can_be_read_and_say_whose_and_when() -> None:
    prices = cost.read()
    assert prices.as_of.startswith("20")
    assert "https://" in prices.source
    for instance in prices.shared:
        assert 0 < cost.shared_month(prices, instance, 1000, SMALL) < cost.single_month(prices, 1000)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("per_hour = 0.119\n", "", "per_hour is missing"),
        ('as_of = "2019-11-26"\n', "", "as_of is missing"),
        ("reserve = 0.1", "reserve = 1.5", "reserve is a share from 0 to below 1, not 1.5"),
        ("hours_per_month = 720", "hours_per_month = 'many'", "could not convert string to float"),
        ("models = [10, 1000]", "models = [10,", "Invalid value"),
    ],
)
def test_a_file_that_was_edited_wrongly_is_told_where(tmp_path: Path, old: str, new: str, why: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(POST.replace(old, new))
    with pytest.raises(PricesInvalid, match=why):
        cost.read(path)
