"""Convert a checkpoint of the Lite-DETR repository, so that MODEL.WEIGHTS can name it.

usage: convert_checkpoint.py INPUT OUTPUT [--classes keep|coco80]
"""

import argparse
import sys
from pathlib import Path

import torch

from lite_detr_d2.checkpoint import CLASS_CHOICES, convert_lite_detr, read_checkpoint
from lite_detr_d2.errors import InputError
from lite_detr_d2.files import write_atomically


def main() -> int:
    """Convert, print what became of every tensor, and save in detectron2's format; or say why not."""
    parser = argparse.ArgumentParser(description="Convert a Lite-DETR checkpoint to detectron2's format.")
    parser.add_argument("input", help='published .pth: a bare state dict or {"model": state dict}')
    parser.add_argument("output", help="where to write the converted .pth")
    parser.add_argument(
        "--classes",
        choices=CLASS_CHOICES,
        default="keep",
        help="keep: heads stay as wide as they are; coco80: from 91 COCO category ids to the 80 contiguous classes",
    )
    args = parser.parse_args()
    try:
        convert(args.input, Path(args.output), args.classes)
    except ValueError as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 1
    return 0


def convert(source: str, target: Path, classes: str) -> None:
    if target.is_dir() or not target.parent.is_dir():
        raise InputError(f"{target} cannot be written: OUTPUT must be a file in a folder that exists.")
    converted, report = convert_lite_detr(read_checkpoint(source), classes)
    if report.errors():
        raise InputError("\n".join([f"{source} is not a whole model; nothing is written.", *report.errors()]))
    print("\n".join(report.lines()))
    checkpoint = {"model": converted, "__author__": "lite_detr_d2", "matching_heuristics": False}
    write_atomically(str(target), lambda file: torch.save(checkpoint, file))
    print(f"Wrote {target}")


if __name__ == "__main__":
    sys.exit(main())
