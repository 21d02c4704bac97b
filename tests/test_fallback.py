"""Tests again with the other implementation of the ops, in a process of its own: the choice is made on import."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lite_detr_d2.ops.deform_attn import compiled_ops_status

TESTS = Path(__file__).parent


def run_with_pure_torch(tests: str) -> str:
    """Run a file of tests, all of which have to pass, and return what pytest says."""
    compiled, reason = compiled_ops_status()
    assert compiled or os.environ.get("LITE_DETR_PURE_TORCH") == "1", f"both runs would use the fallback: {reason}"
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(TESTS / tests)],
        env=os.environ | {"LITE_DETR_PURE_TORCH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout
    return result.stdout


@pytest.mark.slow
def test_parity_with_the_pure_torch_ops() -> None:
    assert "skipped" not in run_with_pure_torch("parity/test_parity.py")


def test_errors_of_the_pure_torch_ops() -> None:
    """Of the public functions: those of the dispatcher's ops have no fallback."""
    counts = re.search(r"(\d+) passed, (\d+) skipped", run_with_pure_torch("ops/test_errors.py"))
    assert counts is not None
    assert int(counts[1]) > 60
