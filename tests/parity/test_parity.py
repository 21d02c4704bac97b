"""Our models against the published implementations: outputs, detections, losses and gradients.

Every fixture in ``LITE_DETR_PARITY_DIR`` is taken (by default those in ``tests/data/parity``).
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lite_detr_d2.modeling.attention_map import attention_map
from lite_detr_d2.modeling.postprocess import top_detections
from lite_detr_d2.structures import LayerPredictions

from .options import DEFAULTS, config_of
from .reference import DEFAULT_FOLDER, Reference, fixture_paths, names_of_arrays

PATHS = fixture_paths()
WHOLE = [path for path in PATHS if path.with_suffix(".npz").is_file()]
SPARSE = [path for path in WHOLE if "backbone_mask_prediction" in names_of_arrays(path)]
OUTPUT_TOLERANCE = 1e-4  # of the largest magnitude
LOSS_TOLERANCE = 1e-4  # relative
GRADIENT_TOLERANCE = 1e-3  # relative


@pytest.fixture(scope="module", params=WHOLE, ids=lambda path: path.stem)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@pytest.fixture(scope="module")
def evaluated(reference: Reference) -> tuple[torch.Tensor, LayerPredictions, list[dict]]:
    """Memory, last predictions and detectron2 results in evaluation mode."""
    model = reference.model().eval()
    seen = {}
    model.encoder.register_forward_hook(lambda module, args, output: seen.update(memory=output.tokens))
    model.decoder.register_forward_hook(lambda module, args, output: seen.update(last=module.predict(output, -1)))
    with torch.no_grad():
        results = model(reference.inputs())
    return seen["memory"], seen["last"], results


def test_there_are_fixtures() -> None:
    assert PATHS, "no parity fixture: set LITE_DETR_PARITY_DIR to a folder of NAME.json and NAME.npz pairs"
    assert WHOLE == PATHS
    assert SPARSE or PATHS[0].parent != DEFAULT_FOLDER


def test_conversion_is_complete(reference: Reference) -> None:
    _, report = reference.converted
    assert not report.missing
    assert not report.mismatched
    assert set(report.mapped) | set(report.skipped) == set(reference.shapes)
    assert all("query_proj" in name or "key_proj" in name for name in report.skipped)


def test_outputs(reference: Reference, evaluated: tuple) -> None:
    memory, last, _ = evaluated
    for name, ours in (("memory", memory), ("pred_logits", last.logits), ("pred_boxes", last.boxes)):
        theirs = reference.arrays[name]
        assert ours.shape == theirs.shape, name
        error = np.abs(ours.numpy() - theirs).max() / np.abs(theirs).max()
        assert error < OUTPUT_TOLERANCE, f"{name} differs by {error:.1e} of its largest magnitude"


def test_detections(reference: Reference, evaluated: tuple) -> None:
    _, last, results = evaluated
    for index, (size, result) in enumerate(zip(reference.facts["image_sizes"], results, strict=True)):
        theirs = reference.detections(index)
        of_image = LayerPredictions(last.logits[index : index + 1], last.boxes[index : index + 1])
        (ours,) = top_detections(of_image, [size], max_detections=len(theirs["scores"]))
        np.testing.assert_allclose(ours.scores.numpy(), theirs["scores"], atol=1e-4)
        _assert_same_detections(ours, theirs)
        clipped = ours.pred_boxes.clone()
        clipped.clip(ours.image_size)
        kept = clipped.nonempty()
        results_kept = result["instances"].pred_boxes.tensor[: int(kept.sum())]
        torch.testing.assert_close(results_kept, clipped.tensor[kept])


def _assert_same_detections(ours: object, theirs: dict[str, np.ndarray]) -> None:
    """Each of our detections is one of theirs of nearly the same score: those within 1e-4 may swap."""
    unused = set(range(len(theirs["scores"])))
    largest = np.abs(theirs["boxes"]).max()
    for score, label, box in zip(ours.scores, ours.pred_classes, ours.pred_boxes.tensor, strict=True):
        twin = [
            index
            for index in unused
            if theirs["labels"][index] == int(label)
            and abs(theirs["scores"][index] - float(score)) < 1e-4
            and np.abs(theirs["boxes"][index] - box.numpy()).max() < OUTPUT_TOLERANCE * largest
        ]
        # The last entries can swap with ones that just missed the list.
        if not twin:
            assert float(score) - theirs["scores"][-1] < 1e-4, f"no detection like {label} at {box}, score {score}"
        else:
            unused.remove(twin[0])
    assert all(theirs["scores"][index] - theirs["scores"][-1] < 1e-4 for index in unused)


def test_losses_and_gradients(reference: Reference) -> None:
    model = reference.model().train()
    losses = model(reference.inputs())
    weights, theirs = reference.loss_weights, reference.facts["losses"]
    assert set(losses) == set(weights)
    for name, weight in weights.items():
        assert losses[name].item() == pytest.approx(weight * theirs[name], rel=LOSS_TOLERANCE), name
    total = sum(losses.values())
    assert total.item() == pytest.approx(reference.facts["total_loss"], rel=LOSS_TOLERANCE)

    total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    mapped = reference.converted[1].mapped
    compared = set()
    for name, norm in reference.facts["grad_norms"].items():
        pieces = mapped.get(name, ())
        if not pieces:
            assert norm == 0.0, f"{name} is trained, and we do not have it"
            continue
        ours = torch.stack([gradients[piece].norm() for piece in pieces]).norm()
        # Below this a norm is rounding around a gradient that is zero.
        zero = 1e-8 * reference.facts["grad_norm_total"]
        assert float(ours) == pytest.approx(norm, rel=GRADIENT_TOLERANCE, abs=zero), f"gradient of {name}"
        compared.update(pieces)
    assert {name for name, gradient in gradients.items() if bool(gradient.any())} <= compared
    ours = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    assert float(ours) == pytest.approx(reference.facts["grad_norm_total"], rel=GRADIENT_TOLERANCE)


@pytest.mark.parametrize("path", SPARSE, ids=lambda path: path.stem)
def test_tokens_that_are_chosen(path: Path) -> None:
    """Of Sparse DETR: the scores of tokens, which are refined, what the scores learn, and which are selected after."""
    reference = Reference(path)
    arrays = reference.arrays
    model, seen = reference.model().eval(), {}
    model.encoder.register_forward_hook(lambda module, args, output: seen.update(scores=output.token_scores))
    model.decoder.register_forward_hook(lambda module, args, output: seen.update(features=args[1], decoded=output))
    with torch.no_grad():
        model(reference.inputs())
        selection, features = model.query_selection, seen["features"]
        selected = selection.rank(selection.candidates(features)[0], selection.num_queries)
    scores, looked = seen["scores"], attention_map(model.decoder, seen["decoded"], features, selection.num_queries)
    padding = features.padding.numpy()
    for name, ours in (("backbone_mask_prediction", scores.logits), ("dam", looked)):
        counts = ~padding if name == "dam" else np.ones_like(padding)
        error = np.abs(ours.numpy() - arrays[name])[counts].max() / np.abs(arrays[name]).max()
        assert error < OUTPUT_TOLERANCE, f"{name} differs by {error:.1e} of its largest magnitude"
    np.testing.assert_array_equal(scores.chosen, arrays["sparse_token_nums"])
    np.testing.assert_array_equal(selected, arrays["topk_proposals"])
    order = scores.logits.masked_fill(features.padding, -torch.inf).argsort(dim=1, descending=True).numpy()
    for image, theirs in enumerate(arrays["topk_inds"]):
        for number in (int(scores.chosen[image]), len(theirs)):
            assert set(order[image, :number]) == set(theirs[:number])
        most = looked[image].topk(int(scores.chosen[image])).indices
        assert set(most.tolist()) == set(arrays["dam_target"][image].nonzero()[0])


def test_options_that_a_recording_lacks_are_the_defaults(reference: Reference) -> None:
    options = {key: value for key, value in reference.facts["config"].items() if key not in DEFAULTS}
    assert config_of(reference.facts["source"], options, "lacking") == reference.config()


@pytest.mark.parametrize(
    ("changed", "name", "rho"),
    [({"rho": 0.1}, "SparseEncoder", 0.1), ({"rho": 0.0, "use_enc_aux_loss": False}, "DeformableEncoder", 0.3)],
)
def test_variants_of_sparse_detr(changed: dict, name: str, rho: float) -> None:
    facts = Reference(DEFAULT_FOLDER / "sparse_detr_rho03_r50.json").facts
    encoder = config_of(facts["source"], facts["config"] | changed, "variant").MODEL.LITE_DETR.ENCODER
    assert (name, rho) == (encoder.NAME, encoder.RHO)
    with pytest.raises(NotImplementedError, match=r"'mask_prediction_coef': 2"):
        config_of(facts["source"], facts["config"] | {"mask_prediction_coef": 2}, "variant")


def test_an_unsupported_source_fails(tmp_path: Path, reference: Reference) -> None:
    copy = tmp_path / "other.json"
    copy.write_text(json.dumps(reference.facts | {"source": "somebody/else at 1234567"}))
    with pytest.raises(NotImplementedError, match="somebody/else"):
        Reference(copy).config()
