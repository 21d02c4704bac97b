"""Draw where a detector's deformable attention samples an image: Fig. 5 of the Lite DETR paper.

Examples:
    from a point:        visualize_attention.py output/mine --image photo.jpg --point 320 200 --output attention.png
    a checkpoint:        visualize_attention.py --config-file FILE --weights dino.pth --image photo.jpg --object 1 \\
                             --output attention.png
    two models:          visualize_attention.py output/plain output/kda --image photo.jpg --object 1 --output kda.png
    a decoder's query:   visualize_attention.py output/mine --image photo.jpg --object 1 --decoder --output query.png
    a middle layer:      visualize_attention.py output/mine --image photo.jpg --point 320 200 --layer 2 --level 1 \\
                             --output attention.png

One row a model: the 100 strongest sampling points of the query on all levels; and the 200 strongest of all queries
together, on the second-finest level and on the finest one. The larger and the more opaque a mark, the larger its
weight.

The query of an encoder is a token that the layer updates, the nearest to the point: one of the coarsest level that the
layer updates, if --level does not say which. Level 0 is the finest. The layers of an interleaved encoder differ: one
that refines the high-level tokens updates the coarse levels, one that refines all of them updates every level.

Exit code: 0 done, 1 error, 2 wrong arguments.
"""

import argparse
import logging
import math
import sys
from collections.abc import Sequence

from lite_detr_d2.deploy.arguments import DetectorParser, check_config, detector_arguments, from_zero, path, positive
from lite_detr_d2.deploy.attention import NamedModel, Wanted, attention_figure
from lite_detr_d2.deploy.run import load_trained
from lite_detr_d2.engine import one_line_errors, open_console
from lite_detr_d2.visualization.attention import TOP_OF_QUERY
from lite_detr_d2.visualization.figure_files import check_figure_file, save_figure
from lite_detr_d2.wording import shown

logger = logging.getLogger("lite_detr_d2.visualize_attention")


def parser() -> argparse.ArgumentParser:
    result = DetectorParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    models = detector_arguments(
        result,
        "models",
        "RUN, or several; or --config-file with --weights, which is one more after them.",
        several=True,
    )
    models.add_argument("--device", metavar="D", help="such as cpu or cuda:1; CUDA where there is some, if not given")
    result.add_argument("--image", metavar="FILE", type=path, required=True)
    query = result.add_mutually_exclusive_group(required=True)
    query.add_argument(
        "--point",
        metavar=("X", "Y"),
        nargs=2,
        type=coordinate,
        help="look from here, in pixels of the image as it is displayed, from its upper left corner",
    )
    query.add_argument(
        "--object",
        metavar="N",
        type=positive,
        help="look from the object that the first RUN detects with the N-th highest score: from the centre of its box, "
        "or with --decoder from the query that detects it",
    )
    result.add_argument("--layer", metavar="I", type=from_zero, help="from 0, the first; the last if not given")
    result.add_argument(
        "--level",
        metavar="L",
        type=from_zero,
        help="of the token, from 0, the finest; the coarsest that the layer updates if not given",
    )
    result.add_argument(
        "--decoder",
        action="store_true",
        help="the decoder's attention to the image instead of the encoder's, of --object N; another RUN "
        "looks from its own object whose score times overlap with that is the largest",
    )
    result.add_argument(
        "--top", metavar="K", type=positive, default=TOP_OF_QUERY, help="points of the query (default: %(default)s)"
    )
    result.add_argument("--output", metavar="FILE", type=path, required=True, help="the picture, such as .png or .pdf")
    return result


def coordinate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}': expected a number of pixels")
    return value


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    commands = parser()
    args = commands.parse_args(arguments)
    if not (args.runs or args.config_file is not None):
        commands.error("give RUN, or --config-file FILE with --weights FILE")
    check_config(commands, args)
    if args.decoder and args.point is not None:
        commands.error("--decoder goes with --object N: a decoder's queries are of objects, not of points")
    if args.decoder and args.level is not None:
        commands.error("--level is of tokens, and a decoder's queries are none: leave it out, or --decoder")
    return args


def main(arguments: Sequence[str]) -> None:
    args = parse(arguments)
    open_console()
    check_figure_file(args.output)
    wanted = Wanted(
        point=None if args.point is None else tuple(args.point),
        object=args.object or 1,
        decoder=args.decoder,
        layer=args.layer,
        level=args.level,
    )
    figure = attention_figure(models(args), args.image, wanted, top=args.top)
    save_figure(figure, args.output)
    logger.info("The picture is %s", args.output)


def models(args: argparse.Namespace) -> list[NamedModel]:
    """The models, each with its row's name."""
    options = {"device": args.device, "trust_pickle": args.trust_pickle}
    if args.config_file is None and args.weights is not None:
        return [NamedModel(shown(args.weights), load_trained(args.runs[0], weights=args.weights, **options))]
    found = [NamedModel(shown(run), load_trained(run, **options)) for run in args.runs]
    if args.config_file is not None:
        model = load_trained(config_file=args.config_file, weights=args.weights, opts=args.opts, **options)
        found.append(NamedModel(shown(args.weights), model))
    return found


if __name__ == "__main__":
    with one_line_errors():
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the locale's encoding does not have
        main(sys.argv[1:])
