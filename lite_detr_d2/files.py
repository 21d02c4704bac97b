"""Writing files."""

import os
from collections.abc import Callable
from typing import IO


def write_atomically(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a temporary file, sync it and rename it: a crash leaves what was at ``path`` before."""
    unfinished = f"{path}.unfinished"
    with open(unfinished, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
