"""What the pages say to type: commands, as a reader copies them, and mentions of a program with its options."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = "projects/LiteDETR"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "llms.txt")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", PROJECT)),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# What a line of a command begins with, behind variables of the environment.
PROGRAMS = ("python", "torchrun", "make", "pip", "git", "cd", "pytest", "sbatch", ".venv/bin/python")
_SHELLS = ("sh", "bash", "console", "shell")
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", flags=re.M | re.S)
_INDENTED = re.compile(r"(?<=\n\n)(?:^ {4}.*\n)+", flags=re.M)
_SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Command:
    """A command of a page, and its words without variables of the environment and what follows "..."."""

    page: str
    words: tuple[str, ...]
    is_whole: bool = True  # else it is a mention, which need not have all that the program asks for

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"

    @property
    def script(self) -> Path | None:
        """The Python file that is run, if it is one; of a bare name, that of the project's programs."""
        if self.is_whole and self.words[0] not in ("python", "torchrun"):
            return None
        for word in self.words:
            if word.endswith(".py") and word != "setup.py":
                return ROOT / word if "/" in word else ROOT / PROJECT / word
        return None

    @property
    def arguments(self) -> list[str]:
        """What follows the Python file."""
        words = list(self.words)
        return words[next(place for place, word in enumerate(words) if word.endswith(".py")) + 1 :]


def commands_of(text: str, page: str) -> Iterator[Command]:
    """Yield the commands of a page, and the mentions in its prose."""
    text = re.sub(r"\\\n *", "", text)  # lines that go on
    for _, language, block in _FENCE.findall(text):
        yield from _of_block(block, page, is_shell=language in _SHELLS or (not language and _has_command(block)))
    prose = _FENCE.sub("", text)
    for block in _INDENTED.findall(prose):
        yield from _of_block(block, page, is_shell=_has_command(block))
    for span in _SPAN.findall(_INDENTED.sub("", prose)):
        words = _words(span.replace("\n", " "))
        if words and words[0] in PROGRAMS and len(words) > 1:
            yield Command(page, words)
        elif re.match(r"[\w/]+\.py .*-", span):
            yield Command(page, words, is_whole=False)


def all_commands() -> list[Command]:
    """The commands and mentions of all pages, each once."""
    found = (
        command
        for page in PAGES
        for command in commands_of(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))
    )
    return list(dict.fromkeys(found))


def _of_block(block: str, page: str, *, is_shell: bool) -> Iterator[Command]:
    if is_shell:
        yield from (Command(page, words) for words in _lines(block))


def _has_command(block: str) -> bool:
    """Whether it begins with one, rather than with what a program prints."""
    return next(_lines(block), ("",))[0] in PROGRAMS


def _lines(block: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each line that is not a comment."""
    for line in block.splitlines():
        if words := _words(line.strip().removeprefix("$ ")):
            yield words


def _words(line: str) -> tuple[str, ...]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # a quotation mark that is none of a shell
        return ()
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        del words[0]
    return tuple(word for word in words if word != "...")
