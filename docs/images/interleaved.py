"""Draw which tokens the layers of four encoders refine: interleaved.svg, as EncoderSpec schedules them."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from lite_detr_d2.encoder_spec import EncoderSpec

SHAPES = ((100, 134), (50, 67), (25, 34), (13, 17))  # of an 800 x 1066 image
STRIDES = (8, 16, 32, 64)
# Their GFLOPs are of DINO, from the model zoo.
ENCODERS = (
    (None, "138.7 GFLOPs"),
    ("H3L1-(2+1)x3", "55.0 GFLOPs, 40 %"),
    ("H3L1-(6+1)x1", "45.5 GFLOPs, 33 %"),
    ("H2L2-(2+1)x3", "33.0 GFLOPs, 24 %"),
)
WIDE, NARROW, KEPT = "#0550ae", "#80b3ff", "#ffffff"
LEFT, TOP, COLUMN, STEP, HEIGHT, ROW, GAP = 230, 64, 66, 80, 100, 152, 2
WIDTH = LEFT + 6 * STEP + 26


def layers_of(spec: str | None) -> list[str]:
    if spec is None:
        return ["all"] * 6
    parsed = EncoderSpec.parse(spec)
    return list(parsed.block_schedule("joint")) * parsed.blocks


def colour_of(level: int, refines: str, spec: str | None) -> str:
    is_low = spec is not None and level < EncoderSpec.parse(spec).low_levels
    if is_low:
        return NARROW if refines == "all" else KEPT
    return WIDE


def bars() -> Iterator[tuple[int, float, float]]:
    """Each level's number, top and height within a column; the coarsest is at the top."""
    tokens = [height * width for height, width in SHAPES]
    top = 0.0
    for level in reversed(range(len(SHAPES))):
        height = HEIGHT * tokens[level] / sum(tokens)
        yield level, top, height
        top += height + GAP


def text(x: float, y: float, content: str, more: str = "") -> str:
    return f'  <text x="{x:g}" y="{y:g}"{more}>{content}</text>'


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    place = f'x="{x:g}" y="{y:.1f}" width="{width:g}" height="{height:.1f}"'
    return f'  <rect {place} fill="{colour}" stroke="#57606a" stroke-width="0.75"/>'


def row_of(number: int, spec: str | None, cost: str) -> Iterator[str]:
    y = TOP + number * ROW
    yield text(24, y + 24, spec or "Deformable encoder", ' font-weight="bold"')
    yield text(24, y + 46, cost)
    for column, refines in enumerate(layers_of(spec)):
        x = LEFT + column * STEP
        for level, top, height in bars():
            yield rectangle(x, y + top, COLUMN, height, colour_of(level, refines, spec))
        words = {"all": "all tokens", "high": "high-level"}[refines]
        yield text(x + COLUMN / 2, y + HEIGHT + 24, words, ' text-anchor="middle" font-size="12" fill="#57606a"')


def shares() -> Iterator[str]:
    """In the plain encoder's first column: how many of the tokens each of the two finest levels has."""
    total = sum(height * width for height, width in SHAPES)
    for level, top, height in bars():
        share = SHAPES[level][0] * SHAPES[level][1] / total
        if share > 0.1:
            middle = f'{LEFT + COLUMN / 2:g}" y="{TOP + top + height / 2 + 5:.1f}'
            yield f'  <text x="{middle}" text-anchor="middle" font-size="14" fill="#ffffff">{share:.0%}</text>'
    words = "from the top: strides " + ", ".join(map(str, reversed(STRIDES)))
    yield text(24, TOP + 78, words, ' font-size="12" fill="#57606a"')


def drawing() -> Iterator[str]:
    bottom = TOP + len(ENCODERS) * ROW
    height = bottom + 84
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img"\n     font-family="sans-serif" font-size="15" fill="#1f2328">'
    )
    yield "  <title>Which tokens each layer of an encoder refines</title>"
    yield (
        "  <desc>Six layers of four encoders. The heights of the bars are the levels' shares of the tokens. The plain\n"
        "    encoder refines all tokens in each layer; interleaved ones refine the finest level, or the finest two,\n"
        "    in some layers only.</desc>"
    )
    yield f'  <rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#f6f8fa" stroke="#d0d7de"/>'
    for column in range(6):
        yield text(LEFT + column * STEP + COLUMN / 2, 40, f"layer {column}", ' text-anchor="middle"')
    for number, (spec, cost) in enumerate(ENCODERS):
        yield from row_of(number, spec, cost)
    yield from shares()
    legend = (
        (WIDE, "refined: attention and the feed-forward network"),
        (NARROW, "refined: attention and a feed-forward network an eighth as wide"),
        (KEPT, "not refined: keys and values only"),
    )
    for number, (colour, words) in enumerate(legend):
        y = bottom + 4 + 24 * number
        yield rectangle(LEFT, y, 16, 14, colour)
        yield text(LEFT + 26, y + 12, words, ' font-size="13"')
    yield "</svg>"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", metavar="FILE", type=Path)
    parser.parse_args().file.write_text("\n".join(drawing()) + "\n")
