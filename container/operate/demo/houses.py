"""House prices per city: made-up data by one formula, and a model for each city trained on it.

The idea, the features and the ten cities are those of AWS's post on multi-model endpoints of 2019. Formula and prices are
our own, and nobody should buy a house by them:

    price = city price x (sq ft / 2000)^0.85 x 0.997^(age in 2025) x (1 + 0.05 (baths - 2)) x (1 + 0.03 (beds - 3))
            x (1 + 0.08 acres) x (1 + 0.04 garage) x noise

with the city's price of a plain house, and log-normal noise of 5 %.

Rule: the same city is the same data, the same model and, on one machine, the same bytes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
import xgboost as xgb

from container.operate.artifacts import archive

FEATURES = ("built", "sq ft", "beds", "baths", "acres", "garage")

# USD for 2,000 square feet, new, 3 bedrooms, 2 bathrooms, no land, no garage. Round figures, in the right order.
CITIES = {
    "Chicago_IL": 340_000,
    "Dallas_TX": 380_000,
    "Houston_TX": 310_000,
    "LosAngeles_CA": 960_000,
    "NewYork_NY": 1_150_000,
    "Philadelphia_PA": 290_000,
    "Phoenix_AZ": 430_000,
    "SanAntonio_TX": 270_000,
    "SanDiego_CA": 890_000,
    "SanFrancisco_CA": 1_400_000,
}
NEW_CITY = "Seattle_WA"
NEW_CITY_PRICE = 820_000

THIS_YEAR = 2025
NOISE = 0.05
N_HOUSES = 3000
N_HELD_OUT = 600
N_TREES = 100

# One thread: next to a starting JVM on two cores, OpenMP's threads spin for one another, and ten cities took 28 s for 0.3.
_PARAMETERS = {"objective": "reg:squarederror", "max_depth": 5, "eta": 0.1, "nthread": 1, "seed": 0}


@dataclass(frozen=True, slots=True)
class House:
    """One row of features, in the order of FEATURES."""

    built: int
    square_feet: int
    bedrooms: int
    bathrooms: float
    acres: float
    garage: int

    @property
    def csv(self) -> str:
        return f"{self.built},{self.square_feet},{self.bedrooms},{self.bathrooms:g},{self.acres:g},{self.garage}"


@dataclass(frozen=True, slots=True)
class TrainedCity:
    """A city's model, packed. `median_error` is a share of the price, over houses it was not trained on."""

    city: str
    archive: bytes = field(repr=False)
    median_error: float


def target_of(city: str) -> str:
    return f"us/{city}.tar.gz"


def train_city(city: str, city_price: float) -> TrainedCity:
    """Generate the city's houses, train on all but some, and pack the model as SageMaker wants it."""
    random = np.random.default_rng(zlib.crc32(city.encode()))
    rows = draw_rows(random, N_HOUSES)
    prices = formula(rows, city_price) * random.lognormal(0.0, NOISE, N_HOUSES)
    known, held_out = slice(N_HELD_OUT, None), slice(0, N_HELD_OUT)
    booster = xgb.train(_PARAMETERS, xgb.DMatrix(rows[known], prices[known], nthread=1), N_TREES)
    predicted = booster.predict(xgb.DMatrix(rows[held_out], nthread=1))
    error = float(np.median(np.abs(predicted / prices[held_out] - 1)))
    return TrainedCity(city, pack(bytes(booster.save_raw("ubj"))), error)


def draw_rows(random: np.random.Generator, n_rows: int) -> np.ndarray:
    """float32, (n_rows, 6): houses as FEATURES names them, each number as a person would write it."""
    built = random.integers(1930, THIS_YEAR, n_rows)
    square_feet = np.clip(random.normal(2000, 600, n_rows), 700, 4500).round(-1)
    bedrooms = np.clip((square_feet / 650 + random.normal(0, 0.7, n_rows)).round(), 1, 6)
    bathrooms = np.clip((bedrooms * 0.7 + random.normal(0, 0.5, n_rows)) * 2, 2, 9).round() / 2
    acres = random.lognormal(-1.3, 0.7, n_rows).clip(0.05, 2).round(2)
    garage = random.integers(0, 4, n_rows)
    return np.column_stack([built, square_feet, bedrooms, bathrooms, acres, garage]).astype(np.float32)


def formula(rows: np.ndarray, city_price: float) -> np.ndarray:
    """USD, (n_rows,), without the noise: see the top of this page."""
    built, square_feet, bedrooms, bathrooms, acres, garage = rows.astype(np.float64).T
    price: np.ndarray = (
        city_price
        * (square_feet / 2000) ** 0.85
        * 0.997 ** (THIS_YEAR - built)
        * (1 + 0.05 * (bathrooms - 2))
        * (1 + 0.03 * (bedrooms - 3))
        * (1 + 0.08 * acres)
        * (1 + 0.04 * garage)
    )
    return price


def draw_house(random: np.random.Generator) -> House:
    built, square_feet, bedrooms, bathrooms, acres, garage = draw_rows(random, 1)[0].tolist()
    return House(int(built), int(square_feet), int(bedrooms), bathrooms, round(acres, 2), int(garage))


def pack(model: bytes) -> bytes:
    """`model` as the only member of a tar.gz."""
    return archive.pack({archive.MEMBER: model})
