"""How messages name things: briefly, and in characters that every stream takes."""

import os
import unicodedata
from collections.abc import Sequence

_LONGEST_NAME = 80
# Unicode's categories of control characters, halves of characters, and ends of lines and of paragraphs.
_UNREADABLE = ("Cc", "Cs", "Zl", "Zp")


def in_short(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and whether there are more."""
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


def counted(number: int, noun: str, plural: str = "") -> str:
    """How many there are of something: "1 tensor", "2 tensors"; ``plural`` is for nouns that take more than an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def listed(title: str, lines: Sequence[str]) -> str:
    """A title, and lines indented below it; one line alone stands beside it."""
    return f"{title} {lines[0]}" if len(lines) == 1 else "\n  ".join([title, *lines])


def shown(path: str | os.PathLike[str]) -> str:
    """A path in full, on one line; what of it is not Unicode, or controls a terminal, is escaped."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNREADABLE else character
        for character in os.fspath(path)
    )


def shortened(name: str, most: int = _LONGEST_NAME) -> str:
    """A name, cut where it is too long to read; what cannot be printed is escaped."""
    text = name if name.isprintable() else ascii(name)[1:-1]
    return text if len(text) <= most else f"{text[: most - 3]}..."


def quoted(value: object) -> str:
    """A value of a file as it is spelt in Python, cut where it is too long to read."""
    try:
        return shortened(repr(value))
    except RecursionError:
        return f"a {type(value).__name__} of too many levels"


def one_line(error: Exception) -> str:
    """The message of an error that is not ours, in one line."""
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__
