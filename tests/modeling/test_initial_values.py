"""Before it has learnt anything, every part of a detector is what the published one is.

Sources, all by their constructors and ``_reset_parameters``: fundamentalvision/Deformable-DETR (``deformable_detr.py``,
``deformable_transformer.py``, ``ms_deform_attn.py``), which H-DETR and Sparse DETR have taken over; IDEA-Research/DINO;
IDEA-Research/Lite-DETR for key-aware attention. Within the transformer, every matrix is drawn by Glorot and Bengio's
uniform rule; what is created around it keeps PyTorch's own values, if nothing else is said.
"""

import math
import re
from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from ..helpers import choose_detector

HEADS, CLASSES, LOGIT_OF_A_HUNDREDTH = 8, 10, -4.59512  # log(1 / 99)
# Eight heads look to the right, then by an eighth of a turn further each: a corner is as far as a side.
DIRECTIONS = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
ATTENTION = r"(encoder|decoder)\.layers\.\d+\.(cross_)?attention\."
SELF_ATTENTION = r"decoder\.layers\.\d+\.self_attention\."
ANY_HEAD = r"(query_selection\.head|encoder\.auxiliary_heads\.\d+|decoder\.heads\.\d+)\."
# What a parameter starts as, by its name.
RULES = {
    "looking around": rf"{ATTENTION}sampling_offsets\.bias",
    "zeros": rf"{ATTENTION}(sampling_offsets\.weight|attention_weights\.\w+|\w+_proj\.bias)|{SELF_ATTENTION}\w+\.bias"
    rf"|neck\..+\.0\.bias|{ANY_HEAD}box_embed\.layers\.2\.weight|query_selection\.reference_points\.bias"
    r"|.*norm\.bias|neck\..+\.1\.bias|encoder\.scorer\.embed\.0\.bias",
    "ones": r".*norm\.weight|neck\..+\.1\.weight|encoder\.scorer\.embed\.0\.weight",
    "glorot": rf"{ATTENTION}(value|output|query|key)_proj\.weight|{SELF_ATTENTION}output_proj\.weight"
    r"|neck\..+\.0\.weight|.*feed_forward\.linear\d\.weight|query_selection\.(proj|proposal_embed\.proj|reference_points)\.weight"
    r"|decoder\.position\.mlp\.layers\.\d\.weight|encoder\.scorer\.(embed\.1|score\.\d)\.weight",
    "glorot as one of three": rf"{SELF_ATTENTION}(query_key|value)_proj\.weight",
    "torch's": rf"{ANY_HEAD}class_embed\.weight|.*feed_forward\.linear\d\.bias|decoder\.position\.mlp\.layers\.\d\.bias"
    rf"|encoder\.scorer\.(embed\.1|score\.\d)\.bias|{ANY_HEAD}box_embed\.layers\.[01]\.\w+"
    r"|query_selection\.(proposal_embed\.)?proj\.bias",
    "normal": r"flatten\.level_embed|denoising\.label_embed\.weight|query_selection\.position\.weight",
    "content": r"query_selection\.content\.weight",
    "rare classes": rf"{ANY_HEAD}class_embed\.bias",
    "box": rf"{ANY_HEAD}box_embed\.layers\.2\.bias",
}


def assert_uniform(values: Tensor, bound: float) -> None:
    """Within ``bound`` on either side, and as near to it as so many uniform ones are, but for once in a million."""
    largest, count = float(values.abs().max()), values.numel()
    assert 1e-6 ** (1 / count) * bound < largest <= bound * (1 + 1e-6)
    assert float(values.std(correction=0)) == pytest.approx(bound / math.sqrt(3), rel=4 / math.sqrt(count))


def assert_glorot(weight: Tensor, fan_out: int | None = None) -> None:
    kernel = weight[0, 0].numel()
    assert_uniform(weight, math.sqrt(6 / (kernel * weight.shape[1] + (fan_out or kernel * len(weight)))))


def assert_normal(values: Tensor) -> None:
    count = values.numel()
    assert float(values.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * count))
    assert abs(float(values.mean())) < 4 / math.sqrt(count) and float(values.abs().max()) > 2


def assert_looks_around(bias: Tensor, points: int) -> None:
    """The heads' first points are one pixel away, the second ones two, and so on, on every level."""
    wanted = torch.tensor([[[k * x, k * y] for k in range(1, points + 1)] for x, y in DIRECTIONS], dtype=torch.float32)
    offsets = bias.view(HEADS, -1, points, 2)
    torch.testing.assert_close(offsets, wanted[:, None].expand_as(offsets), rtol=0, atol=1e-5)


