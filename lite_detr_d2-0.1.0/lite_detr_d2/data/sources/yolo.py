"""Datasets in YOLO's format: a text file for each image, a line for each box."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ...errors import InputError
from ...wording import shown
from ..source import Source, SourceHalf
from .pairs import Labels, by_half
from .tree import Tree, walk
from .words import half_of_folder, settle
from .yolo_config import Config, NotYaml, read_darknet, read_names, read_yaml
from .yolo_labels import Labelled, YoloReader, is_label_file

KIND = "YOLO"
_YAMLS = (".yaml", ".yml")
_USUAL_YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES_FILES = ("classes.txt", "obj.names")
# Text files that lie beside label files.
_NO_LABELS = frozenset(("classes.txt", "notes.txt", "labels.txt", "train.txt", "val.txt", "valid.txt", "test.txt"))


def find(tree: Tree) -> Source | None:
    """Find label files below a folder, and what says their classes and halves.

    That is a YAML file with 'names'; or Darknet's ``*.data``; or classes.txt or ``*.names``. Where it does not say the
    halves, folders do: those called train, valid, test and so on.

    Returns:
        The source, or None where no image has a label file in YOLO's format.

    Raises:
        InputError: several files would do, or one is broken or names what is not there.
    """
    config = _config(tree)
    labels = _label_files(tree)
    if config is None:
        names = _names_file(tree)
        if not any(is_label_file(file) for file in _some_labels(tree, labels)):
            return None
        config = Config(files=(names,) if names else (), names=read_names(names) if names else None)
    return _source(tree, config, labels)


def source_of_yaml(file: Path) -> Source:
    """Make a source of a YAML file as YOLO's trainers take it."""
    tree = walk(file.parent)
    config = read_yaml(file, tree)
    if config is None:
        raise InputError(f"{shown(file)} does not describe a dataset in YOLO's format: it has no list 'names'.")
    return replace(_source(tree, config, _label_files(tree)), root=file)


def _config(tree: Tree) -> Config | None:
    found: list[Config] = []
    for file in tree.with_suffix(*_YAMLS):
        try:
            config = read_yaml(file, tree)
        except NotYaml:
            if file.name.lower() in _USUAL_YAMLS:
                raise
            continue  # of something else
        if config is not None:
            found.append(config)
    found = found or [config for file in tree.with_suffix(".data") if (config := read_darknet(file, tree))]
    if len(found) > 1:  # the nearest to the root, and of those one with the usual name
        found.sort(key=lambda config: _rank(config.files[0]))
        best = [config for config in found if _rank(config.files[0]) == _rank(found[0].files[0])]
        # One for each half that says the same of the classes, and nothing of images, is as good as one for all.
        if len({config.names for config in best}) > 1 or (len(best) > 1 and any(config.images for config in best)):
            names = tree.names(config.files[0] for config in best)
            raise InputError(
                f"{shown(tree.root)} has several files that describe a dataset in YOLO's format: {names}. Call the one "
                "to use data.yaml, or name it instead of the folder."
            )
    return found[0] if found else None


def _rank(file: Path) -> tuple[int, int]:
    name = file.name.lower()
    return len(file.parts), _USUAL_YAMLS.index(name) if name in _USUAL_YAMLS else len(_USUAL_YAMLS)


def _names_file(tree: Tree) -> Path | None:
    files = [file for file in tree.with_suffix(".txt", ".names") if file.name.lower() in _NAMES_FILES]
    files = files or tree.with_suffix(".names")
    contents = {tuple(read_names(file)) for file in files}
    if len(contents) > 1:
        raise InputError(
            f"{shown(tree.root)} has several files of class names, which differ: {tree.names(files)}. Leave the one "
            "that its label files were written with."
        )
    return files[0] if files else None


def _label_files(tree: Tree) -> Labels:
    files = (file for file in tree.with_suffix(".txt") if file.name.lower() not in _NO_LABELS)
    return Labels.of(tree, (file for file in files if not file.name.lower().startswith("readme")))


def _some_labels(tree: Tree, labels: Labels) -> Iterator[Path]:
    """The first few label files that have an image and are not empty."""
    found = (file for image in tree.images if (file := labels.of_image(image, ".txt")))
    return islice((file for file in found if file.stat().st_size), 20)


def _source(tree: Tree, config: Config, labels: Labels) -> Source:
    on_disk = tree.images
    images = settle({half: found for half, found in config.images.items() if found}) or by_half(on_disk, tree.root)
    halves = {half: _labelled(found, tree, labels) for half, found in images.items()}
    used = [file for half in halves.values() for file in half.label_files]
    if not used:
        raise InputError(_no_labels(tree, config, images))
    for file in labels.without_image(used, on_disk):
        half = half_of_folder(file.parent, tree.root)
        where = half if half in halves else next(iter(halves))
        halves[where] = replace(halves[where], lost=(*halves[where].lost, file))
    reader = YoloReader(halves, config.names, config.keypoint_values)
    return Source(tree.root, KIND, {half: _half(reader, half, config) for half in halves})


def _labelled(images: Sequence[Path], tree: Tree, labels: Labels) -> Labelled:
    pairs = tuple((image, labels.of_image(image, ".txt")) for image in images)
    files = [file for pair in pairs for file in pair if file]
    inside = all(file.is_relative_to(tree.root) for file in files)
    return Labelled(tree.root if inside else Path(os.path.commonpath([file.parent for file in files])), pairs)


def _half(reader: YoloReader, half: str, config: Config) -> SourceHalf:
    labelled = reader.halves[half]
    files = [*config.files, *config.lists, *labelled.label_files, *labelled.lost]
    folder = Path(os.path.commonpath([image.parent for image, _ in labelled.images]))
    return SourceHalf(
        origin=folder,
        folders=(labelled.base,),
        read=lambda: reader.content(half),
        files=tuple(files),
        images=tuple(image for image, _ in labelled.images),
    )


def _no_labels(tree: Tree, config: Config, images: Mapping[str, Iterable[Path]]) -> str:
    described = f" as {tree.name(config.files[0])} describes it" if config.files else ""
    first = next((image for found in images.values() for image in found), None)
    if first is None:
        return f"{shown(tree.root)} has no images{described}."
    return (
        f"None of the images in {shown(tree.root)}{described} has a label file, such as {first.stem}.txt for "
        f"{tree.name(first)}: in labels/ where the image is in images/, or beside the image."
    )
