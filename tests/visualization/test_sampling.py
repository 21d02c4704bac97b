"""What an attention layer samples is observed as it is, of any encoder and decoder, and changes nothing."""

from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError
from lite_detr_d2.structures import LayerPredictions
from lite_detr_d2.visualization.sampling import Sampling, attention_layers, observe

from ..helpers import DETECTORS, batched_input, choose_detector, randomised

# Two images, of which the first has padding: a level is 10 x 12, 5 x 6 or 3 x 3 tokens.
INPUTS = [batched_input(64, 90, 0, seed=1), batched_input(80, 96, 0, seed=2)]


def built(cfg: CfgNode) -> DetrDetector:
    detector: DetrDetector = randomised(build_model(cfg))
    return detector


def detecting(detector: DetrDetector) -> Callable[[], LayerPredictions]:
    def run() -> LayerPredictions:
        images, padding = detector.preprocess(INPUTS)
        features = detector.encode(images.tensor, padding)
        return detector.predict(detector.query_selection(features)[0], features)

    return run


@pytest.mark.parametrize("name", DETECTORS)
def test_observing_changes_nothing(small_cfg: CfgNode, name: str) -> None:
    choose_detector(small_cfg, name)
    detector = built(small_cfg)
    run = detecting(detector)
    with torch.no_grad():
        expected = run()
    before = {name: set(vars(module)) for name, module in detector.named_modules()}
    for part in (detector.encoder, detector.decoder):
        layers = attention_layers(part)
        assert len(layers) == len(part.layers)
        for layer in layers:
            _, found = observe(layer, run)
            assert torch.equal(found.logits, expected.logits)
            assert torch.equal(found.boxes, expected.boxes)
    assert {name: set(vars(module)) for name, module in detector.named_modules()} == before
    assert not any(module._forward_pre_hooks for module in detector.modules())


def test_a_failed_run_leaves_no_hook(small_cfg: CfgNode) -> None:
    detector = built(small_cfg)

    def run() -> None:
        raise RuntimeError("stopped")

    (layer, *_) = attention_layers(detector.encoder)
    with pytest.raises(RuntimeError, match="stopped"):
        observe(layer, run)
    assert not layer._forward_pre_hooks


@pytest.mark.parametrize("key_aware", [False, True])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_what_is_sampled_is_what_the_layer_attends_to(small_cfg: CfgNode, part: str, key_aware: bool) -> None:
    """Locations and weights of the layer's own arguments, and in coordinates of the image."""
    small_cfg.MODEL.LITE_DETR.ENCODER.KEY_AWARE = key_aware
    detector = built(small_cfg)
    layer = attention_layers(getattr(detector, part))[1]
    seen: list[tuple[Tensor, ...]] = []
    layer.register_forward_pre_hook(lambda module, args: seen.append(args))
    sampling, _ = observe(layer, detecting(detector))
    with torch.no_grad():
        locations, weights = layer.sampling(*seen[0])
    ratios = seen[0][2].valid_ratios[0]
    assert 0.5 < float(ratios.min()) < 0.9
    torch.testing.assert_close(sampling.locations * ratios[:, None], locations[0])
    torch.testing.assert_close(sampling.weights, weights[0])


@pytest.mark.parametrize(
    ("encoder", "spec", "fusion", "expected"),
    [
        ("DeformableEncoder", "", "joint", ["012"] * 2),
        ("InterleavedEncoder", "H2L1-(2+1)x2", "joint", ["12", "012"] * 2),
        ("InterleavedEncoder", "H1L2-(2+1)x1", "joint", ["2", "012"]),
        ("InterleavedEncoder", "H2L1-(2+1)x1", "sequential", ["12", "12", "0"]),
        ("InterleavedEncoder", "H1L2-(1+1)x2", "sequential", ["2", "01"] * 2),
        ("InterleavedEncoder", "H2L1-(2+1)x1", "high_only", ["12", "12"]),
    ],
)
def test_queries_are_the_tokens_that_the_layer_updates(
    small_cfg: CfgNode, encoder: str, spec: str, fusion: str, expected: list[str]
) -> None:
    node = small_cfg.MODEL.LITE_DETR.ENCODER
    node.NAME, node.FUSION, node.NUM_LAYERS = encoder, fusion, len(expected)
    if spec:
        node.SPEC = spec
    else:
        node.KEY_AWARE = False
    detector = built(small_cfg)
    layers = attention_layers(detector.encoder)
    assert len(layers) == len(expected)
    for layer, levels in zip(layers, expected, strict=True):
        sampling, _ = observe(layer, detecting(detector))
        assert sampling.shapes == ((10, 12), (5, 6), (3, 3))
        assert [str(level) for level in sampling.levels] == list(levels)
        tokens = sum(sampling.shapes[level][0] * sampling.shapes[level][1] for level in sampling.levels)
        assert len(sampling.references) == len(sampling.locations) == tokens
        # Of the first image, 8 of 10 rows are no padding, and 12 (90 of 96 pixels) of 12 columns.
        if 0 in sampling.levels:
            assert sampling.references[0].tolist() == pytest.approx([0.5 / 12, 0.5 / 8])
            assert sampling.references[13].tolist() == pytest.approx([1.5 / 12, 1.5 / 8])


