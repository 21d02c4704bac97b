"""Put pictures of one height side by side, in a file as small as PNG allows without loss.

usage: sheet.py OUTPUT PICTURE [PICTURE ...]
"""

import sys

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
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
