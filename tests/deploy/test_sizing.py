"""Which sizes an exported detector takes."""

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from lite_detr_d2 import add_lite_detr_config
from lite_detr_d2.deploy.bounds import Bounds, Range, fixed
from lite_detr_d2.deploy.inference import InferenceModel
from lite_detr_d2.deploy.sizing import check_bounds, choose_bounds, num_tokens, report_unused
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.errors import InputError
from tests.conftest import CONFIGS


@pytest.fixture
def detector(small_cfg: CfgNode) -> DetrDetector:
    model: DetrDetector = build_model(small_cfg).eval()
    return model


@pytest.fixture(scope="module")
def swin() -> DetrDetector:
    cfg = get_cfg()
    add_lite_detr_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "dino" / "lite_dino_h3l1_a2b3_swint_12ep.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.SWIN.DEPTHS, cfg.MODEL.SWIN.EMBED_DIM = [1, 1, 1, 1], 24
    cfg.MODEL.LITE_DETR.NUM_QUERIES = 10
    model: DetrDetector = build_model(cfg).eval()
    return model


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 130), (71, 32)])
@pytest.mark.parametrize("which", ["detector", "swin"])
def test_tokens_are_counted_as_the_detector_makes_them(
    which: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    images = torch.zeros(1, 3, *size, dtype=torch.uint8)
    with torch.no_grad():
        tokens = InferenceModel(model).inspect(images, torch.tensor([size])).tokens
    assert num_tokens(model, *size) == tokens.shape[1]


def test_without_a_size_all_images_fit(small_cfg: CfgNode, detector: DetrDetector) -> None:
    small_cfg.INPUT.MAX_SIZE_TEST = 333
    assert choose_bounds(small_cfg, detector, batch=2) == fixed(2, 333, 333)
    small_cfg.INPUT.MIN_SIZE_TEST = 0
    with pytest.raises(InputError, match="INPUT.MIN_SIZE_TEST is 0, so that images are not resized"):
        choose_bounds(small_cfg, detector)


def test_the_smallest_of_dynamic_sizes_has_tokens_for_the_queries(small_cfg: CfgNode, detector: DetrDetector) -> None:
    bounds = choose_bounds(small_cfg, detector, size=(300, 400), batch=3, dynamic=True)
    assert bounds.largest == [3, 300, 400]
    least = bounds.height.smallest
    assert bounds.smallest == [1, least, least]
    assert num_tokens(detector, least, least) >= detector.query_selection.num_queries
    detector.query_selection.num_queries = 500
    more = choose_bounds(small_cfg, detector, size=(300, 400), dynamic=True).height.smallest
    assert num_tokens(detector, more, more) >= 500 > num_tokens(detector, more - 32, more - 32)


@pytest.mark.parametrize(
    ("bounds", "is_larger"),
    [
        (fixed(1, 333, 333), False),
        (fixed(1, 333, 334), True),
        (Bounds(Range(1, 8), Range(64, 333), Range(64, 200)), False),
        (Bounds(Range(1, 8), Range(64, 400), Range(64, 200)), True),
    ],
)
def test_what_no_image_is_resized_to_is_said(
    small_cfg: CfgNode, caplog: pytest.LogCaptureFixture, bounds: Bounds, is_larger: bool
) -> None:
    small_cfg.INPUT.MAX_SIZE_TEST = 333
    report_unused(small_cfg, bounds)
    assert len(caplog.messages) == is_larger
    assert all("resized to 333 pixels a side at most" in message for message in caplog.messages)
    small_cfg.INPUT.MIN_SIZE_TEST = 0  # as they are
    report_unused(small_cfg, bounds)
    assert len(caplog.messages) == is_larger


def test_dynamic_sizes_that_would_be_one(small_cfg: CfgNode, detector: DetrDetector) -> None:
    with pytest.raises(InputError, match="There is no size smaller than 40 x 50"):
        choose_bounds(small_cfg, detector, size=(40, 50), dynamic=True)
    assert not choose_bounds(small_cfg, detector, size=(40, 50), batch=2, dynamic=True).is_fixed


@pytest.mark.parametrize(("size", "batch"), [((0, 100), 1), ((100, -5), 1), ((100, 100), 0)])
def test_sizes_that_are_none(small_cfg: CfgNode, detector: DetrDetector, size: tuple[int, int], batch: int) -> None:
    with pytest.raises(InputError, match="not all positive"):
        choose_bounds(small_cfg, detector, size=size, batch=batch)


def test_too_few_tokens(detector: DetrDetector) -> None:
    with pytest.raises(InputError, match=r"Images of 9 x 9 \(height x width\) have \d+ tokens, fewer than the 20 q"):
        check_bounds(detector, fixed(1, 9, 9))


@pytest.mark.parametrize("dynamic", [Bounds(Range(1, 2), Range(64, 64), Range(64, 64)), None])
def test_a_swin_transformer_has_one_size(small_cfg: CfgNode, swin: DetrDetector, dynamic: Bounds | None) -> None:
    check_bounds(swin, fixed(2, 64, 96))
    with pytest.raises(InputError, match="one size and batch only: leave --dynamic out"):
        if dynamic is not None:
            check_bounds(swin, dynamic)
        else:
            choose_bounds(small_cfg, swin, size=(200, 300), dynamic=True)
