"""Import the entry points, which belong to no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

PROJECT = Path(__file__).parents[2] / "projects" / "LiteDETR"
TINY = Path(__file__).parents[1] / "engine" / "tiny.yaml"


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROJECT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
