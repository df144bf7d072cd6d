"""Made-up houses: the data is what the formula says, and the models learn it."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from container.operate.demo import houses


def test_a_plain_house_costs_the_citys_price() -> None:
    plain = np.array([[houses.THIS_YEAR, 2000, 3, 2, 0, 0]], np.float32)
    assert houses.formula(plain, 310_000).tolist() == [310_000]


@pytest.mark.parametrize("feature", range(len(houses.FEATURES)), ids=houses.FEATURES)
def test_more_of_anything_costs_more(feature: int) -> None:
    rows = houses.draw_rows(np.random.default_rng(1), 100)
    better = rows.copy()
    better[:, feature] += 1
    assert (houses.formula(better, 500_000) > houses.formula(rows, 500_000)).all()


def test_houses_are_such_as_people_live_in() -> None:
    built, square_feet, bedrooms, bathrooms, acres, garage = houses.draw_rows(np.random.default_rng(2), 5000).T
    for values, low, high in (
        (built, 1930, 2024), (square_feet, 700, 4500), (bedrooms, 1, 6), (bathrooms, 1, 4.5), (acres, 0.05, 2),
        (garage, 0, 3),
    ):  # fmt: skip
        assert (values.min() >= np.float32(low), values.max() <= np.float32(high)) == (True, True)
        assert len(np.unique(values)) > 3  # and they differ


def test_a_city_is_the_same_bytes_each_time_and_no_other_citys() -> None:
    once, again = houses.train_city("Houston_TX", 310_000), houses.train_city("Houston_TX", 310_000)
    assert once == again
    assert houses.train_city("Dallas_TX", 310_000).archive != once.archive


def test_models_are_about_as_good_as_the_noise_allows() -> None:
    # The median of |noise| is 0.674 of its deviation: 3.4 %
    for city, price in houses.CITIES.items():
        assert 0.02 < houses.train_city(city, price).median_error < 0.05


def test_an_archive_holds_the_one_member_that_sagemaker_looks_for() -> None:
    with tarfile.open(fileobj=io.BytesIO(houses.pack(b"model")), mode="r:gz") as archive:
        assert archive.getnames() == ["xgboost-model"]


def test_a_house_as_csv_is_its_features_in_order() -> None:
    assert houses.House(2017, 1680, 2, 1.5, 0.1, 2).csv == "2017,1680,2,1.5,0.1,2"
