"""Options that several command lines have."""

import argparse
import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from ..errors import InputError

_Parser = argparse.ArgumentParser | argparse._ArgumentGroup


def add_trust_pickle(parser: _Parser) -> None:
    """Add ``--trust-pickle``, of every program that loads weights."""
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let a .pkl or .pyth file hold more than arrays and tensors, and run whatever it says; only for files of "
        "people that you trust",
    )


def add_import(parser: _Parser) -> None:
    """Add ``--import MODULE``, of every program that reads configs: what they name may be of the user's own.

    Modules are imported when the command line is parsed. A process that is started later, and gets the arguments as
    they are, calls :func:`import_modules` on ``args.modules``.
    """
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action=_Import,
        default=[],
        help="import MODULE first, which registers what the config names, such as an encoder, a backbone or a dataset; "
        "it is found as Python finds it, or in the folder that you are in. May be given several times",
    )


def import_modules(names: Iterable[str]) -> None:
    """Import modules, which register what configs name; also from the current folder.

    Raises:
        InputError: there is no such module. What a module that is there raises is passed on.
    """
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.append(folder)
    for name in names:
        try:
            importlib.import_module(name)
        except (ModuleNotFoundError, ValueError, TypeError) as error:
            missing = getattr(error, "name", None) or name
            if name != missing and not name.startswith(f"{missing}."):
                raise  # of a module that is there, and imports one that is not
            hint = ""
            if name.endswith(".py") or os.sep in name:
                hint = " Its name has no folders and no .py: name those that lead to it with dots, as Python does."
            raise InputError(
                f"--import {name}: there is no such module. It is looked for in {folder} and where Python finds "
                f"modules (PYTHONPATH).{hint}"
            ) from error


class _Import(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: Any = None
    ) -> None:
        import_modules([values])
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])
