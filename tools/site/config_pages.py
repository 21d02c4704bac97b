"""Two pages of the site that are made of the code: every config key of ours, and every config that comes with it."""

import ast
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from lite_detr_d2.config import add_lite_detr_config, defaults, merge_file
from lite_detr_d2.config.schema import SCHEMA, leaves

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# What stands before a key in defaults.py, and the keys above it.
_SECTIONS = {"cfg.": "", "node.": "MODEL.LITE_DETR."}
_KEYS = """# Config keys

Every key that is added to detectron2's, with its default, what it may be, and what it is. `KEY VALUE` pairs at the end
of a command set them, and so do [config files](configs.md). The keys that are detectron2's own are in
[its documentation](https://detectron2.readthedocs.io/en/latest/modules/config.html#yaml-config-references).
"""
_SHIPPED = """---
hide: [toc]
---

# Configs

Every config that comes with the project; `--config-file` takes them. What they cost, and what AP the paper has, is in
[the model zoo](zoo.md); [which one to take](choosing.md). The key of each column is in [the list](config_keys.md).
"""
_FRAGMENTS = """
## Fragments

What the configs are made of: `_BASE_` of a config lists such files, of which later ones win. Combine them as you like.
"""


def keys_page() -> str:
    """Return the page of the keys, in Markdown: a section for each part of the config."""
    own, sections = own_keys(), dict[str, list[str]]()
    for key, text in described_keys().items():
        if key not in own:
            raise ValueError(f"defaults.py describes {key}, which the config does not have.")
        section, _, name = key.rpartition(".")
        row = [f"`{name}`", f"`{own[key]!r}`", SCHEMA[key].words, text]
        sections.setdefault(section, []).append(_line(row))
    if missing := own.keys() - described_keys():
        raise ValueError(f"defaults.py has no comment above {', '.join(sorted(missing))}: say what it is.")
    head = [_line(["key", "default", "what it may be", "what it is"]), _rule(4)]
    return "\n".join([_KEYS, *("\n".join([f"\n## {name}\n", *head, *rows]) for name, rows in sections.items()), ""])


def own_keys() -> dict[str, object]:
    """Return the keys that are added to detectron2's, and their defaults."""
    cfg, theirs = get_cfg(), dict(leaves(get_cfg()))
    add_lite_detr_config(cfg)
    return {key: value for key, value in leaves(cfg) if key not in theirs}


def described_keys() -> dict[str, str]:
    """Return what the comments of ``defaults.py`` say of keys, in the order that they stand in.

    A comment is of the keys below it, up to the next comment or empty line.
    """
    source = inspect.getsource(defaults)
    starts = {node.lineno: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)}
    comment, described = list[str](), dict[str, str]()
    before = ""
    for number, line in enumerate(map(str.strip, source.splitlines()), start=1):
        if line.startswith("#"):
            comment = [*comment, line.lstrip("# ")] if before.startswith("#") else [line.lstrip("# ")]
        elif not line:
            comment = []
        elif number in starts and comment:
            described |= dict.fromkeys(_keys_of(starts[number]), " ".join(comment))
        before = line
    return described


def _keys_of(assignment: ast.Assign) -> Iterator[str]:
    """The keys that a statement of ``defaults.py`` sets; a section that is empty as yet is none."""
    targets = assignment.targets[0]
    for target in targets.elts if isinstance(targets, ast.Tuple) else [targets]:
        name = ast.unparse(target)
        for start, section in _SECTIONS.items():
            if name.startswith(start):
                key, value = section + name.removeprefix(start), assignment.value
                if not isinstance(value, ast.Call):
                    yield key
                elif value.args and isinstance(value.args[0], ast.Dict):
                    yield from (f"{key}.{ast.literal_eval(each)}" for each in value.args[0].keys if each)


def shipped_page() -> str:
    """Return the page of the configs, in Markdown: a table for each folder, and one of the fragments."""
    columns = ["config", "encoder", "attention", "levels", "queries", "starts from", "batch", "iterations"]
    lines = [_SHIPPED]
    for folder in sorted(path for path in CONFIGS.iterdir() if path.name != "_base_"):
        lines += [f"\n## {folder.name}\n", _line(columns), _rule(len(columns))]
        lines += [_line(_shipped_row(path)) for path in sorted(folder.glob("*.yaml"))]
    lines += [_FRAGMENTS, _line(["file", "what it is"]), _rule(2)]
    for path in sorted((CONFIGS / "_base_").rglob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        name = path.relative_to(CONFIGS.parent)
        lines.append(_line([f"`{name}`", first.lstrip("# ") if first.startswith("#") else ""]))
    return "\n".join([*lines, ""])


def _shipped_row(path: Path) -> list[str]:
    cfg = _read(path)
    model, encoder = cfg.MODEL.LITE_DETR, cfg.MODEL.LITE_DETR.ENCODER
    return [
        f"`{path.stem}`",
        _encoder(encoder),
        "key-aware" if encoder.KEY_AWARE else "plain",
        str(model.NUM_LEVELS),
        str(model.NUM_QUERIES),
        "ImageNet" if cfg.MODEL.WEIGHTS else "scratch",
        str(cfg.SOLVER.IMS_PER_BATCH),
        f"{cfg.SOLVER.MAX_ITER:,}",
    ]


def _encoder(encoder: CfgNode) -> str:
    if encoder.NAME == "InterleavedEncoder":
        return f"`{encoder.SPEC}`{'' if encoder.FUSION == 'joint' else f', {encoder.FUSION}'}"
    of_rho = f", on {encoder.RHO:.0%} of the tokens" if encoder.NAME == "SparseEncoder" else ""
    return f"{encoder.NUM_LAYERS} plain layers{of_rho}"


def _read(path: Path) -> CfgNode:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    merge_file(cfg, str(path))
    return cfg


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _rule(columns: int) -> str:
    return "|---" * columns + "|"