def without_offsets(detector: DetrDetector) -> DetrDetector:
    for name, parameter in detector.named_parameters():
        if "sampling_offsets" in name:
            nn.init.zeros_(parameter)
    return detector


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("name", ["dino", "deformable_detr"])
def test_without_offsets_all_is_sampled_at_the_reference(small_cfg: CfgNode, name: str, part: str) -> None:
    """On every level, with padding: both are of the image."""
    choose_detector(small_cfg, name)
    detector = without_offsets(built(small_cfg))
    sampling, _ = observe(attention_layers(getattr(detector, part))[0], detecting(detector))
    expected = sampling.references[:, None, None, None, :2].expand_as(sampling.locations)
    torch.testing.assert_close(sampling.locations, expected)
    assert sampling.references.shape[-1] == (4 if (name, part) == ("dino", "decoder") else 2)


def test_a_decoders_queries_are_at_no_point(small_cfg: CfgNode) -> None:
    for name in ("dino", "deformable_detr"):
        choose_detector(small_cfg, name)
        detector = built(small_cfg)
        sampling, _ = observe(attention_layers(detector.decoder)[0], detecting(detector))
        assert not sampling.levels
        with pytest.raises(InputError, match="not the tokens of any level"):
            sampling.query_at((0.5, 0.5))


def test_what_is_not_finite_is_an_error(small_cfg: CfgNode) -> None:
    for parameter in ("sampling_offsets.bias", "query_proj.bias"):
        detector = built(small_cfg)
        layer = attention_layers(detector.encoder)[0]
        with torch.no_grad():
            layer.get_parameter(parameter)[0] = float("nan")
        with pytest.raises(FloatingPointError, match="not finite: the weights have diverged"):
            observe(layer, detecting(detector))


def made(levels: range, shapes: tuple[tuple[int, int], ...] = ((4, 6), (2, 3), (1, 1))) -> Sampling:
    """Random samples of all tokens of some levels, each at the centre of its cell."""
    centres = [
        torch.tensor([(column + 0.5) / width, (row + 0.5) / height])
        for height, width in shapes[levels.start : levels.stop]
        for row in range(height)
        for column in range(width)
    ]
    weights = torch.rand(len(centres), 2, len(shapes), 3)
    locations = torch.rand(len(centres), 2, len(shapes), 3, 2)
    return Sampling(locations, weights / weights.sum((-2, -1), keepdim=True), torch.stack(centres), shapes, levels)


@pytest.mark.parametrize("levels", [range(3), range(2), range(1, 3), range(2, 3)], ids=str)
def test_the_query_at_a_point_is_the_nearest_token_of_the_level(levels: range) -> None:
    sampling = made(levels)
    for point in ((0.01, 0.01), (0.99, 0.99), (0.6, 0.3), (0.1, 0.8)):
        first = 0
        for level in levels:
            height, width = sampling.shapes[level]
            expected = first + int(point[1] * height) * width + int(point[0] * width)
            assert sampling.query_at(point, level) == expected
            assert sampling.level_of(expected) == level
            first += height * width
        assert sampling.query_at(point) == sampling.query_at(point, levels[-1])


def test_levels_without_queries() -> None:
    with pytest.raises(InputError, match=r"no tokens of level 0, but those of the levels 1 to 2 \(0 is the finest"):
        made(range(1, 3)).query_at((0.5, 0.5), 0)
    with pytest.raises(InputError, match="no tokens of level 3, but those of level 0 "):
        made(range(1)).query_at((0.5, 0.5), 3)


@pytest.mark.parametrize("query", [None, 5])
@pytest.mark.parametrize("level", [None, 0, 2])
@pytest.mark.parametrize("number", [1, 7, 10_000])
def test_the_strongest_are_those_of_the_largest_weights(query: int | None, level: int | None, number: int) -> None:
    sampling = made(range(3))
    every = sorted(
        (
            (float(sampling.weights[q, m, l, p]), sampling.locations[q, m, l, p].tolist(), l)
            for q in range(31)
            for m in range(2)
            for l in range(3)  # noqa: E741  (as in the shapes)
            for p in range(3)
            if query in (None, q) and level in (None, l)
        ),
        reverse=True,
    )
    found = sampling.strongest(number, query=query, level=level)
    assert found.candidates == len(every)
    assert (
        list(zip(found.weights.tolist(), found.locations.tolist(), found.levels.tolist(), strict=True))
        == every[:number]
    )
