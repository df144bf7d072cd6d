"""An endpoint that has its models in memory when it says that it is ready."""

from __future__ import annotations

from pathlib import Path

from tests.rig import boosters
from tests.rig.endpoint import Endpoint

ROW = "0.1,0.2,0.3,0.4,0.5,0.6"


def test_the_first_call_of_a_preloaded_model_is_a_hit_and_pinned_ones_stay(segments: Path, scratch: Path) -> None:
    # room for three models
    flags = [
        "--preload",
        "us/*",
        "--pin",
        "us/5*",
        "--memory",
        boosters.memory_for(3.5, 4),
        "--workers",
        "4",
        "--loaders",
        "1",
    ]
    with Endpoint(segments, scratch, *flags) as endpoint:
        said = [line for line in endpoint.log if "preloaded" in line or "ready after" in line or "is full" in line]
        assert len(said) == 3, said
        assert "is full" in said[0]
        assert "ready after" in said[2]

        def first_words(number: int) -> str:
            return endpoint.post(f"us/{number}.tar.gz", ROW).headers["x-amzn-sagemaker-custom-attributes"]

        assert first_words(5) == "cache=hit"
        assert first_words(0) == "cache=hit"
        for number in range(4):
            first_words(number)
        assert first_words(5) == "cache=hit"
        assert first_words(0).startswith("cache=miss")


def test_a_start_has_in_memory_what_the_last_run_was_asked_for_most(segments: Path, scratch: Path) -> None:
    flags = ["--warm", "beside", "--warm-models", "2", "--workers", "4", "--loaders", "1", "--replica", "one"]
    with Endpoint(segments, scratch, *flags) as endpoint:
        for number in (3, 3, 3, 4, 4, 5):
            endpoint.post(f"us/{number}.tar.gz", ROW)
    assert [path.name for path in (segments.parent / f"{segments.name}.warm" / "local").iterdir()] == ["one.json"]
    with Endpoint(segments, scratch, *flags) as endpoint:
        lines = [line for line in endpoint.log if "preloaded 2 models" in line or "ready after" in line]
        assert len(lines) == 2
        assert "ready after" in lines[1]

        def first_words(number: int) -> str:
            return endpoint.post(f"us/{number}.tar.gz", ROW).headers["x-amzn-sagemaker-custom-attributes"]

        assert first_words(3) == first_words(4) == "cache=hit"
        assert first_words(5).startswith("cache=miss")
