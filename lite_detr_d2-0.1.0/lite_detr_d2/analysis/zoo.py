"""The shipped configs: what each costs, and the model zoo's table."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from ..config import add_lite_detr_config, merge_file
from ..errors import InputError
from ..structures import FlattenedFeatures
from ..wording import in_short, shown
from .cost import Cost, cost_of, count_operations, random_detector
from .paper import Paper, Row

logger = logging.getLogger(__name__)

_LEVEL = re.compile(r"S\d+")
_FOLDERS = ("dino", "deformable_detr", "h_detr", "sparse_detr", "efficient_detr")
_BACKBONES = ("r50", "swint", "swinl", "convnextt", "efflite0", "r18")
_COLUMNS = "config", "AP (paper)", "params (M)", "GFLOPs", "backbone", "encoder", "decoder"
_PAPER_COLUMNS = "paper", "paper, encoder", "reference", "notes"


@dataclass(frozen=True)
class Figures:
    """What tables state of a model.

    Attributes:
        parameters: in millions.
        total: GFLOPs of an image, of 3 x 800 x 1066, in all;
        backbone: and of this part,
        encoder: this,
        decoder: and this.
        tokens: of each level, fine to coarse.
    """

    parameters: float
    total: float
    backbone: float
    encoder: float
    decoder: float
    tokens: tuple[int, ...] = ()

    @classmethod
    def of(cls, cost: Cost, tokens: tuple[int, ...] = ()) -> "Figures":
        """Take them from what was counted."""
        backbone, encoder, decoder = (cost.parts[name] / 1e9 for name in ("backbone", "encoder", "decoder"))
        return cls(cost.parameters / 1e6, cost.multiply_adds / 1e9, backbone, encoder, decoder, tokens)

    @property
    def others(self) -> float:
        """GFLOPs of all but backbone and encoder."""
        return self.total - self.backbone - self.encoder

    def stated(self, name: str) -> str:
        """A figure as tables state it.

        Args:
            name: of an attribute; or S1, S2, ... for a level's share of the tokens, in per cent, coarse to fine.
        """
        if _LEVEL.fullmatch(name):
            return f"{100 * self.tokens[-int(name[1:])] / sum(self.tokens):.2f}"
        return f"{getattr(self, name):.1f}"


def percent(ours: str, paper: float) -> float:
    """How far our figure, as stated, is above the paper's."""
    return (float(ours) / paper - 1) * 100


def models_of(configs: Path) -> list[list[Path]]:
    """The configs for COCO in a folder of the shipped ones: those of one model together, longest schedule first."""
    models: dict[str, list[Path]] = {}
    for folder in _FOLDERS:
        for path in sorted((configs / folder).glob("*ep.yaml"), key=_rank):
            models.setdefault(_read(path).MODEL.dump(), []).append(path)
    return list(models.values())


def count_configs(configs: Path, names: Sequence[str]) -> dict[str, Figures]:
    """Count the models of configs, on the CPU, and log the progress: it takes up to half a minute for each.

    Args:
        configs: the folder of the shipped ones.
        names: of files for COCO in it, without suffix.

    Returns:
        The figures by name.

    Raises:
        InputError: there is no config of a name.
    """
    there = {path.stem: path for folder in _FOLDERS for path in (configs / folder).glob("*ep.yaml")}
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(f"There is no config {in_short(missing)} in {shown(configs)}, of which a row of the paper is.")
    counted = {}
    for number, name in enumerate(names, start=1):
        logger.info("Counting %s (%d of %d)", name, number, len(names))
        counted[name] = _count(_read(there[name]))
    return counted


def _count(cfg: CfgNode) -> Figures:
    model = random_detector(cfg)
    tokens: list[tuple[int, ...]] = []

    def look(_: object, __: object, features: FlattenedFeatures) -> None:
        tokens.append(tuple(height * width for height, width in features.shapes))

    model.flatten.register_forward_hook(look)
    return Figures.of(cost_of(model, count_operations(model)), tokens[-1])


def _read(path: Path) -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    merge_file(cfg, str(path))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def _rank(path: Path) -> tuple[int, bool, str, int]:
    model, backbone, schedule = path.stem.rsplit("_", 2)
    return _BACKBONES.index(backbone), model.startswith("lite_"), model, -int(schedule.removesuffix("ep"))


def zoo_lines(paper: Paper, models: Sequence[Sequence[Path]], figures: Mapping[str, Figures]) -> Iterator[str]:
    """Lines of the model zoo's table, and its notes.

    Args:
        paper: what it states.
        models: as :func:`models_of` gives them.
        figures: by the name of each model's first config.
    """
    columns = [*_COLUMNS, *_PAPER_COLUMNS]
    yield _line(columns)
    yield "|---" * len(columns) + "|"
    rows = []
    for name, *twins in ([path.stem for path in paths] for paths in models):
        row = next(paper.rows_of(name, paper.zoo), Row({}, None, ""))
        rows.append(row)
        also = [f"`{twin.rpartition('_')[2]}`" for twin in twins]
        ours = figures[name]
        counts = [ours.stated(part) for part in ("parameters", "total", "backbone", "encoder", "decoder")]
        stated = [_stated(row, column, ours.stated(paper.counted[column])) for column in ("GFLOPs", "encoder GFLOPs")]
        ap, reference = _number(row.cells.get("AP")), _number(paper.reference.get(name, {}).get("total"))
        yield _line([", ".join([f"`{name}`", *also]), ap, *counts, *stated, reference, ", ".join(row.notes)])
    yield ""
    yield from (f"- {letter}: {text}" for letter, text in paper.notes_of(rows).items())


def _stated(row: Row, column: str, ours: str) -> str:
    stated = row.cells.get(column)
    return "" if not isinstance(stated, int | float) else f"{stated} ({percent(ours, stated):+.1f} %)"


def _number(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else ""


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
