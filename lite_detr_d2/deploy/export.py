"""Export of a detector: the file is there only after it has shown that it computes what the detector does."""

import logging
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.sources.tree import check_folder
from ..errors import InputError
from ..extras import check_extra
from ..files import check_output
from ..wording import in_short, shown
from .bounds import Range
from .fitting import report_fitting
from .formats import FORMATS, Format, Runtime, Settings, Written
from .inference import InferenceModel
from .manifest import Manifest, Resize, SelfCheck, TensorSpec, digest_of_file, digest_of_weights, manifest_path
from .precision import Annotated, compare_precision, find_annotated
from .preparation import CHANNELS
from .probes import Batch, Pixels, calibration_batches, find_images, make_batches, read_images
from .run import PathLike, TrainedModel, build_trained, config_of_exported, format_of_exported
from .self_check import Exported, check
from .sizing import check_bounds, report_unused
from .working import temporary, unfinished

logger = logging.getLogger(__name__)

# By the names that they are imported by.
_PACKAGES = (
    *("lite_detr_d2", "torch", "torchvision", "detectron2", "numpy", "PIL"),
    *("onnx", "onnxscript", "onnxruntime", "openvino", "nncf"),
)


def export(
    trained: TrainedModel, format: str, output: Path, settings: Settings, images: Path | None = None
) -> Manifest:
    """Write a detector to a file, and its description beside it.

    All is written to a hidden folder beside the file first, and moved when the check has passed: until then, what was
    there before stays. The folder of an export that was killed is removed by the next one to the same file, and two
    at once are refused.

    Args:
        trained: the detector, on the CPU.
        format: a name in ``formats.FORMATS``.
        output: the file.
        settings: what it takes, and how it computes.
        images: a folder with real images to check it on; None for those that the detector was evaluated on.

    Returns:
        What is written beside the file.

    Raises:
        InputError: the settings do not fit the format or the detector, there are no images, or the file cannot be
            written, or is being written by another process.
        CheckFailed: the file does not compute what the detector does.
    """
    chosen = check_request(
        format, output, dtype=settings.dtype, opset=settings.opset, dynamic=not settings.bounds.is_fixed, images=images
    )
    check_bounds(trained.detector, settings.bounds)
    if trained.cfg.INPUT.FORMAT not in CHANNELS:
        raise InputError(
            f"INPUT.FORMAT is {trained.cfg.INPUT.FORMAT!r}: detectors that take {' or '.join(CHANNELS)} are exported."
        )
    report_unused(trained.cfg, settings.bounds)
    probes = _find_probes(trained, settings, images)
    logger.info("It is written as %s, which can take minutes", format)
    with unfinished(output) as folder:
        file, twin = folder / output.name, folder / f"inspected{chosen.suffix}"
        written = _write(trained, chosen, settings, probes, file, twin)
        digests = {path.name: digest_of_file(path) for path in written.files}  # of what is checked
        runtime = chosen.load(file, written.requires)
        result = _check(trained, settings, runtime, chosen.load(twin, written.requires), probes)
        manifest = _described(trained, chosen, settings, written.requires, digests, result)
        manifest.write(file)
        # What is loaded comes after what it needs, and its description last: a file that does not fit it is refused.
        for path in [*reversed(written.files), manifest_path(file)]:
            os.replace(path, output.with_name(path.name))
    logger.info(
        "%s is written, and checked: %s. Its input: batch %s, height %s, width %s.",
        *(shown(output), figures(result), settings.bounds.batch, settings.bounds.height, settings.bounds.width),
    )
    report_fitting(trained, settings.bounds, probes.pixels)
    return manifest


def verify(
    file: Path, *, weights: PathLike | None = None, images: Path | None = None, trust_pickle: bool = False
) -> SelfCheck:
    """Check an exported file again, in the packages that are installed now.

    Its detector is made of the config in its description, and compared with the file itself; what is computed on the
    way is that of a twin, which is exported anew.

    Args:
        file: as :func:`export` wrote it.
        weights: those that were exported; None where they still are where they were.
        images: as of :func:`export`.
        trust_pickle: as of :func:`.run.load_trained`.

    Raises:
        InputError: the file or its description has changed, the weights are not those that were exported, or there are
            no images.
        CheckFailed: the file does not compute what the detector does.
    """
    manifest = Manifest.read(file)
    chosen, settings = format_of_exported(manifest, file), _settings_of(manifest)
    trained = _trained_again(file, manifest, weights, trust_pickle)
    probes = _find_probes(trained, settings, images)
    logger.info("To look into it, it is written again as %s, which can take minutes", chosen.name)
    with temporary() as folder:
        twin = folder / f"inspected{chosen.suffix}"
        written = _write(trained, chosen, settings, probes, folder / file.name, twin)
        runtime = chosen.load(file, manifest.requires)
        result = _check(trained, settings, runtime, chosen.load(twin, written.requires), probes)
    logger.info("%s computes what its detector does: %s", shown(file), figures(result))
    return result


