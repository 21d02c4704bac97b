"""Convert a published checkpoint, or one of lite_detr_d2 to another file format, so that MODEL.WEIGHTS can name it.

usage: convert_checkpoint.py INPUT OUTPUT [--classes keep|coco80|FILE.json] [--to transformers] [--ema] [--trust-pickle]
"""

import argparse
import operator
import sys
from pathlib import Path
from typing import Any

from lite_detr_d2.checkpoint import (
    SAFETENSORS,
    Format,
    StateDict,
    class_names_of,
    coco_categories,
    config_for_transformers,
    convert_published,
    count_classes,
    detect,
    differs_in_transformers,
    encoder_told,
    keep_coco_classes,
    names_by_place,
    published_class_names,
    read_checkpoint,
    rows_of_categories,
    select_rows,
    to_transformers,
    write_checkpoint,
    write_state,
)
from lite_detr_d2.data.source import read_coco_file
from lite_detr_d2.engine import add_trust_pickle
from lite_detr_d2.errors import InputError
from lite_detr_d2.wording import in_short

_OTHER_FORMATS = (".pkl", ".pyth")


def main() -> int:
    """Convert, print what became of every tensor, and save; or say why not."""
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint of Lite-DETR, DINO, Deformable-DETR, H-Deformable-DETR or Sparse DETR, of "
        "detrex (DINO, Deformable DETR, H-DETR) or transformers (DeformableDetrForObjectDetection), or an ImageNet "
        "backbone (torchvision's ResNet, the official Swin Transformer, EfficientNet-Lite0), whichever it is. A "
        "checkpoint of lite_detr_d2 keeps its names, and loses the state of its training.",
        epilog="train_net.py and detectron2's own checkpointer take published checkpoints as they are. Convert what "
        "DefaultPredictor is to load from .safetensors, which detectron2 does not read.",
    )
    parser.add_argument(
        "input",
        help=f'.pth with a bare state dict or {{"model": state dict}}, {SAFETENSORS} (safetensors package), or .pkl or '
        ".pyth as detectron2 reads them",
    )
    parser.add_argument("output", help=f"where to write; a name that ends in {SAFETENSORS} chooses that format")
    parser.add_argument(
        "--classes",
        metavar="keep|coco80|FILE",
        default="keep",
        help="keep (the default): heads stay as wide as they are, and train_net.py takes rows by name, or by "
        "MODEL.LITE_DETR.CLASS_ROWS ids; coco80: from COCO's 91 category ids to its 80 classes, in detectron2's order; "
        "FILE, annotations in COCO's format: the rows of their categories, and these' names; by name where the "
        "checkpoint names its classes, else by id, or in the order of ids where rows are for classes, as in detrex",
    )
    parser.add_argument(
        "--to",
        choices=["lite_detr_d2", "transformers"],
        default="lite_detr_d2",
        help="transformers: write the bare state dict of a Deformable DETR for DeformableDetrForObjectDetection, and "
        "print the arguments of its DeformableDetrConfig",
    )
    parser.add_argument(
        "--ema",
        action="store_true",
        help="take the average of the weights, which a training with SOLVER.EMA.ENABLED keeps beside them",
    )
    add_trust_pickle(parser)
    args = parser.parse_args()
    try:
        convert(args.input, Path(args.output), args.classes, to=args.to, ema=args.ema, trust_pickle=args.trust_pickle)
    except ValueError as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 1
    return 0


def convert(source: str, target: Path, classes: str, *, to: str, ema: bool, trust_pickle: bool) -> None:
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"{target} cannot be written: OUTPUT must be a file in a folder that exists.")
    if target.resolve() == Path(source).resolve():
        raise InputError(f"{target} is INPUT: name another OUTPUT, so that nothing of it is lost.")
    if target.suffix in _OTHER_FORMATS:
        raise InputError(
            f"{target}: detectron2 reads {target.suffix} files in another way; name it .pth or {SAFETENSORS}."
        )
    checkpoint = read_checkpoint(source, trust_pickle=trust_pickle)
    if ema:
        if "ema" not in checkpoint:
            raise InputError(f"{source} has no average of the weights (SOLVER.EMA): leave out --ema.")
        checkpoint["model"] = checkpoint["ema"]
    state, extra, published = our_checkpoint(source, checkpoint)
    given = class_names_of(source, checkpoint)
    by_id = given is None and (published is None or published.has_rows_of_ids)
    if classes == "coco80" and by_id:
        state, extra["class_names"] = keep_coco_classes(state)
    elif classes != "keep":
        names = coco_categories() if classes == "coco80" else categories_of(Path(classes))
        by = "ids" if by_id else "names"
        if given is None and not by_id:
            given, by = names_by_place(state, names), "places in the order of the ids"
        rows = rows_of_categories(state, names, given)
        others = [str(row) for row in range(count_classes(state) or 0) if row not in rows]
        state, extra["class_names"] = select_rows(state, rows, state), [names[each] for each in sorted(names)]
        print(f"Classes, by their {by}: {', '.join(extra['class_names'])}")
        print(f"Rows that no category has, left out: {in_short(others) or 'none'}")
    if to == "transformers":
        write_for_transformers(target, state, "published" if published is None else published.conventions)
    else:
        write_checkpoint(target, state, **extra)
    print(f"Wrote {target}")


def write_for_transformers(target: Path, state: StateDict, conventions: str) -> None:
    theirs, report = to_transformers(state)
    print("\n".join(report.lines()))
    config = config_for_transformers(state)
    arguments = ", ".join(f"{key}={value}" for key, value in config.items())
    queries = "" if "num_queries" in config else ", and with MODEL.LITE_DETR.NUM_QUERIES as two_stage_num_proposals"
    print(f"For DeformableDetrConfig({arguments}), with backbone, numbers of heads and of points as here{queries}")
    print("\n".join(differs_in_transformers(conventions)))
    write_state(target, theirs)


def categories_of(file: Path) -> dict[int, str]:
    """Category id -> name, of an annotation file."""
    if not file.is_file():
        raise InputError(f"--classes {file}: expected keep, coco80 or an annotation file, and there is no such file.")
    categories = read_coco_file(file)["categories"]
    try:
        return {operator.index(category["id"]): str(category["name"]) for category in categories}
    except (KeyError, TypeError) as error:
        raise InputError(f"--classes {file}: a category has no whole number as its id, or no name.") from error


def our_checkpoint(source: str, checkpoint: dict[str, Any]) -> tuple[StateDict, dict[str, Any], Format | None]:
    """Our tensors of a file, what is to be saved beside them, and whose format it had; None for ours."""
    state = checkpoint["model"]
    published = detect(state)
    is_our_backbone = published is None and checkpoint.get("matching_heuristics", False)
    if "flatten.level_embed" in state or is_our_backbone:
        print(f"{source} is of lite_detr_d2: {len(state)} tensors stay as they are.")
        extra = {key: checkpoint[key] for key in ("class_names", "matching_heuristics") if key in checkpoint}
        return state, extra, None
    converted, report = convert_published(state)
    if report.errors():
        raise InputError("\n".join([f"{source} is not a whole model; nothing is written.", *report.errors()]))
    print("\n".join(report.lines()))
    assert published is not None  # else it has not been converted
    told = encoder_told(checkpoint.get("args"))
    if told is not None:
        print(f"The options in the file name the encoder {told}: use it with a config of that.")
    names = checkpoint.get("class_names") or published_class_names(converted, by_id=published.has_rows_of_ids)
    extra = {"matching_heuristics": report.only_backbone} | ({"class_names": names} if names else {})
    return converted, extra, published


if __name__ == "__main__":
    sys.exit(main())
