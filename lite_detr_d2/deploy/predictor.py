"""Detections of whatever images come, by a trained detector or an exported file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ..detector import DetrDetector
from ..errors import InputError
from ..modeling.postprocess import at_original_size
from ..wording import shown
from .bounds import Bounds
from .checks import check_choice, check_flag, check_positive, check_score
from .formats import Runtime
from .inference import DTYPES, InferenceModel
from .inference_form import PreparedDetector, prepare
from .manifest import Manifest, manifest_path
from .preparation import CHANNELS, Image, Preparation, PreparedImage, Size, is_image
from .run import (
    PathLike,
    check_sources,
    config_of_exported,
    files_of_run,
    format_of_exported,
    is_exported,
    load_trained,
)

Detection: TypeAlias = dict[str, Instances]
"""``{"instances": Instances}``, as detectron2's ``DefaultPredictor`` gives."""

_Detect = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.int64]], tuple[Tensor, Tensor, Tensor]]

# So many batches may be waiting for more images of their size, before the one that waits longest is run as it is.
_MOST_WAITING = 4


def load(
    run: PathLike | None = None,
    *,
    config_file: PathLike | None = None,
    weights: PathLike | None = None,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    prepared: bool = False,
    compile: bool = False,
    opts: Sequence[object] = (),
    trust_pickle: bool = False,
) -> "Predictor":
    """Load a detector, to predict with. No dataset is needed.

    Args:
        run: the ``OUTPUT_DIR`` of a training, of which ``model_final.pth`` is taken, or else the last checkpoint; or an
            exported file, which computes on the CPU.
        config_file: instead of ``run``, with ``weights``: a config of this package.
        weights: with ``config_file`` a checkpoint, ours or a published one: a file, or an address that detectron2
            knows; with ``run`` another one of its checkpoints, such as ``model_best.pth``.
        device: such as "cuda:1"; None for CUDA where there is some, else the CPU.
        dtype: "float32"; or "bfloat16", in which products are then computed, and what follows from them.
        prepared: take the detector's inference form, see :func:`.prepare`.
        compile: with ``prepared``: let torch.compile make one graph of it, when it first detects.
        opts: with ``config_file``, overrides of it: KEY, VALUE, KEY, VALUE, ...
        trust_pickle: let weights of a ``.pkl`` or ``.pyth`` file hold, and run, anything.

    Raises:
        InputError: they are not there or do not fit each other, or there is no such device; of an exported file, it is
            not the one that its JSON describes, or what runs it is not installed.
    """
    check_choice("dtype", dtype, list(DTYPES))
    check_flag("prepared", prepared)
    check_flag("compile", compile)
    check_sources(run=run, config_file=config_file, weights=weights, device=device)
    if run is not None and Path(run).is_file() and is_exported(Path(run)):
        if config_file is not None or weights is not None:
            raise InputError(f"{shown(run)} is a file, which has its own config and weights: give none.")
        if prepared or compile:
            raise InputError(
                f"{shown(run)} is an exported file, which is ready as it is: leave prepared and compile out."
            )
        return _of_exported(Path(run), device, dtype)
    if compile and not prepared:
        raise InputError("compile is True, and prepared is False: what is compiled is the inference form; take both.")
    if run is not None and not Path(run).exists():
        raise InputError(
            f"{shown(run)}: there is no such run or file. Name the OUTPUT_DIR of a training, or an exported file."
        )
    trained = load_trained(
        run, config_file=config_file, weights=weights, device=device, opts=opts, trust_pickle=trust_pickle
    )
    files = [*(files_of_run(run) if run is not None else [config_file or ""]), trained.cfg.MODEL.WEIGHTS]
    model = prepare(trained.detector, dtype=DTYPES[dtype], compile=compile) if prepared else trained.detector
    return Predictor(trained.cfg, trained.class_names, model, dtype=dtype, files=files)


