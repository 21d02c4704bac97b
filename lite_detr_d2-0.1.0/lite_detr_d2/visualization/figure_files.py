"""What figures say, and figures as files."""

from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from ..errors import InputError
from ..files import check_output, write_atomically
from ..wording import shown

_DOTS_PER_INCH = 120


def check_figure_file(path: Path) -> None:
    """See that a figure can be written to a file, before there is one.

    Raises:
        InputError: its suffix is of no format of pictures, or it cannot be written.
    """
    known = sorted(FigureCanvasBase.get_supported_filetypes())
    if _format_of(path) not in known:
        raise InputError(f"{shown(path)} is not named as a picture: let it end in .png, or one of {', '.join(known)}.")
    check_output(path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's suffix names.

    Raises:
        InputError: it cannot be written.
    """
    write_atomically(str(path), lambda file: figure.savefig(file, format=_format_of(path), dpi=_DOTS_PER_INCH))


def _format_of(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def plain_text(name: str) -> str:
    """A name as matplotlib writes it as it is: text between dollar signs it takes for mathematics."""
    return name.replace("$", r"\$")
