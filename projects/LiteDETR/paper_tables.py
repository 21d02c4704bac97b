"""Put our GFLOPs and parameters beside those of the Lite DETR paper, whose Tables 1 to 6 and Figure 1 these are.

Examples:
    all tables:      paper_tables.py
    some, as text:   paper_tables.py --tables 3 5 --markdown
    as data:         paper_tables.py --tables 2 --json tables.json
    Figure 1:        paper_tables.py --tables 3 --figure tradeoff.png    (counts 19 models, whatever the tables)
    the model zoo:   paper_tables.py --write    (counts all configs, and writes the table of README.md)

AP is the paper's: these models have not been trained by us. What the paper states, and which config is the model of
which row, is in paper.json. Each model takes up to half a minute to count, on the CPU: all tables and the figure, ten
minutes.

Exit code: 0 done, 1 error, 2 wrong arguments.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from lite_detr_d2.analysis import (
    as_json,
    as_markdown,
    as_text,
    configs_of_figure,
    count_configs,
    detectors_of,
    models_of,
    others_of,
    read_paper,
    zoo_lines,
)
from lite_detr_d2.deploy.arguments import path
from lite_detr_d2.engine import one_line_errors, open_console
from lite_detr_d2.files import check_output, text_around, write_atomically
from lite_detr_d2.visualization import draw_tradeoff
from lite_detr_d2.visualization.figure_files import check_figure_file

logger = logging.getLogger("lite_detr_d2.paper_tables")

FOLDER = Path(__file__).resolve().parent
PAPER = FOLDER / "paper.json"
CONFIGS = FOLDER.parents[1] / "configs"
README = FOLDER / "README.md"
MARKS = "<!-- begin: paper_tables.py --write -->", "<!-- end -->"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--tables", metavar="N", nargs="+", help="numbers of tables, 1 to 6 (default: all)")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--json", metavar="FILE", type=path, help="write the tables as JSON, too")
    parser.add_argument(
        "--figure",
        metavar="FILE",
        type=path,
        help="draw Figure 1, too: a .png, .pdf or the like",
    )
    parser.add_argument("--write", action="store_true", help="write the model zoo's table in README.md, too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    with redirect_stdout(sys.stderr):  # standard output is for the tables
        open_console()
    paper = read_paper(PAPER)
    tables = paper.chosen(args.tables or list(paper.tables))
    models = models_of(CONFIGS) if args.write else []
    if args.json:
        check_output(args.json)
    if args.figure:
        check_figure_file(args.figure)
    if args.write:
        text_around(README, *MARKS)
        check_output(README)

    configs = [row.config for table in tables for row in table.rows if row.config is not None]
    configs += configs_of_figure(paper) if args.figure else []
    configs += [paths[0].stem for paths in models]
    figures = count_configs(CONFIGS, list(dict.fromkeys(configs)))

    print((as_markdown if args.markdown else as_text)(paper, tables, figures))
    if args.json:
        content = json.dumps(as_json(paper, tables, figures), indent=2, allow_nan=False).encode()
        write_atomically(str(args.json), lambda file: file.write(content))
        logger.info("The tables are in %s", args.json)
    if args.figure:
        draw_tradeoff(detectors_of(paper, figures), others_of(paper), args.figure)
        logger.info("The picture is %s", args.figure)
    if args.write:
        before, after = text_around(README, *MARKS)
        written = "\n".join([*zoo_lines(paper, models, figures), ""]).join([before, after]).encode()
        write_atomically(str(README), lambda file: file.write(written))
        logger.info("The model zoo's table is in %s", README)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
