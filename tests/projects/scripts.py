"""Import the entry points and the tools, which belong to no package."""

import importlib.util
from pathlib import Path
from types import ModuleType

PROJECT = Path(__file__).parents[2] / "projects" / "LiteDETR"
TOOLS = Path(__file__).parents[2] / "tools"
TINY = Path(__file__).parents[1] / "engine" / "tiny.yaml"


def load_script(name: str, folder: Path = PROJECT) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
