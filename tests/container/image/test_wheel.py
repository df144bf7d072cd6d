"""What our wheel's name promises about systems."""

from __future__ import annotations

import pytest

from container.image.wheel import platform_tag


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (b"\0libm.so.6\0GLIBC_2.2.5\0expf\0GLIBC_2.27\0GLIBC_2.3\0", "manylinux_2_27_x86_64"),
        (b"\0GLIBC_2.2.5\0", "manylinux_2_17_x86_64"),  # no older one has a name
        (b"", "manylinux_2_17_x86_64"),
        (b"\0GLIBC_2.3\0GLIBC_2.38\0", "manylinux_2_38_x86_64"),
    ],
)
def test_the_newest_symbol_of_glibc_says_how_new_a_system_must_be(names: bytes, tag: str) -> None:
    assert platform_tag(b"\x7fELF" + names, "x86_64") == tag


def test_the_machine_is_named() -> None:
    assert platform_tag(b"\0GLIBC_2.17\0", "aarch64") == "manylinux_2_17_aarch64"
