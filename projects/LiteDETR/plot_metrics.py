"""Draw the curves of one or several trainings: losses, AP, learning rate, gradients.

Examples:
    one training:    plot_metrics.py output/mine
    side by side:    plot_metrics.py output/mine output/other --output compared.png
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lite_detr_d2.deploy.arguments import path
from lite_detr_d2.engine import one_line_errors
from lite_detr_d2.visualization import draw_curves
from lite_detr_d2.visualization.figure_files import check_figure_file


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path, help="OUTPUT_DIR of a training, or a metrics.json")
    parser.add_argument(
        "--output", metavar="FILE", type=path, help="the picture (default: curves.png in the first OUTPUT_DIR)"
    )
    args = parser.parse_args(arguments)
    files = [run / "metrics.json" if run.is_dir() else run for run in args.runs]
    output = args.output or files[0].with_name("curves.png")
    check_figure_file(output)
    draw_curves(dict(zip(names_of(files), files, strict=True)), output)
    print(f"{output} is written.")


def names_of(files: Sequence[Path]) -> list[str]:
    """What the runs are called: their folders, below the one that all share."""
    folders = [os.path.abspath(file.parent) for file in files]
    shared = os.path.commonpath(folders)
    names = [os.path.relpath(folder, shared) for folder in folders]
    if len(set(names)) < len(files):  # several files of one folder
        return [str(file) for file in files]
    return names


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
