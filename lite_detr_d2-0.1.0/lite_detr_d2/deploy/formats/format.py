"""What a format of exported models is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ...detector import DetrDetector
from ..bounds import Bounds

Runtime = Callable[[npt.NDArray[Any], npt.NDArray[Any]], tuple[npt.NDArray[Any], ...]]
"""A loaded file: images (N, 3, H, W) uint8 and sizes (N, 2) int64 -> its outputs. Threads may call it at once."""

Inputs = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""What a runtime takes: images and sizes."""


@dataclass(frozen=True)
class Settings:
    """What to export.

    Attributes:
        bounds: the images that the model takes.
        dtype: "float32"; or "bfloat16" or "int8" for products in it.
        opset: of ONNX's operators, where the format has them.
    """

    bounds: Bounds
    dtype: str = "float32"
    opset: int = 18


@dataclass(frozen=True)
class Written:
    """What a format has written.

    Attributes:
        files: the model's, the first of which is the one to load; beside it they must stay.
        requires: what its runtime needs, by name, such as ``{"torch": "2.14.1"}``.
    """

    files: list[Path]
    requires: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: what users call it.
        suffix: of its files.
        dynamic: whether it takes bounds that are a range.
        dtypes: those that it can be exported in.
        write: writes a module of ``INPUTS`` and one that puts out the ``INSPECTED`` besides, for the self-check: of a
            detector in evaluation mode, to the first path and to the second.
        load: makes a runtime of a file and of what its manifest says that it requires.
        requires: what of that every manifest of the format has; all are strings.
        packages: what is needed besides PyTorch, each with the extra of lite_detr_d2 that brings it.
        opsets: of ONNX's operators, those that it can be written with; none where it does without.
        quantise: makes of the second file that ``write`` made in float32 the two of int8, given inputs to calibrate
            them on; None where ``dtypes`` has no "int8". What is quantised can be checked first, so ``write`` does not.
        quantiser: what is needed for that, as ``packages``.
    """

    name: str
    suffix: str
    dynamic: bool
    dtypes: tuple[str, ...]
    write: Callable[[DetrDetector, Settings, Path, Path], Written]
    load: Callable[[Path, Mapping[str, Any]], Runtime]
    requires: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)
    opsets: tuple[int, ...] = ()
    quantise: Callable[[Path, Sequence[Inputs], Path, Path], Written] | None = None
    quantiser: Mapping[str, str] = field(default_factory=dict)
