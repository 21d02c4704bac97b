"""EfficientNet-Lite0's weights as their package ships them: what they make of photographs; configs find them."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
from detectron2.modeling import build_model
from PIL import Image

from lite_detr_d2.checkpoint import convert_published, read_checkpoint
from lite_detr_d2.checkpoint.packages import file_of_package
from lite_detr_d2.engine.checkpointer import SafeCheckpointer
from tests.conftest import CONFIGS
from tests.shipped_configs import read

TINY = CONFIGS / "dino" / "lite_dino_efflite0_tiny.yaml"
NAME = "tf_efficientnet_lite0"
# ImageNet's classes: tabby, tiger cat, Egyptian cat; cup, espresso, coffee mug; missile, projectile, space shuttle.
PHOTOGRAPHS = {"chelsea": {281, 282, 285}, "coffee": {504, 967, 968}, "rocket": {657, 744, 812}}
# Of the classifier, which is no part of a backbone.
HEAD = {"_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


@pytest.fixture(scope="module")
def weights() -> Path:
    return Path(file_of_package(read(TINY).MODEL.WEIGHTS))


@pytest.fixture(scope="module")
def classifier(weights: Path) -> torch.nn.Module:
    """timm's network with the weights as the format maps them, and its head."""
    state = read_checkpoint(weights)["model"]
    converted, report = convert_published(state)
    assert report.kind == "ImageNet EfficientNet-Lite (EfficientNet-PyTorch)"
    ours = {name.removeprefix("backbone.body.model."): tensor for name, tensor in converted.items()}
    for name, tensor in state.items():
        module, _, parameter = name.rpartition(".")
        if module in HEAD:
            ours[f"{HEAD[module]}.{parameter}"] = tensor
    model = timm.create_model(NAME)
    missing, unexpected = model.load_state_dict(ours, strict=False)
    assert unexpected == [] and all(name.endswith("num_batches_tracked") for name in missing)
    return model.eval()


def prepared(name: str) -> torch.Tensor:
    """A photograph, (1, 3, 224, 224), as the config normalises it."""
    image = Image.fromarray(getattr(skimage.data, name)())
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.array(image.crop((left, top, left + 224, top + 224)), dtype=np.float32)
    cfg = read(TINY)
    assert cfg.INPUT.FORMAT == "RGB"
    normalised = (pixels - np.float32(cfg.MODEL.PIXEL_MEAN)) / np.float32(cfg.MODEL.PIXEL_STD)
    return torch.from_numpy(normalised).permute(2, 0, 1)[None]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_get_their_classes(classifier: torch.nn.Module, name: str) -> None:
    """All three are among the best five of the 1,000, and together more likely than all others."""
    with torch.no_grad():
        scores = classifier(prepared(name)).softmax(-1)[0]
    wanted = PHOTOGRAPHS[name]
    assert wanted <= set(scores.topk(5).indices.tolist())
    assert float(scores[list(wanted)].sum()) > 0.5


def test_a_config_finds_the_weights(weights: Path) -> None:
    cfg = read(TINY)
    model = build_model(cfg)
    SafeCheckpointer(model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    theirs = torch.load(weights, weights_only=True)
    blocks = model.backbone.body.model
    assert torch.equal(blocks.conv_stem.weight, theirs["_conv_stem.weight"])
    last = blocks.blocks[-1][-1]
    assert torch.equal(last.conv_pwl.weight, theirs["_blocks.15._project_conv.weight"])
    assert torch.equal(last.bn3.running_var, theirs["_blocks.15._bn2.running_var"])


def test_the_backbone_computes_what_the_classifier_does(classifier: torch.nn.Module) -> None:
    """With frozen norms, and from an image whose sides need no padding."""
    cfg = read(TINY)
    model = build_model(cfg)
    SafeCheckpointer(model).load(cfg.MODEL.WEIGHTS, checkpointables=[])
    images = prepared("chelsea")
    with torch.no_grad():
        last = model.train().backbone(images)["stage4"]
        expected = classifier.blocks(classifier.bn1(classifier.conv_stem(images)))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-4)
