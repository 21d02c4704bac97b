"""Put pictures of one height side by side, in a file as small as PNG allows without loss."""

import argparse

from PIL import Image

GAP = 8


def main(output: str, names: list[str]) -> None:
    pictures = [Image.open(name).convert("RGB") for name in names]
    width = sum(picture.width + GAP for picture in pictures) - GAP
    sheet = Image.new("RGB", (width, pictures[0].height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + GAP
    sheet.save(output, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", metavar="OUTPUT")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+")
    options = parser.parse_args()
    main(options.output, options.pictures)
