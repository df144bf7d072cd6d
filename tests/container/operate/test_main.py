"""What `mme` knows, and what a word costs that is said often."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from container.operate.main import main

LISTS_MODULES = """
import sys
from container.operate.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    print("numpy" in sys.modules, "boto3" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("word", ["serve", "health"])
def test_an_endpoints_start_and_its_health_check_import_nothing_of_the_other_commands(word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTS_MODULES, word, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith(f"usage: mme {word}")
    assert done.stderr == "False False\n"


def test_a_batch_imports_nothing_of_the_other_commands() -> None:
    lists = LISTS_MODULES.replace("numpy", "container.operate.train.command").replace(
        "boto3", "container.operate.platform"
    )
    done = subprocess.run(
        [sys.executable, "-c", lists, "score", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("usage: mme score")
    assert done.stderr == "False False\n"


def test_help_and_a_word_that_is_none_name_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["served"]):
        with pytest.raises(SystemExit):
            main(words)
        said = "".join(capsys.readouterr())
        for word in ("serve", "health", "demo", "invoke", "score", "train", "deploy", "platform"):
            assert word in said


COUNTS_THREADS = """
import os, sys
from container.operate.main import main
try:
    main(["score", "--help"])
finally:
    import numpy
    print(len(os.listdir("/proc/self/task")), file=sys.stderr)
"""


def test_a_batch_has_no_threads_of_blas() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    counted = subprocess.run([sys.executable, "-c", COUNTS_THREADS], env=environment, capture_output=True, text=True)
    assert counted.stderr.split() == ["1"]
