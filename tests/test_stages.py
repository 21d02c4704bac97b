"""Which stages of query selection and box refinement go together, as a config asks for them."""

import pytest
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from lite_detr_d2.config import validate_config
from lite_detr_d2.errors import InputError

from .helpers import ALL_STAGES, DETECTORS, choose_detector, set_stages


@pytest.mark.parametrize("name", DETECTORS)
def test_what_is_published_is_valid(small_cfg: CfgNode, name: str) -> None:
    choose_detector(small_cfg, name)
    assert type(build_model(small_cfg)).__name__ == DETECTORS[name][0]


@pytest.mark.parametrize("architecture", ["DeformableDETR", "HDETR"])
@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (("TWO_STAGE",), "LITE_DETR.TWO_STAGE is True, and BOX_REFINEMENT is False: set BOX_REFINEMENT to True or"),
        (
            ("BOX_REFINEMENT", "MIXED_SELECTION"),
            "LITE_DETR.MIXED_SELECTION is True, and TWO_STAGE is False: set",
        ),
        (("LOOK_FORWARD_TWICE",), "LITE_DETR.LOOK_FORWARD_TWICE is True, and BOX_REFINEMENT is False"),
        (("LOOK_FORWARD_TWICE", "TWO_STAGE", "MIXED_SELECTION"), "and BOX_REFINEMENT is False"),
    ],
)
def test_a_stage_without_the_one_that_it_needs(
    small_cfg: CfgNode, architecture: str, stages: tuple[str, ...], message: str
) -> None:
    set_stages(small_cfg, architecture, stages)
    with pytest.raises(InputError, match=message):
        validate_config(small_cfg)


@pytest.mark.parametrize("missing", ["MIXED_SELECTION", "LOOK_FORWARD_TWICE"])
def test_dino_needs_all_stages(small_cfg: CfgNode, missing: str) -> None:
    set_stages(small_cfg, "DINO", [stage for stage in ALL_STAGES if stage != missing])
    with pytest.raises(InputError, match="META_ARCHITECTURE is 'DINO', of which .*MIXED_SELECTION and LOOK_FORWARD"):
        validate_config(small_cfg)
    small_cfg.MODEL.META_ARCHITECTURE = "DeformableDETR"
    validate_config(small_cfg)


@pytest.mark.parametrize(
    ("key", "value", "minimum"), [("NUM_QUERIES", -1, 0), ("REPEATS", 0, 1), ("REPEATS", -1, 1), ("WEIGHT", -0.5, 0)]
)
def test_bad_values_of_the_one_to_many_branch(small_cfg: CfgNode, key: str, value: float, minimum: int) -> None:
    small_cfg.MODEL.LITE_DETR.ONE_TO_MANY[key] = value
    with pytest.raises(InputError, match=rf"ONE_TO_MANY.{key} is {value}: expected an? [a-z]+ from {minimum} to"):
        validate_config(small_cfg)
