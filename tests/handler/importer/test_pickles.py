from __future__ import annotations

import os
import pickle
import pickletools
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handler.errors import ArtifactBroken, ArtifactRefused
from handler.importer import import_booster, pickles
from handler.importer.broken import Damaged, Unsupported


class Runs:
    """What an attacker pickles: unpickling it calls something."""

    def __init__(self, call, *arguments):
        self.call = (call, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_booster_is_found_in_every_protocol(protocol, trained, ubj_bytes):
    found = pickles.read(pickle.dumps(trained, protocol=protocol))
    assert found.handle == bytes(trained.__getstate__()["handle"])
    assert (
        import_booster(pickle.dumps(trained, protocol=protocol), "x").document
        == import_booster(ubj_bytes, "x").document
    )


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_is_run(protocol, tmp_path):
    mark = tmp_path / "mark"
    data = pickle.dumps(Runs(os.mkdir, str(mark)), protocol=protocol)
    with pytest.raises(ArtifactRefused, match=r"posix\.mkdir"):
        import_booster(data, "x")
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.eval", "builtins.getattr", "xgboost.core.DMatrix", "numpy.load"]
)
def test_any_other_global_is_refused_by_its_name(name):
    module, _, attribute = name.rpartition(".")
    for data in (
        f"c{module}\n{attribute}\n.".encode(),
        b"\x80\x04"
        + b"\x8c"
        + bytes([len(module)])
        + module.encode()
        + b"\x8c"
        + bytes([len(attribute)])
        + attribute.encode()
        + b"\x93.",
        f"(i{module}\n{attribute}\n.".encode(),
    ):
        with pytest.raises(Unsupported, match=name.replace(".", r"\.")):
            pickles.read(data)


def test_an_allowed_call_with_a_huge_argument_allocates_nothing():
    data = pickle.dumps(Runs(bytearray, 1 << 50), protocol=4)
    tracemalloc.start()
    with pytest.raises((Damaged, Unsupported)):
        pickles.read(data)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("opcode", [b"B", b"T", b"X", b"\x8b", b"\x8e", b"\x8d", b"\x96"])
def test_a_length_past_the_end_is_damage(opcode):
    with pytest.raises(Damaged, match="truncated"):
        pickles.read(b"\x80\x05" + opcode + b"\xff" * 8 + b"abc.")


def test_a_memo_index_of_billions_costs_nothing():
    tracemalloc.start()
    with pytest.raises((Damaged, Unsupported)):
        pickles.read(b"\x80\x02Nr" + struct.pack("<I", 0xFFFFFFFF) + b".")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_value_that_doubles_sixty_times_is_never_unfolded():
    doubled = b"\x80\x02)q\x00" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)
    )
    for ending in (b".", b"}h\x3cNs.", b"\x8f(h\x3c\x90.", b"(h\x3c\x91."):
        begun = time.perf_counter()
        with pytest.raises((Damaged, Unsupported)):
            pickles.read(doubled + ending)
        assert time.perf_counter() - begun < 10


def test_millions_of_opcodes_are_refused_in_bounded_time():
    begun = time.perf_counter()
    with pytest.raises(Unsupported, match="steps"):
        pickles.read(b"\x80\x02" + b"]" * 20_000_000)
    assert time.perf_counter() - begun < 30  # 0.5 s on a machine with nothing else to do


def test_a_wrapper_that_was_never_fitted_says_so():
    data = b"\x80\x02cxgboost.sklearn\nXGBRegressor\n)\x81}X\x08\x00\x00\x00_BoosterNsb."
    with pytest.raises(ArtifactBroken, match="never fitted"):
        import_booster(data, "x")


def test_a_pickle_of_something_else_says_what_it_holds():
    with pytest.raises(ArtifactRefused, match="not a Booster"):
        import_booster(pickle.dumps({"weights": [1, 2]}), "x")
    with pytest.raises(ArtifactRefused, match="numpy"):
        import_booster(pickle.dumps(np.zeros(3)), "x")


def test_joblib_arrays_are_refused_with_the_way_out():
    with pytest.raises(Unsupported, match="save_model"):
        pickles.read(b"\x80\x04\x8c\x13joblib.numpy_pickle\x8c\x11NumpyArrayWrapper\x93.")


def test_a_pickle_inside_a_pickle_is_not_followed(trained):
    inner = pickle.dumps(trained)
    data = (
        b"\x80\x02cxgboost.core\nBooster\n)\x81}X\x06\x00\x00\x00handleB"
        + struct.pack("<I", len(inner))
        + inner
        + b"sb."
    )
    with pytest.raises(ArtifactBroken, match="handle"):
        import_booster(data, "x")


def test_every_opcode_real_pickles_use_is_known(stock):
    for name, data in stock.files.items():
        if name.endswith(".pkl"):
            for opcode, _, _ in pickletools.genops(data):
                assert opcode.code.encode("latin-1") in pickles._STEPS or opcode.name == "STOP", (name, opcode.name)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_end_in_one_of_two_errors(data):
    with pytest.raises((Damaged, Unsupported)):
        pickles.read(data)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [bytes([code]) for code in range(256)] + [b"(", b"]", b"}", b"N", b"K\x01", b"t", b"d", b"u", b"b"]
        ),
        max_size=60,
    )
)
def test_any_opcodes_end_in_one_of_two_errors(opcodes):
    with pytest.raises((Damaged, Unsupported)):
        pickles.read(b"\x80\x04" + b"".join(opcodes) + b".")
