"""A compiled training computes what another does; evaluations, copies and checkpoints know nothing of it."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor
from torch._inductor import config as inductor

from lite_detr_d2.config import validate_config
from lite_detr_d2.detector import DetrDetector
from lite_detr_d2.engine import Trainer
from lite_detr_d2.engine.compilation import compile_training
from lite_detr_d2.errors import InputError
from tests.compiled import CompileCounter
from tests.helpers import batched_input, choose_detector, randomised

from .stops import stoppable_config, train

ON: dict[str, Any] = {"SOLVER__COMPILE": True}
# AdamW makes whole steps of gradients that are rounding alone, such as those of the biases of keys.
SGD: dict[str, Any] = {"SOLVER__OPTIMIZER": "SGD", "SOLVER__BASE_LR": 1e-3}
SIZES = ((64, 64), (96, 70), (51, 120), (130, 65), (33, 77), (88, 40))
MOST_RECOMPILATIONS = 5


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """With one layer of each kind: symbols take long."""
    cfg = stoppable_config(tmp_path)
    cfg.MODEL.LITE_DETR.DECODER.NUM_LAYERS, cfg.MODEL.LITE_DETR.ENCODER.SPEC = 2, "H3L1-(1+1)x1"
    return cfg


def batches(number: int) -> list[list[dict[str, Any]]]:
    """Of two images of differing sizes, with up to six boxes; the fourth, and every seventh after it, has none."""
    made = []
    for index in range(number):
        counts = (0, 0) if index % 7 == 3 else (index % 5 + 1, index * 2 % 7)
        sizes = SIZES[index % 6], SIZES[index * 5 % 6]
        pairs = zip(sizes, counts, strict=True)
        made.append([batched_input(*size, count, seed=2 * index + place) for place, (size, count) in enumerate(pairs)])
    return made


def losses_and_gradients(model: DetrDetector, batch: list[dict[str, Any]], precision: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model.zero_grad()
    with torch.autocast("cpu", precision, enabled=precision is not None):
        losses = model(batch)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()} | gradients


def assert_same_learning(
    model: DetrDetector,
    compiled: DetrDetector,
    batch: list[dict[str, Any]],
    close: float,
    precision: torch.dtype | None = None,
) -> None:
    expected, found = (losses_and_gradients(each, batch, precision) for each in (model, compiled))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        limit = close * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=close, atol=limit, msg=lambda text, n=name: f"{n}: {text}")


def assert_learns_the_same(
    cfg: CfgNode, counter: CompileCounter, number: int, precision: torch.dtype | None = None
) -> None:
    """Losses and gradients of so many batches, and the graphs that they took."""
    model = randomised(build_model(cfg)).train()
    compiled = copy.deepcopy(model)
    compile_training(compiled)
    for batch in batches(number):
        assert_same_learning(model, compiled, batch, 1e-4 if precision is None else 2e-2, precision)
        compiled.load_state_dict(model.state_dict())  # norms' statistics differ by rounding, which adds up
    logging.getLogger(__name__).warning("%d batches: %d recompilations", number, counter.graphs - 1)
    assert 0 <= counter.graphs - 1 <= MOST_RECOMPILATIONS


def test_losses_and_gradients_are_those_of_the_detector(small_cfg: CfgNode, counter: CompileCounter) -> None:
    small_cfg.MODEL.LITE_DETR.ENCODER.SPEC = "H2L1-(1+1)x1"
    assert_learns_the_same(small_cfg, counter, 6)
    assert counter.graphs == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deformable_detr_two_stage", "h_detr", "sparse_detr"])
def test_each_detector_is_trained_by_one_graph(small_cfg: CfgNode, counter: CompileCounter, name: str) -> None:
    choose_detector(small_cfg, name)
    assert_learns_the_same(small_cfg, counter, 5)


@pytest.mark.slow
def test_machine_code(small_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without channels-last, which is not for all backbones; of few layers, as each takes the compiler a minute."""
    torch.compiler.reset()
    choose_detector(small_cfg, "deformable_detr")
    small_cfg.MODEL.LITE_DETR.DECODER.NUM_LAYERS = small_cfg.MODEL.LITE_DETR.ENCODER.NUM_LAYERS = 1
    small_cfg.MODEL.LITE_DETR.ENCODER.NAME = "DeformableEncoder"
    model = randomised(build_model(small_cfg)).train()
    compiled = copy.deepcopy(model)
    monkeypatch.setattr(compiled, "trains_channels_last", False)
    compile_training(compiled)
    assert_same_learning(model, compiled, batches(1)[0], 1e-3)


