"""What stands beside an exported file: ``model.onnx.json`` says what ``model.onnx`` is, and how it was checked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..files import write_atomically
from ..wording import in_short, shown
from .bounds import Bounds, Range
from .records import RecordError, from_json, to_json

LAYOUT = 2  # of the JSON; a reader refuses others
_EXPORT_AGAIN = "export the model again"
_IMAGE_DIMENSIONS = 4


@dataclass(frozen=True)
class TensorSpec:
    """An input or output.

    Attributes:
        name: as the format's runtime calls it, where that calls them by name.
        dtype: numpy's name of it.
        shape: a dimension that is a range is dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int | Range, ...]


@dataclass(frozen=True)
class Resize:
    """How an image is resized before it is an input.

    Attributes:
        min_size: of the shorter side, in pixels; 0 leaves the image as it is, but for what has to fit the inputs.
        max_size: of the longer side, to which the shorter one gives way; means nothing where ``min_size`` is 0.
        interpolation: Pillow's filter, which smooths what it makes smaller.
    """

    min_size: int
    max_size: int
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Precision:
    """What rounding to int8 costs, as COCO scores detections.

    Attributes:
        images: on how many of those that the detector is evaluated on.
        before: AP of the detector in PyTorch, in float32, 0..100; images are made to fit the file for it, too.
        after: that of the file.
    """

    images: int
    before: float
    after: float


@dataclass(frozen=True)
class SelfCheck:
    """How a file compared with the model that it was made of; see ``comparison``.

    Attributes:
        images: how many were run.
        sizes: (batch, height, width) of the inputs, all that there were.
        tolerance: of the two differences.
        token_difference: the largest of the encoder's tokens.
        prediction_difference: the largest of the last layer's predictions for the same selected tokens.
        selected: which part of the tokens that the model selects the file selects, too, 0..1; 1 for learned queries.
        compared: how many detections were.
        matched: which part of them both found, 0..1.
        max_score_difference: the largest between two that match.
        passed: whether all is within the limits.
        precision: of int8; None for other types.
    """

    images: int
    sizes: tuple[tuple[int, int, int], ...]
    tolerance: float
    token_difference: float
    prediction_difference: float
    selected: float
    compared: int
    matched: float
    max_score_difference: float
    passed: bool
    precision: Precision | None = None


@dataclass(frozen=True)
class Manifest:
    """An exported model, described.

    Attributes:
        format: a name in ``formats.FORMATS``.
        dtype: "float32"; or "bfloat16" or "int8" for products in it. Inputs and outputs are the same in all.
        opset: of ONNX's operators; None for a format without them.
        inputs: ``images`` (N, 3, H, W), in RGB, and ``sizes`` (N, 2).
        outputs: ``boxes``, ``scores`` and ``labels``.
        resize: how an image becomes one of those.
        class_names: by label.
        requires: what the runtime needs, see ``formats.Written``.
        versions: of the packages that took part in the export, by name.
        weights_sha256: see :func:`digest_of_weights`.
        check: how the file compared.
        files: SHA-256 of the files that are the model, by name; all lie beside the JSON, the one to load comes first.
        config: of the detector, the whole of it as YAML.
    """

    format: str
    dtype: str
    opset: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    resize: Resize
    class_names: tuple[str, ...]
    requires: Mapping[str, Any]
    versions: Mapping[str, str]
    weights_sha256: str
    check: SelfCheck
    files: Mapping[str, str]
    config: str

    @property
    def bounds(self) -> Bounds:
        """The images that the model takes."""
        batch, _, height, width = (_as_range(dimension) for dimension in self.inputs[0].shape)
        return Bounds(batch, height, width)

    def write(self, model: Path) -> None:
        """Write the JSON of an exported file.

        Raises:
            InputError: it cannot be written.
        """
        content = json.dumps({"layout": LAYOUT, **to_json(self)}, indent=1) + "\n"
        write_atomically(str(manifest_path(model)), lambda file: file.write(content.encode()))

    @classmethod
    def read(cls, model: Path) -> "Manifest":
        """Read the JSON of an exported file, and see that the model's files are those that it describes.

        Raises:
            InputError: either is not there, cannot be read, or has changed.
        """
        path = manifest_path(model)
        if not model.is_file():
            what = "is a folder" if model.is_dir() else "is not there"
            raise InputError(f"{shown(model)} {what}: name a file that was exported.")
        if not path.is_file():
            raise InputError(
                f"{shown(model)} has no {path.name} beside it, without which it cannot be used: name a file that was "
                f"exported, keep the two together, or {_EXPORT_AGAIN}."
            )
        try:
            manifest = _parsed(path.read_bytes())
        except OSError as error:
            raise InputError(f"{shown(path)} cannot be read: {error.strerror or error}.") from error
        except RecordError as error:
            raise InputError(f"{shown(path)} cannot be used: {error}. Restore it, or {_EXPORT_AGAIN}.") from error
        if next(iter(manifest.files)) != model.name:
            raise InputError(
                f"{shown(path)} describes {in_short(list(manifest.files))}, not {model.name}: give the files their "
                f"names back, or {_EXPORT_AGAIN}."
            )
        for name, digest in manifest.files.items():
            _check_file(model.with_name(name), digest, path.name)
        return manifest


def manifest_path(model: Path) -> Path:
    """Where the JSON of an exported file is."""
    return model.with_name(f"{model.name}.json")


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def digest_of_weights(model: nn.Module) -> str:
    """SHA-256 of a model's tensors, in hexadecimal: of the name, type, shape and bytes of each, in order of the names.

    It is that of the weights themselves: the checkpoint of a training, its tensors alone in another file format, and
    the published checkpoint that was converted to them give the same.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _parsed(data: bytes) -> Manifest:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError("it is not JSON") from error
    if not isinstance(content, dict) or "layout" not in content:
        raise RecordError("it does not describe an exported model")
    if content["layout"] != LAYOUT:
        raise RecordError(f"its layout is {content['layout']!r}, and this version of lite_detr_d2 knows {LAYOUT} alone")
    manifest: Manifest = from_json(Manifest, content)
    if not manifest.inputs or len(manifest.inputs[0].shape) != _IMAGE_DIMENSIONS:
        raise RecordError("inputs[0].shape is not that of images, (N, 3, H, W)")
    if not manifest.files or any(Path(name).name != name for name in manifest.files):
        raise RecordError("files are not names of files beside it")
    return manifest


def _check_file(path: Path, digest: str, manifest: str) -> None:
    try:
        found = digest_of_file(path)
    except FileNotFoundError:
        raise InputError(
            f"{shown(path)} is missing, a part of the exported model that {manifest} describes: put it back, or "
            f"{_EXPORT_AGAIN}."
        ) from None
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read: {error.strerror or error}.") from error
    if found != digest:
        raise InputError(
            f"{shown(path)} was changed after {manifest} was written: what the check says does not hold for it. "
            f"Restore it, or {_EXPORT_AGAIN}."
        )


def _as_range(dimension: int | Range) -> Range:
    return dimension if isinstance(dimension, Range) else Range(dimension, dimension)
