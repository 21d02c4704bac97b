"""``python -m lite_detr_d2.doctor``: what is installed here, and whether the compiled ops are in use."""

import argparse
import importlib.util
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lite_detr_d2 import __version__
from lite_detr_d2.ops.deform_attn import compiled_ops_status

_DISTRIBUTIONS = ("torch", "torchvision", "numpy", "scipy", "fvcore", "pycocotools")
_DETECTRON2_MISSING = (
    "not installed, and needed for all but the ops: run `make setup` in a checkout of lite_detr_d2, or "
    "`pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git`"
)


def report() -> dict[str, Any]:
    """Collect the report; all values are JSON types.

    ``compiled_ops`` and ``cuda_kernels``, on a GPU, are bools, ``reason`` is why the former are not in use, or empty.
    """
    compiled, reason = compiled_ops_status()
    return {
        "lite_detr_d2": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in _DISTRIBUTIONS},
        "detectron2": _detectron2(),
        "compiled_ops": compiled,
        "cuda_kernels": compiled_ops_status("cuda")[0],
        "reason": reason,
        "cpu": _cpu(compiled),
        "gpu": _gpus(),
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _detectron2() -> dict[str, str]:
    """Its version, the distribution that brought it, and its folder; found without importing it."""
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:
        return {"error": _DETECTRON2_MISSING}
    distributions = metadata.packages_distributions().get("detectron2", [])
    name = ", ".join(sorted(set(distributions))) or "none (a source tree on the path)"
    version = ", ".join(metadata.version(distribution) for distribution in sorted(set(distributions))) or "unknown"
    return {"version": version, "distribution": name, "path": str(Path(spec.origin).parent)}


def _cpu(compiled: bool) -> dict[str, Any]:
    return {
        "capability": torch.backends.cpu.get_cpu_capability(),
        "capability_of_ops": torch.ops.lite_detr.cpu_capability() if compiled else "none",
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _lines(values: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
            lines.append(f"{indent}{name:<{24 - len(indent)}}{text or '-'}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m lite_detr_d2.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args()
    values = report()
    text = json.dumps(values, indent=2) if arguments.json else "\n".join(_lines(values))
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
