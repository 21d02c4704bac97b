"""Parity again with the other implementation of the ops, in a process of its own: the choice is made on import."""

import os
import subprocess
import sys
from pathlib import Path

from lite_detr_d2.ops.deform_attn import compiled_ops_status


def test_parity_with_the_pure_torch_ops() -> None:
    compiled, reason = compiled_ops_status()
    assert compiled or os.environ.get("LITE_DETR_PURE_TORCH") == "1", f"both runs would use the fallback: {reason}"
    tests = str(Path(__file__).with_name("test_parity.py"))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests],
        env=os.environ | {"LITE_DETR_PURE_TORCH": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout and "skipped" not in result.stdout
