"""Convert a checkpoint of the Lite-DETR repository, so that MODEL.WEIGHTS can name it.

usage: convert_checkpoint.py INPUT OUTPUT [--classes keep|coco80]
"""

import argparse
import sys

import torch

from lite_detr_d2.checkpoint import CLASS_CHOICES, convert_lite_detr, read_checkpoint


def main() -> int:
    """Convert, print what became of every tensor, and save in detectron2's format."""
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
        converted, report = convert_lite_detr(read_checkpoint(args.input), args.classes)
    except (ValueError, FileNotFoundError) as error:
        print(f"convert_checkpoint.py: {error}", file=sys.stderr)
        return 1
    print("\n".join(report.lines()))
    torch.save({"model": converted, "__author__": "lite_detr_d2", "matching_heuristics": False}, args.output)
    print(f"Wrote {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