def figures(result: SelfCheck) -> str:
    """The figures of a check, in one line."""
    precision = result.precision
    cost = f"; AP is {precision.after:.2f} on {precision.images} images, of {precision.before:.2f}" if precision else ""
    sizes = in_short(list(dict.fromkeys(f"{height} x {width}" for _, height, width in result.sizes)))
    return (
        f"on {result.images} images, of {sizes} (height x width), encoder tokens differ by "
        f"{result.token_difference:.1e} and predictions by {result.prediction_difference:.1e} "
        f"({result.tolerance:g} is allowed); of {result.compared} detections {result.matched:.2%} match, and scores "
        f"differ by {result.max_score_difference:.1e}{cost}"
    )


def check_request(
    name: str, output: Path, *, dtype: str, opset: int, dynamic: bool, images: Path | None = None
) -> Format:
    """See that an export is possible, as far as that can be known without its detector.

    Args:
        name: of the format.
        output: the file.
        dtype: as of :class:`Settings`.
        opset: likewise.
        dynamic: whether it is to take more than one size or batch.
        images: as of :func:`export`.

    Returns:
        The format.

    Raises:
        InputError: it is not.
    """
    if name not in FORMATS:
        raise InputError(f"There is no format {name!r}: choose one of {', '.join(FORMATS)}.")
    chosen = FORMATS[name]
    if output.suffix != chosen.suffix:
        raise InputError(f"{shown(output)}: the format {name} is written to a file that ends in {chosen.suffix}.")
    if dtype not in chosen.dtypes:
        raise InputError(f"The format {name} has no {dtype}: choose {' or '.join(chosen.dtypes)}.")
    if chosen.opsets and opset not in chosen.opsets:
        allowed = ", ".join(map(str, chosen.opsets))
        raise InputError(f"The format {name} is not written with opset {opset}: choose one of {allowed}.")
    if not chosen.opsets and opset != Settings.opset:
        raise InputError(f"The format {name} has no operators of ONNX: leave --opset out.")
    if dynamic and not chosen.dynamic:
        raise InputError(f"A file of the format {name} takes one size and batch only: leave --dynamic out.")
    for package, extra in {**chosen.packages, **(chosen.quantiser if dtype == "int8" else {})}.items():
        check_extra(package, extra=extra)
    check_output(output)
    if images is not None:
        check_folder(images)
    return chosen


@dataclass(frozen=True)
class _Probes:
    """What a file is checked on, and for int8 what it is calibrated and scored on, too.

    Attributes:
        pixels: images to compare the file with its detector on.
        calibration: inputs that are like those of training.
        annotated: images to measure AP on.
    """

    pixels: Sequence[Pixels]
    calibration: Sequence[Batch] = ()
    annotated: Annotated | None = None


def _find_probes(trained: TrainedModel, settings: Settings, images: Path | None) -> _Probes:
    pixels = read_images(find_images(trained.cfg, images), trained.cfg)
    if settings.dtype != "int8":
        return _Probes(pixels)
    annotated = find_annotated(trained.cfg, trained.detector.num_classes)
    return _Probes(pixels, calibration_batches(trained.cfg, settings.bounds), annotated)


def _write(
    trained: TrainedModel, format: Format, settings: Settings, probes: _Probes, file: Path, twin: Path
) -> Written:
    if settings.dtype != "int8" or format.quantise is None:
        return format.write(trained.detector, settings, file, twin)
    # What int8 rounds away could hide a fault: what is to be rounded is checked first, within the limits of float32.
    exact, exact_twin = (path.with_name(f"exact_{path.name}") for path in (file, twin))
    in_float32 = replace(settings, dtype="float32")
    written = format.write(trained.detector, in_float32, exact, exact_twin)
    runtime, twin_runtime = (format.load(path, written.requires) for path in (exact, exact_twin))
    result = _check(trained, in_float32, runtime, twin_runtime, replace(probes, annotated=None))
    logger.info("What is quantised computes what the detector does: %s", figures(result))
    return format.quantise(exact_twin, [(batch.images, batch.sizes) for batch in probes.calibration], file, twin)


