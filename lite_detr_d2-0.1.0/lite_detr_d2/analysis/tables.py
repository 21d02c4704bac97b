"""The paper's tables with our figures beside its own: as text, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from .cost import IMAGE_SIZE
from .paper import Cell, Paper, Row, Table
from .zoo import Figures, percent

_OURS, _PAPER, _BOTH = "ours", "paper", "both"


def as_text(paper: Paper, tables: Sequence[Table], figures: Mapping[str, Figures]) -> str:
    """Lay tables out for a terminal, a wide one.

    Args:
        paper: what it states.
        tables: those of its tables to lay out.
        figures: ours, of each config of their rows.
    """
    parts = []
    for table in tables:
        header, rows, sides = _grid(paper, table, figures)
        narrow = [name.replace(", ", " ").replace(" ", "\n") for name in header]
        # As a row like the others: tabulate pads headers.
        lines = tabulate([narrow, *rows], tablefmt="plain", colalign=sides, disable_numparse=True).splitlines()
        height = 1 + max(name.count("\n") for name in narrow)
        rule = "-" * max(map(len, lines))
        parts.append("\n".join([_title(table), "", *lines[:height], rule, *lines[height:]]))
    return "\n\n".join([*parts, "\n".join([_legend(), *_notes(paper, tables)])])


def as_markdown(paper: Paper, tables: Sequence[Table], figures: Mapping[str, Figures]) -> str:
    """Like :func:`as_text`, as Markdown."""
    parts = []
    for table in tables:
        header, rows, sides = _grid(paper, table, figures)
        grid = tabulate(rows, header, tablefmt="pipe", colalign=sides, disable_numparse=True)
        parts.append(f"### {_title(table)}\n\n{grid}")
    return "\n\n".join([*parts, _legend(), "\n".join(f"- {note}" for note in _notes(paper, tables))]).rstrip()


def as_json(paper: Paper, tables: Sequence[Table], figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Like :func:`as_text`, as what ``json.dumps`` takes.

    Of each row, "figures" has for each column "paper", what the paper states; and where we count it "ours" and
    "difference_percent".
    """
    return {
        "image": [3, *IMAGE_SIZE],
        "tables": {
            table.number: {
                "title": table.title,
                "rows": [_row_as_json(paper, table, row, figures) for row in table.rows],
            }
            for table in tables
        },
        "notes": paper.notes_of([row for table in tables for row in table.rows]),
    }


def _row_as_json(paper: Paper, table: Table, row: Row, figures: Mapping[str, Figures]) -> dict[str, Any]:
    cells: dict[str, dict[str, Cell]] = {}
    for column in table.columns:
        stated, ours = row.cells[column], _ours(paper, row, column, figures)
        cells[column] = {"paper": stated}
        if ours is not None:
            cells[column]["ours"] = float(ours)
            if isinstance(stated, int | float):
                cells[column]["difference_percent"] = round(percent(ours, stated), 1)
    return {"config": row.config, "source": _source(row), "figures": cells, "notes": list(row.notes)}


def _grid(paper: Paper, table: Table, figures: Mapping[str, Figures]) -> tuple[list[str], list[list[str]], list[str]]:
    """Names of columns, and whose figures they have; cells; and on which sides of their columns these stand."""
    columns: list[tuple[str, list[str]]] = []
    for column in table.columns:
        stated = [row.cells[column] for row in table.rows]
        whose = f", {_PAPER}" if column in (*paper.counted, *paper.measured) else ""
        columns.append((f"{column}{whose}", ["" if cell is None else str(cell) for cell in stated]))
        if column in paper.counted:
            columns.append((f"{column}, {_OURS}", [_beside(paper, row, column, figures) for row in table.rows]))
    columns.append(("source", [_source(row) for row in table.rows]))
    columns.append(("notes", [", ".join(row.notes) for row in table.rows]))
    header, cells = [name for name, _ in columns], [below for _, below in columns]
    sides = ["right" if any(cell[:1].isdigit() for cell in below) else "left" for below in cells]
    return header, [list(row) for row in zip(*cells, strict=True)], sides


def _ours(paper: Paper, row: Row, column: str, figures: Mapping[str, Figures]) -> str | None:
    if row.config is None or column not in paper.counted:
        return None
    return figures[row.config].stated(paper.counted[column])


def _beside(paper: Paper, row: Row, column: str, figures: Mapping[str, Figures]) -> str:
    ours, stated = _ours(paper, row, column, figures), row.cells[column]
    if ours is None or not isinstance(stated, int | float):
        return ours or ""
    return f"{ours} ({percent(ours, stated):+.1f} %)"


def _source(row: Row) -> str:
    return _PAPER if row.config is None else _BOTH


def _title(table: Table) -> str:
    return f"Table {table.number}: {table.title}"


def _legend() -> str:
    height, width = IMAGE_SIZE
    return (
        "paper: stated by the paper, AP included: we have not trained these models. ours: counted, of one image "
        f"of 3 x {height} x {width}, and in brackets how far that is above the paper's."
    )


def _notes(paper: Paper, tables: Sequence[Table]) -> list[str]:
    notes = paper.notes_of([row for table in tables for row in table.rows])
    return [f"{letter}: {text}" for letter, text in notes.items()]
