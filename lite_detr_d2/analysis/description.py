"""What a detector costs, or two of them, in words for a terminal."""

from detectron2.config import CfgNode
from fvcore.nn import flop_count_table
from tabulate import tabulate

from .cost import IMAGE_SIZE, Cost, cost_of, count_operations, random_detector

_NAMED = ("backbone", "encoder", "decoder")


def describe(cfg: CfgNode, image_size: tuple[int, int] = IMAGE_SIZE) -> str:
    """Build the detector of ``cfg``, with random weights, and tell what its modules cost, and its parts.

    What is counted says :func:`.count_operations`.
    """
    model = random_detector(cfg)
    counted = count_operations(model, image_size)
    cost = cost_of(model, counted)
    parts = ", ".join(f"{name} {operations / 1e9:.2f}" for name, operations in cost.parts.items())
    return "\n".join(
        (
            flop_count_table(counted, max_depth=2),
            f"Parameters: {cost.parameters / 1e6:.2f} M",
            f"GFLOPs at 3 x {image_size[0]} x {image_size[1]}: {cost.multiply_adds / 1e9:.2f} ({parts})",
        )
    )


def compare(first: Cost, second: Cost, names: tuple[str, str]) -> str:
    """Lay out what two detectors cost, part by part, and their ratio.

    Args:
        first: one of them.
        second: the other, whose share of the first one's costs is the ratio.
        names: what they are called.

    Returns:
        Lines of a table: GFLOPs of backbone, encoder, decoder, the rest and all, and millions of parameters.
    """
    costs = [_amounts(cost) for cost in (first, second)]
    rows = [(part, *(each[part] for each in costs), _ratio(*(each[part] for each in costs))) for part in costs[0]]
    header = ("", *names, "ratio")
    formats = ("", ".3f", ".3f", "")
    sides = ("left", *["right"] * 3)
    return str(tabulate(rows, header, floatfmt=formats, colalign=sides, disable_numparse=[0, 3]))


def _amounts(cost: Cost) -> dict[str, float]:
    parts = {name: cost.parts[name] for name in _NAMED}
    parts |= {"rest": cost.multiply_adds - sum(parts.values()), "total": cost.multiply_adds}
    return {
        **{f"{name} (GFLOPs)": value / 1e9 for name, value in parts.items()},
        "parameters (M)": cost.parameters / 1e6,
    }


def _ratio(first: float, second: float) -> str:
    return f"{second / first:.1%}" if first else "-"
