"""The price table against figures that AWS publishes, and against what botocore takes for an instance type."""

from __future__ import annotations

import botocore.session
import pytest

from container.platform.bill.prices import REGIONS, PriceUnknown, price_usd_per_hour
from container.platform.instance_types import GIB, INSTANCE_TYPES

# From AWS's Price List API (USE1-Host:...) and its price page, as others wrote them down.
PUBLISHED = {
    "ml.m5.large": 0.115,
    "ml.m5.xlarge": 0.23,
    "ml.m5.2xlarge": 0.461,
    "ml.m5.4xlarge": 0.922,
    "ml.m5.12xlarge": 2.765,
    "ml.m5.24xlarge": 5.53,
    "ml.c5.large": 0.102,
    "ml.c5.9xlarge": 1.836,
    "ml.c5.18xlarge": 3.672,
    "ml.r5.large": 0.151,
    "ml.r5.2xlarge": 0.605,
    "ml.g4dn.xlarge": 0.736,
}


@pytest.mark.parametrize("instance_type", PUBLISHED)
def test_the_rule_that_makes_the_table_gives_the_published_prices(instance_type: str) -> None:
    assert price_usd_per_hour(instance_type) == pytest.approx(PUBLISHED[instance_type], abs=0.0005)


@pytest.mark.parametrize(("region", "usd"), [("us-west-2", 0.115), ("eu-west-1", 0.128), ("eu-central-1", 0.138)])
def test_other_regions_cost_what_they_cost(region: str, usd: float) -> None:
    assert price_usd_per_hour("ml.m5.large", region) == pytest.approx(usd, abs=0.0005)


def test_every_type_is_one_that_sagemaker_hosts_and_every_region_one_that_it_is_in() -> None:
    session = botocore.session.get_session()
    known = session.get_service_model("sagemaker").shape_for("ProductionVariantInstanceType").enum
    assert set(INSTANCE_TYPES) <= set(known)
    assert set(session.get_available_regions("sagemaker")) >= REGIONS


def test_memory_and_processors_are_ec2s() -> None:
    types = pytest.importorskip("moto.ec2.models.instance_types").INSTANCE_TYPES
    for one in INSTANCE_TYPES.values():
        seen = types[one.name.removeprefix("ml.")]
        memory_bytes = seen["MemoryInfo"]["SizeInMiB"] << 20
        assert (one.vcpus, one.memory_bytes) == (seen["VCpuInfo"]["DefaultVCpus"], memory_bytes), one.name
    assert INSTANCE_TYPES["ml.m5.large"].memory_bytes == 8 * GIB


@pytest.mark.parametrize(("instance_type", "region"), [("ml.x9.large", "us-east-1"), ("ml.m5.large", "mars-north-1")])
def test_what_is_not_in_the_table_is_not_free(instance_type: str, region: str) -> None:
    with pytest.raises(PriceUnknown):
        price_usd_per_hour(instance_type, region)