@pytest.mark.slow
def test_in_bfloat16(small_cfg: CfgNode, counter: CompileCounter) -> None:
    small_cfg.MODEL.LITE_DETR.ENCODER.SPEC = "H2L1-(1+1)x1"
    assert_learns_the_same(small_cfg, counter, 4, torch.bfloat16)


@pytest.mark.slow
def test_fifty_batches(small_cfg: CfgNode, counter: CompileCounter) -> None:
    assert_learns_the_same(small_cfg, counter, 50)


def test_names_and_copies_stay(cfg: CfgNode) -> None:
    model = build_model(cfg).train()
    names = list(model.state_dict())
    compile_training(model)
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    assert copied.learn._module is copied  # as the average of the weights is one


@pytest.mark.slow
def test_a_training_is_evaluated_and_averaged_as_without(cfg: CfgNode, counter: CompileCounter, tmp_path: Path) -> None:
    options = {"SOLVER__EMA__ENABLED": True, "TEST__EVAL_PERIOD": 2, "DATASETS__TEST": cfg.DATASETS.TRAIN}
    found, expected = (
        train(cfg, tmp_path / str(compiled), SOLVER__COMPILE=compiled, **SGD, **options) for compiled in (True, False)
    )
    assert counter.graphs >= 1
    for part in ("model", "ema"):
        assert found[part].keys() == expected[part].keys()
        for name, value in expected[part].items():
            torch.testing.assert_close(found[part][name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_it_stops_and_goes_on(cfg: CfgNode, counter: CompileCounter, tmp_path: Path) -> None:
    """In parts and in bfloat16, too; a training goes on from a checkpoint of one that was not compiled."""
    options = {"SOLVER__ACCUMULATE": 2, "SOLVER__AMP__ENABLED": True, "SOLVER__AMP__DTYPE": "bfloat16"}
    train(cfg, tmp_path / "run", SOLVER__MAX_ITER=2, **options)
    assert counter.graphs == 0
    found = train(cfg, tmp_path / "run", SOLVER__MAX_ITER=4, **options, **ON)
    assert counter.graphs >= 1
    assert found["iteration"] == 3
    assert all(bool(value.isfinite().all()) for value in found["model"].values())


@pytest.mark.slow
def test_activations_are_computed_again(cfg: CfgNode, counter: CompileCounter, tmp_path: Path) -> None:
    options = {"MODEL__RESNETS__NORM": "FrozenBN", "SOLVER__RECOMPUTE": ["backbone", "encoder"]}
    found, expected = (
        train(cfg, tmp_path / str(compiled), SOLVER__COMPILE=compiled, **SGD, **options) for compiled in (True, False)
    )
    for name, value in expected["model"].items():
        torch.testing.assert_close(found["model"][name], value, rtol=1e-3, atol=1e-4)


def test_the_console_says_it(cfg: CfgNode, counter: CompileCounter, log: pytest.LogCaptureFixture) -> None:
    from lite_detr_d2.engine.summary import log_start  # noqa: PLC0415

    cfg.SOLVER.COMPILE = True
    log_start(Trainer(cfg))
    assert "compiled by torch.compile, which takes minutes before the first step" in log.text


def test_without_a_compiler_it_says_so_before_the_training(cfg: CfgNode) -> None:
    cfg.SOLVER.COMPILE = True
    with (
        inductor.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(InputError, match=r"^SOLVER.COMPILE is True, which needs a C\+\+ compiler on the CPU: install g"),
    ):
        Trainer(cfg)


def test_deterministic_training_is_not_compiled(cfg: CfgNode) -> None:
    cfg.SOLVER.DETERMINISTIC = True
    validate_config(cfg)
    cfg.SOLVER.COMPILE = True
    with pytest.raises(InputError, match="SOLVER.COMPILE and SOLVER.DETERMINISTIC are True"):
        validate_config(cfg)


def test_training_on_swin_is_not_compiled(cfg: CfgNode) -> None:
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.LITE_DETR.IN_FEATURES = "build_swin_backbone", ["p1", "p2", "p3"]
    with pytest.raises(InputError, match="^SOLVER.COMPILE is True, and the backbone is a Swin Transformer"):
        compile_training(build_model(cfg))


def test_what_cannot_be_compiled_is_one_error(cfg: CfgNode, counter: CompileCounter) -> None:
    cfg.MODEL.LITE_DETR.NUM_CLASSES = 80
    model = build_model(cfg).train()
    model.backbone.register_forward_pre_hook(lambda *_: torch._dynamo.graph_break())
    compile_training(model)
    with pytest.raises(
        InputError, match=r"^torch.compile cannot compile \w+.learn: .*\. Set SOLVER.COMPILE to False\.$"
    ):
        model(batches(1)[0])