def _check(trained: TrainedModel, settings: Settings, runtime: Runtime, twin: Runtime, probes: _Probes) -> SelfCheck:
    batches = make_batches(probes.pixels, trained.cfg, settings.bounds)
    largest = max((batch.shape for batch in batches), key=math.prod)
    logger.info(
        "It is compared with the detector on %d images, up to %s (batch x height x width), which takes a while",
        *(len(probes.pixels), " x ".join(map(str, largest))),
    )
    model = InferenceModel(trained.detector, dtype=settings.dtype).eval()
    exported = Exported(runtime, twin, _outputs(trained, settings))
    result = check(exported, model, batches, num_images=len(probes.pixels), dtype=settings.dtype)
    if probes.annotated is None:
        return result
    return replace(result, precision=compare_precision(trained, runtime, settings.bounds, probes.annotated))


def _described(
    trained: TrainedModel,
    format: Format,
    settings: Settings,
    requires: Mapping[str, Any],
    files: Mapping[str, str],
    result: SelfCheck,
) -> Manifest:
    batch, height, width = (
        limits.smallest if limits.is_fixed else limits
        for limits in (settings.bounds.batch, settings.bounds.height, settings.bounds.width)
    )
    cfg = trained.cfg.clone()
    cfg.defrost()
    if os.path.isfile(cfg.MODEL.WEIGHTS):
        cfg.MODEL.WEIGHTS = os.path.abspath(cfg.MODEL.WEIGHTS)
    cfg.OUTPUT_DIR = os.path.abspath(cfg.OUTPUT_DIR)  # where images to compare with are found again
    return Manifest(
        format=format.name,
        dtype=settings.dtype,
        opset=settings.opset if format.opsets else None,
        inputs=(
            TensorSpec("images", "uint8", (batch, 3, height, width)),
            TensorSpec("sizes", "int64", (batch, 2)),
        ),
        outputs=_outputs(trained, settings),
        resize=Resize(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST),
        class_names=tuple(trained.class_names),
        requires=requires,
        versions=_versions(),
        weights_sha256=digest_of_weights(trained.detector),
        check=result,
        files=files,
        config=cfg.dump(),
    )


def _outputs(trained: TrainedModel, settings: Settings) -> tuple[TensorSpec, ...]:
    batch = settings.bounds.batch
    number: int | Range = batch.smallest if batch.is_fixed else batch
    detector = trained.detector
    kept = min(detector.max_detections, detector.query_selection.num_queries * detector.num_classes)
    return (
        TensorSpec("boxes", "float32", (number, kept, 4)),
        TensorSpec("scores", "float32", (number, kept)),
        TensorSpec("labels", "int64", (number, kept)),
    )


def _versions() -> dict[str, str]:
    loaded = {name: sys.modules[name] for name in _PACKAGES if name in sys.modules}
    return {"python": platform.python_version(), **{name: str(loaded[name].__version__) for name in loaded}}


def _settings_of(manifest: Manifest) -> Settings:
    settings = Settings(manifest.bounds, manifest.dtype)
    return settings if manifest.opset is None else replace(settings, opset=manifest.opset)


def _trained_again(file: Path, manifest: Manifest, weights: PathLike | None, trust_pickle: bool) -> TrainedModel:
    """The detector of a file."""
    cfg = config_of_exported(manifest, file)
    known = cfg.MODEL.WEIGHTS
    cure = "Give those that were exported: --weights FILE."
    if weights is None and os.path.isabs(known) and not os.path.isfile(known):
        raise InputError(f"{shown(file)} was made of the weights {shown(known)}, which are gone. {cure}")
    problems = []
    folder = cfg.OUTPUT_DIR if os.path.isdir(cfg.OUTPUT_DIR) else None
    # By name, or a run's in place: which way the rows went is not written down, and the digest tells.
    for keep_rows in (False, True):
        try:
            trained = build_trained(
                cfg.clone(),
                file,
                weights=weights or known,
                output_dir=folder,
                keep_rows=keep_rows,
                trust_pickle=trust_pickle,
            )
        except InputError as error:
            problems.append(error)
            continue
        if digest_of_weights(trained.detector) == manifest.weights_sha256:
            return trained
    if len(problems) == 2:
        raise problems[0]
    raise InputError(f"{shown(file)} was made of other weights than {shown(weights or known)} are now. {cure}")
