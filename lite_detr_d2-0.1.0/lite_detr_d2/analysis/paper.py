"""The tables of the Lite DETR paper, as data: which row is of which config, and which column is of what we count."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..wording import shown

Cell = str | float | None


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        cells: by the names of the columns; None where the paper gives nothing.
        config: the name of our config that is its model, without suffix; None of a system that we do not have.
        notes: letters of the notes that explain how far our figures are from it.
    """

    cells: Mapping[str, Cell]
    config: str | None
    notes: str


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        number: its name, in the paper.
        title: what it is of.
        columns: names, in the paper's order.
        rows: likewise.
    """

    number: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Paper:
    """What the paper states.

    Attributes:
        tables: by their numbers.
        counted: by the name of a column, that of our figure which belongs beside it.
        measured: names of columns that are measured on trained models, which we do not have.
        zoo: numbers of the tables that state the figures of the model zoo, first choice first.
        figure: what Figure 1 has: "tables", and "detectors" with "name", "plain" and "lite", which are configs.
        reference: by config, GFLOPs that are counted on the authors' code, "total" and "encoder".
        notes: by letter.
    """

    tables: Mapping[str, Table]
    counted: Mapping[str, str]
    measured: tuple[str, ...]
    zoo: tuple[str, ...]
    figure: Mapping[str, Any]
    reference: Mapping[str, Mapping[str, float]]
    notes: Mapping[str, str]

    def chosen(self, numbers: Sequence[str]) -> list[Table]:
        """The tables of some numbers, in the paper's order.

        Raises:
            InputError: there is no table of a number.
        """
        for number in numbers:
            if number not in self.tables:
                raise InputError(
                    f"There is no Table {number} in the paper's figures: choose of {', '.join(self.tables)}."
                )
        return [table for number, table in self.tables.items() if number in numbers]

    def rows_of(self, config: str, numbers: Sequence[str]) -> Iterator[Row]:
        """Rows of a config, in the order of ``numbers``."""
        for number in numbers:
            yield from (row for row in self.tables[number].rows if row.config == config)

    def notes_of(self, rows: Sequence[Row]) -> dict[str, str]:
        """The notes that some rows have, by letter."""
        used = {letter for row in rows for letter in row.notes}
        return {letter: text for letter, text in self.notes.items() if letter in used}


def read_paper(file: Path) -> Paper:
    """Read the paper's figures from a JSON file.

    Raises:
        InputError: there is no such file, or it is not such a JSON.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Paper(
            tables={number: _table(number, table) for number, table in content["tables"].items()},
            counted=content["counted"],
            measured=tuple(content["measured"]),
            zoo=tuple(content["zoo"]),
            figure=content["figure"],
            reference=content["reference"],
            notes=content["notes"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{shown(file)} cannot be read as the paper's figures: {type(error).__name__} {error}."
        ) from error


def _table(number: str, content: Mapping[str, Any]) -> Table:
    columns = [name for name in content["columns"] if name not in ("config", "notes")]
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]
    return Table(
        number,
        content["title"],
        tuple(columns),
        tuple(Row({name: row[name] for name in columns}, row["config"], row["notes"]) for row in rows),
    )
