"""Put pictures of one height side by side, in a small PNG file."""

import argparse

from PIL import Image

GAP = 8


def main(output: str, names: list[str], most: int, height: int | None) -> None:
    pictures = [Image.open(name).convert("RGB") for name in names]
    if height is not None:
        pictures = [picture.crop((0, 0, picture.width, height)) for picture in pictures]
    width = sum(picture.width + GAP for picture in pictures) - GAP
    sheet = Image.new("RGB", (width, pictures[0].height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    if width > most:
        sheet = sheet.resize((most, round(sheet.height * most / width)), Image.Resampling.LANCZOS)
    sheet.save(output, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+")
    parser.add_argument("--width", metavar="N", type=int, default=2000, help="at most, in pixels (default: 2000)")
    parser.add_argument(
        "--height", metavar="N", type=int, help="of each picture, what is left of it from the top, in pixels"
    )
    options = parser.parse_args()
    main(options.output, options.pictures, options.width, options.height)
