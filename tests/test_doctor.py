"""``python -m lite_detr_d2.doctor``, run as a user runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lite_detr_d2 import doctor as doctor_module

ROOT = Path(__file__).parents[1]


def doctor(*arguments: str, root: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lite_detr_d2.doctor", *arguments],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def doctor_json(root: Path = ROOT, **environment: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(doctor("--json", root=root, **environment).stdout)
    return report


def test_compiled_ops_and_versions() -> None:
    report = doctor_json(LITE_DETR_PURE_TORCH="")
    assert report["compiled_ops"] is True
    assert report["reason"] == ""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert report["cuda_kernels"] == has_kernel("lite_detr::ms_deform_attn", "CUDA")
    assert report["torch"] == torch.__version__.partition("+")[0]
    assert Path(report["detectron2"]["path"]).name == "detectron2"
    assert report["detectron2"]["distribution"]


def test_fallback_by_request() -> None:
    report = doctor_json(LITE_DETR_PURE_TORCH="1")
    assert report["compiled_ops"] is False
    assert "LITE_DETR_PURE_TORCH=1" in report["reason"]


def test_text_repeats_why_the_build_failed(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "lite_detr_d2", tmp_path / "lite_detr_d2", ignore=ignored)
    (tmp_path / "lite_detr_d2" / "_C.build_error.txt").write_text("CompileError: no compiler here\n")
    lines = doctor(root=tmp_path, LITE_DETR_PURE_TORCH="").stdout.splitlines()
    assert any(line.split() == ["compiled_ops", "no"] for line in lines)
    assert any(line.startswith("reason") and "CompileError: no compiler here" in line for line in lines)


def test_without_detectron2_says_how_to_get_it(tmp_path: Path) -> None:
    # Python imports sitecustomize first of all: here it hides detectron2.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: find(name, package) if name != 'detectron2' else None\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    report = json.loads(doctor("--json", **environment).stdout)
    assert "make setup" in report["detectron2"]["error"]
    assert isinstance(report["compiled_ops"], bool)


def test_every_gpu_and_the_processor_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ["first", "second"][index])
    report = doctor_module.report()
    assert report["gpu"] == ["first", "second"]
    assert report["cpu"]["cores"] == os.cpu_count()
    assert report["cpu"]["torch_threads"] == torch.get_num_threads()
    assert report["cpu"]["capability"] == torch.backends.cpu.get_cpu_capability()


def test_text_is_a_line_for_each_fact(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"torch": "2.0", "cpu": {"cores": 8, "flag": False}, "compiled_ops": True, "reason": ""}
    monkeypatch.setattr(doctor_module, "report", lambda: facts)
    monkeypatch.setattr(sys, "argv", ["doctor"])
    doctor_module.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["torch", "2.0"],
        ["cpu"],
        ["cores", "8"],
        ["flag", "no"],
        ["compiled_ops", "yes"],
        ["reason", "-"],
    ]
