"""What Figure 1 of the Lite DETR paper is made of: AP over GFLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass

from .paper import Paper, Row
from .zoo import Figures

_AP, _TOTAL = "AP", "GFLOPs"


@dataclass(frozen=True)
class Model:
    """A point of the figure.

    Attributes:
        name: what it is called.
        gflops: of an image.
        ap: of COCO val2017, 0..100.
    """

    name: str
    gflops: float
    ap: float


@dataclass(frozen=True)
class Detector:
    """A detector and its Lite versions.

    Attributes:
        name: of the detector and its backbone.
        plain: as it is.
        lite: with other encoders, which their names are of.
    """

    name: str
    plain: Model
    lite: tuple[Model, ...]


def configs_of_figure(paper: Paper) -> list[str]:
    """The configs that the figure is of."""
    return [name for each in paper.figure["detectors"] for name in (each["plain"], *each["lite"])]


def detectors_of(paper: Paper, figures: Mapping[str, Figures]) -> list[Detector]:
    """Our detectors: the paper's AP, and our GFLOPs.

    Args:
        paper: what it states.
        figures: of :func:`configs_of_figure`.
    """

    def model(config: str) -> Model:
        row = next(paper.rows_of(config, paper.figure["tables"]))
        return Model(str(row.cells["model"]).split()[-1], figures[config].total, _number(row, _AP))

    return [
        Detector(each["name"], model(each["plain"]), tuple(model(name) for name in each["lite"]))
        for each in paper.figure["detectors"]
    ]


def others_of(paper: Paper) -> list[Model]:
    """The systems beside them, as the paper states them, GFLOPs included; those whose GFLOPs it gives."""
    ours = configs_of_figure(paper)
    rows = [row for number in paper.figure["tables"] for row in paper.tables[number].rows if row.config not in ours]
    return [
        Model(str(row.cells["model"]), _number(row, _TOTAL), _number(row, _AP))
        for row in rows
        if None not in (row.cells[_TOTAL], row.cells[_AP])
    ]


def _number(row: Row, column: str) -> float:
    value = row.cells[column]
    assert isinstance(value, int | float), (row, column)
    return float(value)
