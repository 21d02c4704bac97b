"""What the tests of sources look at."""

from pathlib import Path
from typing import Any

from lite_detr_d2.data.source import Content, Source, SourceHalf
from lite_detr_d2.data.sources import find_source


def found(root: Path, named: Path | None = None) -> Source:
    """What is found in a folder, or in what is named of it."""
    return find_source(named or root, root.parent / "workspace")


def places(source: Source) -> dict[str, tuple[str, set[str]]]:
    """Of each half, the annotation file and where its images are found, from the root on."""
    return {name: (relative(half.origin, source), folders(half, source)) for name, half in source.halves.items()}


def folders(half: SourceHalf, source: Source) -> set[str]:
    """The folders in which a half's images are."""
    return {relative(image_file(half, image["file_name"]).parent, source) for image in half.read()["images"]}


def image_file(half: SourceHalf, name: str) -> Path:
    """The first file of this name in a half's folders."""
    return next(folder / name for folder in half.folders if (folder / name).is_file())


def relative(path: Path, source: Source) -> str:
    """A path from the root on."""
    return path.relative_to(source.root).as_posix()


def boxes(content: Content) -> list[tuple[Any, ...]]:
    """The image's name, the class's name and the box, rounded, of all annotations, in order."""
    images = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
    classes = {category["id"]: category["name"] for category in content["categories"]}
    return sorted(
        (
            images[annotation["image_id"]],
            classes[annotation["category_id"]],
            *(round(value, 6) for value in annotation["bbox"]),
        )
        for annotation in content["annotations"]
    )


def sizes(content: Content) -> set[tuple[int, int]]:
    """The sizes of all images."""
    return {(image["width"], image["height"]) for image in content["images"]}
