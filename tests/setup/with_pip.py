"""Run the set-up's script as an interpreter would that brings another pip: with_pip.py WHEEL -I SCRIPT ARGUMENTS."""

import importlib.util
import sys
from pathlib import Path

UNPACK = "import sys, sysconfig, zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sysconfig.get_path('purelib'))"

wheel, *arguments = sys.argv[1:]
script, *arguments = [argument for argument in arguments if not argument.startswith("-")]
spec = importlib.util.spec_from_file_location("script", script)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.ENSURE_PIP = ("-c", UNPACK, wheel)
module.main(*map(Path, arguments))
