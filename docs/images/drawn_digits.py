"""Draw what the documentation's pictures are of: the demo's digits, on drawn landscapes instead of photographs.

FOLDER gets val.json, in COCO's format, and 24 images of 256 x 256 pixels, images/drawn_NN.png, the same each time. The
digits are those that the demo evaluates on: its training has seen none of them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lite_detr_d2.data import digits

NUMBER, SIZE = 24, 256
# Of a landscape: the sky's upper end, its lower end, the nearest hills.
PALETTES = (
    ((38, 50, 92), (214, 122, 84), (33, 38, 56)),
    ((120, 178, 214), (232, 224, 196), (58, 110, 74)),
    ((30, 74, 82), (104, 160, 140), (18, 40, 52)),
    ((206, 190, 222), (246, 226, 204), (112, 92, 140)),
)


def landscape(rng: np.random.Generator) -> Image.Image:
    """A sky, whose colour changes downwards, a sun, and three ranges of hills, the nearest one darkest."""
    top, horizon, hills = (np.array(colour) for colour in PALETTES[rng.integers(len(PALETTES))])
    share = np.linspace(0, 1, SIZE)[:, None, None]
    sky = np.broadcast_to(top * (1 - share) + horizon * share, (SIZE, SIZE, 3)).astype(np.uint8)
    picture = Image.fromarray(sky)
    pen = ImageDraw.Draw(picture)
    centre, radius = rng.uniform(0.2, 0.8, size=2) * (SIZE, SIZE / 2), rng.uniform(10, 26)
    pen.ellipse([*(centre - radius), *(centre + radius)], fill=(248, 226, 160))
    along = np.arange(0, SIZE + 1, 4)
    for nearness in (1 / 3, 2 / 3, 1):
        waves = sum(
            rng.uniform(4, 60 / frequency) * np.sin(along / SIZE * 2 * np.pi * frequency + rng.uniform(0, 6.3))
            for frequency in (1, 2, 5)
        )
        ridge = SIZE * (0.45 + 0.4 * nearness) + waves
        colour = tuple((horizon * (1 - nearness) + hills * nearness).astype(int).tolist())
        pen.polygon([(0, SIZE), *zip(along.tolist(), ridge.tolist(), strict=True), (SIZE, SIZE)], fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(0.7))


def with_digits(rng: np.random.Generator) -> tuple[digits.Pixels, list[tuple[int, digits.Box]]]:
    """Pixels (SIZE, SIZE, 3), and each digit with its box."""
    pixels = np.array(landscape(rng))
    objects: list[tuple[int, digits.Box]] = []
    # Large digits first, as the demo's dataset has it.
    for height in sorted(np.exp(rng.uniform(np.log(22), np.log(150), size=rng.integers(3, 7))), reverse=True):
        digit, opacity = digits.glyph("val", float(height), rng)
        place = digits.free_place(opacity.shape, SIZE, [box for _, box in objects], rng)
        if place:
            digits.draw_glyph(pixels, opacity, place, rng)
            objects.append((digit, place))
    return pixels, objects


def main(folder: Path) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for image_id in range(1, NUMBER + 1):
        pixels, objects = with_digits(np.random.default_rng(image_id))
        for digit, box in objects:
            sizes = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": digit + 1, **sizes})
        name = f"drawn_{image_id:02d}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    main(parser.parse_args().folder)
