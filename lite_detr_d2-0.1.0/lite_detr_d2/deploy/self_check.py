"""An exported file, run in its own runtime on real images, and compared with the model that it was made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from .bounds import Range
from .comparison import LIMITS, Agreement, Limits, compare_detections, count_shared, difference
from .formats import Runtime
from .inference import INSPECTED, OUTPUTS, InferenceModel, Inspection
from .manifest import SelfCheck, TensorSpec
from .probes import Batch

Array = npt.NDArray[Any]


class CheckFailed(InputError):
    """An exported file that does not compute what its model does."""


@dataclass(frozen=True)
class Exported:
    """An exported file at work.

    Attributes:
        runtime: of the file.
        twin: of the one that puts out what it computes on the way, too.
        outputs: what the file is to put out.
    """

    runtime: Runtime
    twin: Runtime
    outputs: Sequence[TensorSpec]


@dataclass(frozen=True)
class _Figures:
    """Of one batch: the two differences, how many of how many selected tokens are the same, and the agreements."""

    tokens: float
    predictions: float
    selected: tuple[int, int]
    with_model: Agreement
    with_twin: Agreement


def check(
    exported: Exported, model: InferenceModel, batches: Sequence[Batch], *, num_images: int, dtype: str
) -> SelfCheck:
    """Compare an exported file with its model.

    What the twin computes on the way is compared with what the model makes of the same images and selected tokens. The
    file's detections are compared with the model's; and with the twin's, so that the twin speaks for the file.

    Args:
        exported: the file.
        model: what it was made of, in evaluation mode.
        batches: the inputs.
        num_images: of which they were made.
        dtype: whose ``comparison.LIMITS`` hold.

    Returns:
        The figures, all of them within the limits.

    Raises:
        CheckFailed: they are not, with all that are not; or the outputs are none that can be compared.
        InputError: the model detects nothing in the images, so that there is nothing to compare.
    """
    limits = LIMITS[dtype]
    figures = [_compare(exported, model, batch, limits) for batch in batches]
    with_model, with_twin = (
        sum((getattr(figure, name) for figure in figures), start=Agreement()) for name in ("with_model", "with_twin")
    )
    if not with_model.compared:
        raise InputError(
            f"On {num_images} images, no detection scores {limits.score_difference:g} above the last one: the check "
            "would compare nothing. Name a folder with images of what the model detects, --images DIR, or weights that "
            "are trained."
        )
    result = SelfCheck(
        images=num_images,
        sizes=tuple(sorted({batch.shape for batch in batches})),
        tolerance=limits.tolerance,
        token_difference=max(figure.tokens for figure in figures),
        prediction_difference=max(figure.predictions for figure in figures),
        selected=_part(*map(sum, zip(*(figure.selected for figure in figures), strict=True))),
        compared=with_model.compared,
        matched=with_model.matched,
        max_score_difference=with_model.score_difference,
        passed=True,
    )
    faults = _faults(result, with_twin, limits)
    if faults:
        raise CheckFailed(f"The exported file does not compute what the model does: {'; '.join(faults)}.")
    return result


def _part(same: int, total: int) -> float:
    return same / total if total else 1.0


def _faults(result: SelfCheck, with_twin: Agreement, limits: Limits) -> list[str]:
    faults = []
    for what, value in (("encoder tokens", result.token_difference), ("predictions", result.prediction_difference)):
        if not value <= limits.tolerance:
            faults.append(f"{what} differ by {value:.2g}, and {limits.tolerance:g} is allowed")
    if limits.selected is not None and result.selected < limits.selected:
        faults.append(f"of selected tokens {result.selected:.1%} are the same, and {limits.selected:.0%} are expected")
    for whom, matched in (("the model", result.matched), ("its own inspected form", with_twin.matched)):
        if not matched >= limits.matched:
            faults.append(
                f"{matched:.1%} of its detections and of those of {whom} are the same (class, IoU {limits.iou:g}, "
                f"score to {limits.score_difference:g}), and {limits.matched:.0%} are expected"
            )
    return faults


def _compare(exported: Exported, model: InferenceModel, batch: Batch, limits: Limits) -> _Figures:
    found = exported.runtime(batch.images, batch.sizes)
    inspected = exported.twin(batch.images, batch.sizes)
    for outputs in (found, inspected):
        _check_outputs(outputs[: len(OUTPUTS)], exported.outputs, batch)
    computed = _by_name(inspected[len(OUTPUTS) :])
    images, sizes = torch.from_numpy(batch.images), torch.from_numpy(batch.sizes)
    with torch.no_grad():
        own = model.inspect(images, sizes)
        given, selected = _given_selection(model, batch, own, computed.get("selected"))
        expected = model.detections(own if limits.selected is None else given, sizes)
    predictions = given.predictions
    return _Figures(
        tokens=_difference("tokens", computed["tokens"], given.tokens, limits, counts=~given.padding),
        predictions=max(
            _difference("logits", computed["logits"], predictions.logits, limits),
            _difference("query_boxes", computed["query_boxes"], predictions.boxes, limits),
        ),
        selected=selected,
        with_model=compare_detections(
            found, [output.numpy() for output in (expected.boxes, expected.scores, expected.labels)], limits
        ),
        with_twin=compare_detections(found, inspected[: len(OUTPUTS)], limits),
    )


def _by_name(inspected: Sequence[Array]) -> Mapping[str, Array]:
    """Without ``selected`` where queries are learned."""
    names = [name for name in INSPECTED if name != "selected" or len(inspected) == len(INSPECTED)]
    return dict(zip(names, inspected, strict=True))


def _given_selection(
    model: InferenceModel, batch: Batch, own: Inspection, selected: Array | None
) -> tuple[Inspection, tuple[int, int]]:
    """What the model computes given the tokens that another selected; and how many of how many it selects itself."""
    if selected is None or own.selected is None or own.usable is None:
        return own, (0, 0)
    own_selected = own.selected.numpy()
    # Other tokens than there are would end in an error of the model.
    if selected.shape != own_selected.shape or not ((selected >= 0) & (selected < own.tokens.shape[1])).all():
        raise CheckFailed(f"The exported file selects other tokens than the {own.tokens.shape[1]} that there are.")
    shared = count_shared(selected, own_selected, own.usable.numpy())
    if np.array_equal(selected, own_selected):
        return own, shared
    given = model.inspect(torch.from_numpy(batch.images), torch.from_numpy(batch.sizes), torch.from_numpy(selected))
    return given, shared


def _check_outputs(outputs: Sequence[Array], specs: Sequence[TensorSpec], batch: Batch) -> None:
    """See that outputs are as their description says."""
    if len(outputs) != len(specs):
        raise CheckFailed(f"The exported file puts out {len(outputs)} arrays: expected {len(specs)}.")
    for output, spec in zip(outputs, specs, strict=True):
        shape = tuple(len(batch.images) if isinstance(size, Range) else size for size in spec.shape)
        if output.shape != shape or output.dtype != spec.dtype:
            raise CheckFailed(
                f"The exported file puts out {spec.name} as {output.shape} of {output.dtype}: expected {shape} of "
                f"{spec.dtype}."
            )
    scores = outputs[OUTPUTS.index("scores")]
    if not (scores[:, 1:] <= scores[:, :-1]).all():
        raise CheckFailed("The exported file puts out scores that do not fall.")


def _difference(name: str, found: Array, expected: Tensor, limits: Limits, counts: Tensor | None = None) -> float:
    """How far apart they are; with ``counts``, a mask over their first dimensions, of those values alone."""
    if found.shape != tuple(expected.shape):
        raise CheckFailed(f"The exported file computes {name} of {found.shape}: expected {tuple(expected.shape)}.")
    if counts is not None:
        found, expected = found[counts.numpy()], expected[counts]
    return difference(found, expected.float().numpy(), limits.norm)