def rule_of(name: str) -> str:
    (rule,) = [rule for rule, names in RULES.items() if re.fullmatch(names, name)]
    return rule


def assert_follows(rule: str, value: Tensor, *, fan_in: int, points: int, detector: str, first: bool) -> None:
    """``fan_in`` is that of the layer, ``points`` those of its attention, ``first`` whether it is the first head."""
    from_point = first and detector in ("deformable_detr", "deformable_detr_refined")
    checks: dict[str, Callable[[], None]] = {
        "zeros": lambda: torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=0),
        "ones": lambda: torch.testing.assert_close(value, torch.ones_like(value), rtol=0, atol=0),
        "looking around": lambda: assert_looks_around(value, points),
        "glorot": lambda: assert_glorot(value),
        # Of a matrix that makes queries, keys and values at once, as PyTorch's.
        "glorot as one of three": lambda: assert_glorot(value, fan_out=3 * fan_in),
        "torch's": lambda: assert_uniform(value, 1 / math.sqrt(fan_in)),
        "normal": lambda: assert_normal(value),
        # Part of the transformer in DINO alone.
        "content": lambda: assert_glorot(value) if detector == "dino" else assert_normal(value),
        "rare classes": lambda: torch.testing.assert_close(value, torch.full((CLASSES,), LOGIT_OF_A_HUNDREDTH)),
        "box": lambda: torch.testing.assert_close(value, torch.tensor([0.0, 0.0, *[-2.0 * from_point] * 2])),
    }
    checks[rule]()


def configure(cfg: CfgNode, detector: str) -> None:
    """Eight heads, as the recipes have; plain attention in the Deformable DETRs; no two widths alike."""
    choose_detector(cfg, detector)
    model = cfg.MODEL.LITE_DETR
    model.NUM_HEADS, model.HIDDEN_DIM, model.DECODER.NUM_POINTS = HEADS, 64, 3
    model.ENCODER.DIM_FEEDFORWARD, model.DECODER.DIM_FEEDFORWARD, model.NUM_LEVELS = 96, 160, 5
    model.ENCODER.SPEC = "H4L1-(2+1)x1"
    model.ENCODER.KEY_AWARE = not detector.startswith("deformable")
    model.ENCODER.KEY_PROJ = detector == "dino"


@pytest.mark.parametrize(
    "detector",
    ["dino", "deformable_detr", "deformable_detr_refined", "deformable_detr_two_stage", "h_detr", "sparse_detr"],
)
def test_a_detector_starts_as_the_published_one(small_cfg: CfgNode, detector: str) -> None:
    configure(small_cfg, detector)
    starts = {n: p.detach() for n, p in build_model(small_cfg).named_parameters() if not n.startswith("backbone.")}
    for name, value in starts.items():
        weight = starts[re.sub(r"bias$", "weight", name)]
        points = 3 if name.startswith("decoder.") else 4
        first = name.startswith("decoder.heads.0.")
        fan_in = weight.shape[-1]
        assert_follows(rule_of(name), value, fan_in=fan_in, points=points, detector=detector, first=first)


@pytest.mark.parametrize("detector", ["dino", "deformable_detr_refined", "deformable_detr_two_stage", "sparse_detr"])
def test_heads_start_as_clones(small_cfg: CfgNode, detector: str) -> None:
    """But for the offsets of the first one, where boxes start from a point."""
    configure(small_cfg, detector)
    starts: dict[str, list[Tensor]] = {}
    for name, value in build_model(small_cfg).named_parameters():
        if re.match(ANY_HEAD, name) and not name.endswith("layers.2.bias"):
            starts.setdefault(re.sub(ANY_HEAD, "", name), []).append(value)
    assert len(starts) == 7
    for first, *others in starts.values():
        assert others
        for other in others:
            torch.testing.assert_close(other, first, rtol=0, atol=0)


def test_every_rule_is_needed(small_cfg: CfgNode) -> None:
    """A pattern that meets no parameter checks nothing."""
    found = set()
    for detector in ("dino", "deformable_detr"):
        configure(small_cfg, detector)
        names = [name for name, _ in build_model(small_cfg).named_parameters() if not name.startswith("backbone.")]
        found |= {rule_of(name) for name in names}
    assert found == set(RULES)
