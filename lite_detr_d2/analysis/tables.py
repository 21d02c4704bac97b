"""The paper's tables with our figures beside its own: as text, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from .cost import IMAGE_SIZE
from .paper import Cell, Paper, Row, Table
from .zoo import Figures, percent

_OURS, _PAPER = "ours", "paper"
_BELOW, _BEHIND = "\n", ", "


def as_text(paper: Paper, tables: Sequence[Table], figures: Mapping[str, Figures]) -> str:
    """Lay tables out for a terminal.

    Args:
        paper: what it states.
        tables: those of its tables to lay out.
        figures: ours, of each config of their rows.
    """
    parts = [f"{_title(table)}\n\n{_laid_out(paper, table, figures, 'simple', _BELOW)}" for table in tables]
    return "\n\n".join([*parts, "\n".join([_legend(), *_notes(paper, tables)])])


def as_markdown(paper: Paper, tables: Sequence[Table], figures: Mapping[str, Figures]) -> str:
    """Like :func:`as_text`, as Markdown."""
    parts = [f"### {_title(table)}\n\n{_laid_out(paper, table, figures, 'pipe', _BEHIND)}" for table in tables]
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


def _laid_out(paper: Paper, table: Table, figures: Mapping[str, Figures], form: str, separator: str) -> str:
    """A table in a form of tabulate's, with ``separator`` between a column's name and whose figures it has."""
    header, sides = [], []
    for column in table.columns:
        whose = [_PAPER, _OURS] if column in paper.counted else [_PAPER] if column in paper.measured else []
        header += [f"{column}{separator}{each}" for each in whose] or [column]
        sides += ["right" for _ in whose] or ["left"]
    rows = []
    for row in table.rows:
        cells = []
        for column in table.columns:
            cells.append("" if row.cells[column] is None else str(row.cells[column]))
            if column in paper.counted:
                cells.append(_beside(_ours(paper, row, column, figures), row.cells[column]))
        rows.append([*cells, _source(row), ", ".join(row.notes)])
    header, sides = [*header, "figures", "notes"], [*sides, "left", "left"]
    return str(tabulate(rows, header, tablefmt=form, disable_numparse=True, colalign=sides))


def _ours(paper: Paper, row: Row, column: str, figures: Mapping[str, Figures]) -> str | None:
    if row.config is None or column not in paper.counted:
        return None
    return figures[row.config].stated(paper.counted[column])


def _beside(ours: str | None, stated: Cell) -> str:
    if ours is None:
        return ""
    return f"{ours} ({percent(ours, stated):+.1f} %)" if isinstance(stated, int | float) else ours


def _source(row: Row) -> str:
    return _PAPER if row.config is None else f"{_OURS}, {_PAPER}"


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