class Predictor:
    """Finds objects in images.

    Images of one size share a batch, so that an image's detections do not depend on the others. Threads may call it at
    once.

    Attributes:
        cfg: the config; images are read, resized and counted out as it says for evaluation.
        class_names: by class, as in ``pred_classes``.
        model: the detector, its inference form, or the runtime of an exported file.
        files: what it was loaded from, which is not to be written over.
        input_format: of arrays and tensors, unless a call says otherwise. Tools ask detectron2's ``DefaultPredictor``
            for it, and may have this in its place.
    """

    input_format = "RGB"

    def __init__(
        self,
        cfg: CfgNode,
        class_names: Iterable[str],
        model: DetrDetector | PreparedDetector | Runtime,
        *,
        dtype: str = "float32",
        bounds: Bounds | None = None,
        files: Iterable[PathLike] = (),
    ) -> None:
        """Predict with a model that is there; :func:`load` is for one that is in files.

        Args:
            cfg: the model's config.
            class_names: of its classes.
            model: a detector in evaluation mode, its inference form, or a runtime.
            dtype: of a detector: "float32" or "bfloat16"; an inference form has its own.
            bounds: of a runtime: the images that it takes. Others are made smaller or padded, batches filled up.
            files: that the model is in, if any.
        """
        check_choice("dtype", dtype, list(DTYPES))
        self.cfg = cfg
        self.class_names = list(class_names)
        self.model = model
        self.files = [Path(file) for file in files]
        self._detect = _detection_by(model, dtype)
        self._prepare = Preparation(cfg, bounds)
        self._bounds = bounds

    def batch_taken(self, asked: int) -> int:
        """How many images the model computes at once, of its bounds the nearest to what is asked for."""
        return asked if self._bounds is None else self._bounds.batch.clamp(asked)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a path is text, too
        self, images: Image, *, threshold: float = ..., format: str = ..., batch: int = ...
    ) -> Detection: ...

    @overload
    def __call__(
        self, images: Iterable[Image], *, threshold: float = ..., format: str = ..., batch: int = ...
    ) -> list[Detection]: ...

    def __call__(
        self, images: Image | Iterable[Image], *, threshold: float = 0.0, format: str = "RGB", batch: int = 1
    ) -> Detection | list[Detection]:
        """Detect.

        Args:
            images: an image or several. Each is a file, which is read as training does; an array, (H, W, 3) uint8; or
                a tensor, (3, H, W) uint8.
            threshold: detections that score below it are left out; 0..1.
            format: of the channels of arrays and tensors: "RGB" or "BGR".
            batch: of several images, so many of one size are computed at once, if there are as many.

        Returns:
            For an image ``{"instances": Instances}``, at its original size: ``pred_boxes``, (D, 4) as (x1, y1, x2, y2)
            in pixels; ``scores``, 0..1 and falling; and ``pred_classes``. They are on the model's device. For several
            images a list of these, in their order.

        Raises:
            ImageError: a file cannot be read.
            InputError: an argument is none of these.
        """
        check_score("threshold", threshold)
        check_choice("format", format, CHANNELS)
        check_positive("batch", batch)
        if isinstance(images, Iterable) and not (is_image(images) or isinstance(images, bytes | Mapping)):
            return self._run_all(images, threshold, format, batch)
        (detection,) = self._run([self._prepare(images, format, "The image")], threshold)  # type: ignore[arg-type]
        return detection

    def _run_all(self, images: Iterable[Image], threshold: float, format: str, batch: int) -> list[Detection]:
        size = self.batch_taken(batch)
        found: dict[int, Detection] = {}
        waiting: dict[Size, dict[int, PreparedImage]] = {}

        def run(padded: Size) -> None:
            group = waiting.pop(padded)
            found.update(zip(group, self._run(list(group.values()), threshold), strict=True))

        for index, image in enumerate(images):
            prepared = self._prepare(image, format, f"Image {index} of the list")
            waiting.setdefault(prepared.padded, {})[index] = prepared
            if len(waiting[prepared.padded]) == size:
                run(prepared.padded)
            elif sum(map(len, waiting.values())) == _MOST_WAITING * size:
                run(next(iter(waiting)))
        while waiting:
            run(next(iter(waiting)))
        return [found[index] for index in range(len(found))]

    def _run(self, images: list[PreparedImage], threshold: float) -> list[Detection]:
        """Detect in images whose padded size is the same."""
        filled = images + images[-1:] * (self.batch_taken(len(images)) - len(images))
        pixels = np.zeros((len(filled), len(images[0].pixels), *images[0].padded), dtype=np.uint8)
        for slot, image in zip(pixels, filled, strict=True):
            slot[:, : image.size[0], : image.size[1]] = image.pixels
        boxes, scores, labels = self._detect(pixels, np.array([image.size for image in filled], dtype=np.int64))
        return [
            _at_original_size(image, boxes[row], scores[row], labels[row], threshold)
            for row, image in enumerate(images)
        ]


def _of_exported(file: Path, device: str | torch.device | None, dtype: str) -> Predictor:
    manifest = Manifest.read(file)
    if device is not None and torch.device(device).type != "cpu":
        raise InputError(f"The device is {str(device)!r}, and exported files compute on the CPU: take 'cpu', or none.")
    if dtype not in ("float32", manifest.dtype):
        raise InputError(f"dtype is {dtype!r}, and {shown(file)} was exported in {manifest.dtype}: leave it out.")
    runtime = format_of_exported(manifest, file).load(file, manifest.requires)
    cfg = config_of_exported(manifest, file)
    cfg.freeze()
    files = [manifest_path(file), *map(file.with_name, manifest.files)]
    return Predictor(cfg, manifest.class_names, runtime, bounds=manifest.bounds, files=files)


def _at_original_size(
    image: PreparedImage, boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float
) -> Detection:
    kept = scores >= threshold
    instances = Instances(image.size, pred_boxes=Boxes(boxes[kept]), scores=scores[kept], pred_classes=labels[kept])
    return {"instances": at_original_size(instances, *image.original)}


def _detection_by(model: DetrDetector | PreparedDetector | Runtime, dtype: str) -> _Detect:
    if isinstance(model, DetrDetector):
        return _of_model(InferenceModel(model, dtype=dtype).eval())
    if not isinstance(model, PreparedDetector):
        return _of_runtime(model)
    if dtype not in ("float32", model.model.dtype):
        raise InputError(f"dtype is {dtype!r}, and the model was prepared in {model.model.dtype}: leave it out.")
    return _of_model(model.model)


def _of_model(model: InferenceModel) -> _Detect:
    @torch.no_grad()
    def detect(images: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        device = model.detector.device  # it may be moved
        inputs = torch.from_numpy(images).to(device), torch.from_numpy(sizes).to(device)
        is_padded = bool((sizes != images.shape[2:]).any())
        found = model.detect(*inputs, is_padded=is_padded)
        return found.boxes, found.scores, found.labels

    return detect


def _of_runtime(runtime: Runtime) -> _Detect:
    def detect(images: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        # Copies: some runtimes' memory is not to be written to, and used again.
        boxes, scores, labels = (torch.tensor(output) for output in runtime(images, sizes)[:3])
        return boxes, scores, labels

    return detect
