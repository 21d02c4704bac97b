"""The schedule of a recipe for COCO, on sets of other sizes."""

import argparse
import re
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from lite_detr_d2.engine import argument_parser, read_config, setup
from lite_detr_d2.engine.schedule import FEWEST_ITERATIONS, Schedule
from lite_detr_d2.errors import InputError
from tests.conftest import CONFIGS
from tests.data.folders import write_coco_folder, write_single_file_folder

TINY = Path(__file__).parent / "tiny.yaml"
COCO = 118_287
RECIPE = Schedule(
    batch=16, max_iter=90_000, steps=(82_500,), warmup_iters=600, checkpoint_period=7500, eval_period=7500
)


@pytest.mark.parametrize(
    ("num_images", "max_iter", "step", "period"),
    [
        (1, 1000, 916, 100),  # 262 and 22 by the formula
        (20, 1170, 1072, 100),
        (292, 4472, 4099, 373),
        (10_000, 26_168, 23_987, 2181),
        (COCO, 90_000, 82_500, 7500),
        (1_700_000, 341_192, 312_759, 28_433),
    ],
)
def test_images_seen_go_with_the_square_root(num_images: int, max_iter: int, step: int, period: int) -> None:
    fitted = RECIPE.fitted(num_images, COCO, batch=16)
    assert (fitted.max_iter, fitted.steps) == (max_iter, (step,))
    assert fitted.checkpoint_period == fitted.eval_period == period
    assert fitted.warmup_iters == pytest.approx(max_iter / 150, abs=1)


def test_epochs_go_with_its_inverse() -> None:
    fitted = RECIPE.fitted(COCO // 100, COCO, batch=16)
    assert RECIPE.epochs(COCO) == pytest.approx(12.17, abs=0.01)
    assert fitted.epochs(COCO // 100) == pytest.approx(10 * RECIPE.epochs(COCO), rel=1e-3)


@pytest.mark.parametrize(("batch", "max_iter"), [(1, 71_546), (4, 17_887), (16, 4472), (64, 1118), (128, 1000)])
def test_a_batch_changes_the_iterations_not_the_images(batch: int, max_iter: int) -> None:
    fitted = RECIPE.fitted(292, COCO, batch)
    assert (fitted.batch, fitted.max_iter) == (batch, max_iter)
    if max_iter > FEWEST_ITERATIONS:
        assert fitted.epochs(292) == pytest.approx(RECIPE.fitted(292, COCO, 16).epochs(292), rel=1e-3)


def test_periods_stay_long_and_zero_stays_zero() -> None:
    long = Schedule(batch=2, max_iter=9000, steps=(8000,), warmup_iters=0, checkpoint_period=900, eval_period=0)
    assert long.stretched(2000, batch=4) == Schedule(4, 2000, (1777,), 0, 200, 0)
    assert long.stretched(9, batch=4) == Schedule(4, 9, (8,), 0, 100, 0)
    frequent = Schedule(batch=2, max_iter=9000, steps=(), warmup_iters=0, checkpoint_period=9, eval_period=40)
    assert frequent.stretched(900, batch=2) == Schedule(2, 900, (), 0, 9, 40)


@pytest.mark.parametrize("max_iter", [300, 4472])
def test_a_fitted_schedule_is_not_fitted_again(max_iter: int) -> None:
    fitted = RECIPE.stretched(max_iter, batch=4)
    assert fitted.fitted(292, 292, batch=4) == fitted


@pytest.mark.parametrize(("max_iter", "steps"), [(1, ()), (2, (1,)), (3, (1, 2)), (30, (10, 29))])
def test_steps_lie_within_training(max_iter: int, steps: tuple[int, ...]) -> None:
    recipe = Schedule(2, 3000, steps=(1000, 2999), warmup_iters=0, checkpoint_period=1, eval_period=1)
    assert recipe.stretched(max_iter, batch=2).steps == steps


@pytest.mark.parametrize(
    ("epochs", "num_images", "batch", "max_iter"),
    [
        (12, COCO, 16, 88_716),
        (12, 292, 4, 876),
        (1, 1, 16, 1),
        (1, 5, 4, 2),
        (1, 16, 16, 1),
        (0.5, 292, 4, 37),
        (1.1, 10, 1, 11),
        (1e-9, 10, 1, 1),
        (100, 1, 16, 7),
    ],
)
def test_epochs_are_counted_in_images(epochs: float, num_images: int, batch: int, max_iter: int) -> None:
    schedule = RECIPE.over(epochs, num_images, batch)
    assert schedule == RECIPE.stretched(max_iter, batch)
    assert schedule.batch == batch and schedule.max_iter == max_iter
    assert max_iter - 1 < max(epochs * num_images / batch, 1)


def parse(*arguments: object) -> argparse.Namespace:
    return argument_parser("").parse_args([str(argument) for argument in arguments])


def set_up(tmp_path: Path, *overrides: object, options: tuple[object, ...] = ()) -> CfgNode:
    """Set up training on four images by a recipe for 100, of 50,000 iterations at batch 2."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f'_BASE_: {TINY}\nSOLVER: {{MAX_ITER: 50000, STEPS: "(40000,)", CHECKPOINT_PERIOD: 5000, '
        "REFERENCE_NUM_IMAGES: 100}\nTEST: {EVAL_PERIOD: 10000}"
    )
    common = ("--config-file", recipe, "OUTPUT_DIR", tmp_path / "output", *overrides)
    return setup(parse("--dataset", write_coco_folder(tmp_path), *options, *common))


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "output" / "log.txt").read_text()


def test_a_dataset_fits_the_schedule_and_the_log_says_how(tmp_path: Path) -> None:
    cfg = set_up(tmp_path)
    assert Schedule.from_config(cfg) == Schedule(2, 10_000, (8000,), 0, 1000, 2000)
    assert (
        "Schedule for 4 training images at batch 2, 5000.0 epochs: SOLVER.MAX_ITER 10000, SOLVER.STEPS (8000,), "
        "SOLVER.WARMUP_ITERS 0, SOLVER.CHECKPOINT_PERIOD 1000, TEST.EVAL_PERIOD 2000. The config file's 50000 "
        "iterations at batch 2 are for 100 images;"
    ) in log_of(tmp_path)


def test_the_batch_in_force_counts(tmp_path: Path) -> None:
    cfg = set_up(tmp_path, "SOLVER.IMS_PER_BATCH", 8)
    assert Schedule.from_config(cfg) == Schedule(8, 2500, (2000,), 0, 250, 500)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("SOLVER.MAX_ITER", 40), Schedule(2, 40, (32,), 0, 100, 100)),
        (("SOLVER.MAX_ITER", 40, "SOLVER.IMS_PER_BATCH", 4), Schedule(4, 40, (32,), 0, 100, 100)),
        (("SOLVER.MAX_ITER", 40, "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", 0), Schedule(2, 40, (), 0, 100, 0)),
        (("SOLVER.STEPS", "(7,9)", "SOLVER.WARMUP_ITERS", 5), Schedule(2, 10_000, (7, 9), 5, 1000, 2000)),
        (("SOLVER.REFERENCE_NUM_IMAGES", 4), Schedule(2, 50_000, (40_000,), 0, 5000, 10_000)),
    ],
)
def test_overrides_win(tmp_path: Path, overrides: tuple[object, ...], expected: Schedule) -> None:
    assert Schedule.from_config(set_up(tmp_path, *overrides)) == expected
    assert ("SOLVER.MAX_ITER is as given" in log_of(tmp_path)) == (overrides[0] == "SOLVER.MAX_ITER")


def test_the_config_that_a_run_writes_is_not_fitted_again(tmp_path: Path) -> None:
    cfg = set_up(tmp_path)
    written = ("--config-file", tmp_path / "output" / "config.yaml", "OUTPUT_DIR", tmp_path / "again")
    again = setup(parse("--dataset", tmp_path, *written))
    assert Schedule.from_config(again) == Schedule.from_config(cfg)


EPOCHS_20 = ("--epochs", 20)


def test_epochs_set_the_schedule_and_the_log_says_so(tmp_path: Path) -> None:
    cfg = set_up(tmp_path, options=("--epochs", 2500))
    assert Schedule.from_config(cfg) == Schedule(2, 5000, (4000,), 0, 500, 1000)
    assert (
        "Schedule for 4 training images at batch 2, 2500.0 epochs: SOLVER.MAX_ITER 5000, SOLVER.STEPS (4000,), "
        "SOLVER.WARMUP_ITERS 0, SOLVER.CHECKPOINT_PERIOD 500, TEST.EVAL_PERIOD 1000. SOLVER.MAX_ITER makes "
        "--epochs 2500, and the rest keeps the ratio to it that it has in the config file."
    ) in log_of(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), Schedule(2, 40, (32,), 0, 100, 100)),
        (("SOLVER.IMS_PER_BATCH", 16), Schedule(16, 5, (4,), 0, 100, 100)),
        (("SOLVER.REFERENCE_NUM_IMAGES", 0), Schedule(2, 40, (32,), 0, 100, 100)),
        (("SOLVER.MAX_ITER", 10), Schedule(2, 10, (8,), 0, 100, 100)),
        (("SOLVER.STEPS", "(7,9)", "TEST.EVAL_PERIOD", 0), Schedule(2, 40, (7, 9), 0, 100, 0)),
        (("SOLVER.WARMUP_ITERS", 3, "SOLVER.CHECKPOINT_PERIOD", 5), Schedule(2, 40, (32,), 3, 5, 100)),
    ],
)
def test_epochs_yield_to_keys_that_were_given(
    tmp_path: Path, overrides: tuple[object, ...], expected: Schedule
) -> None:
    cfg = set_up(tmp_path, *overrides, options=EPOCHS_20)
    assert Schedule.from_config(cfg) == expected
    assert ("makes --epochs 20" in log_of(tmp_path)) == ("SOLVER.MAX_ITER" not in overrides)
    assert ("; --epochs 20 yields to it." in log_of(tmp_path)) == ("SOLVER.MAX_ITER" in overrides)


def test_epochs_of_a_split_are_the_same_when_resumed(tmp_path: Path) -> None:
    dataset = write_single_file_folder(tmp_path / f"{tmp_path.name}_single", images=10)
    common = ("--config-file", TINY, "--dataset", dataset, *EPOCHS_20)
    first = setup(parse(*common, "OUTPUT_DIR", tmp_path / "output"))
    resumed = setup(parse(*common, "--resume", "OUTPUT_DIR", tmp_path / "output"))
    assert first.SOLVER.MAX_ITER == 80
    assert Schedule.from_config(resumed) == Schedule.from_config(first)


def test_the_config_that_epochs_write_is_not_fitted_again(tmp_path: Path) -> None:
    cfg = set_up(tmp_path, options=EPOCHS_20)
    written = ("--config-file", tmp_path / "output" / "config.yaml", "OUTPUT_DIR", tmp_path / "again")
    assert Schedule.from_config(setup(parse("--dataset", tmp_path, *written))) == Schedule.from_config(cfg)


@pytest.mark.parametrize("epochs", ["0", "-1", "nan", "inf", "-0.5", "1e+308"])
def test_epochs_that_are_none_are_refused(tmp_path: Path, epochs: str) -> None:
    with pytest.raises(
        InputError, match=rf"^--epochs is {re.escape(epochs)}: expected a number above 0, and at most 1000000\.$"
    ):
        set_up(tmp_path, options=(f"--epochs={epochs}",))


def test_epochs_need_sets_whose_size_is_known(tmp_path: Path) -> None:
    message = r"^--epochs 20 needs --dataset: .*DATASETS\.TRAIN \('coco_2017_train',\).*SOLVER\.MAX_ITER"
    with pytest.raises(InputError, match=message):
        setup(parse("--config-file", TINY, *EPOCHS_20, "OUTPUT_DIR", tmp_path / "output"))
    with pytest.raises(InputError, match=message):
        set_up(tmp_path, "DATASETS.TRAIN", "('coco_2017_train',)", options=EPOCHS_20)


UNFITTED = Schedule(2, 50_000, (40_000,), 0, 5000, 10_000)


def test_reference_0_keeps_the_schedule(tmp_path: Path) -> None:
    assert Schedule.from_config(set_up(tmp_path, "SOLVER.REFERENCE_NUM_IMAGES", 0)) == UNFITTED
    assert "Schedule for" not in log_of(tmp_path)


@pytest.mark.parametrize("options", [(), EPOCHS_20])
def test_evaluation_needs_no_schedule(tmp_path: Path, options: tuple[object, ...]) -> None:
    assert Schedule.from_config(set_up(tmp_path, options=("--eval-only", *options))) == UNFITTED
    assert "Schedule for" not in log_of(tmp_path)


def test_training_on_both_halves_counts_both(tmp_path: Path) -> None:
    both = f"('{tmp_path.name}_train','{tmp_path.name}_val')"
    assert round(50_000 * (8 / 100) ** 0.5) == set_up(tmp_path, "DATASETS.TRAIN", both).SOLVER.MAX_ITER


def test_only_the_training_half_of_a_split_counts(tmp_path: Path) -> None:
    dataset = write_single_file_folder(tmp_path / f"{tmp_path.name}_single", images=10)
    overrides = ("SOLVER.REFERENCE_NUM_IMAGES", 200, "SOLVER.MAX_ITER", 50)
    setup(parse("--config-file", TINY, "--dataset", dataset, "OUTPUT_DIR", tmp_path / "output", *overrides))
    assert "Schedule for 8 training images" in log_of(tmp_path)


def test_a_recipe_without_iterations_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"_BASE_: {TINY}\nSOLVER: {{MAX_ITER: 0, REFERENCE_NUM_IMAGES: 100}}")
    common = ("--config-file", recipe, "OUTPUT_DIR", tmp_path / "output", "SOLVER.MAX_ITER", 5)
    with pytest.raises(InputError, match=r"recipe\.yaml: SOLVER\.MAX_ITER is 0: expected an integer from 1 to"):
        setup(parse("--dataset", write_coco_folder(tmp_path), *common))


def test_a_negative_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SOLVER\.REFERENCE_NUM_IMAGES is -1: expected an integer from 0 to"):
        set_up(tmp_path, "SOLVER.REFERENCE_NUM_IMAGES", -1)


@pytest.mark.parametrize(
    ("config", "reference"),
    [
        ("dino/lite_dino_h3l1_a2b3_r18_12ep.yaml", COCO),
        ("dino/dino_r50_36ep.yaml", COCO),
        ("dino/lite_dino_tiny.yaml", 300),
        ("demo/lite_dino_digits.yaml", 0),
    ],
)
def test_shipped_recipes_name_their_reference(config: str, reference: int) -> None:
    cfg = read_config(argparse.Namespace(config_file=str(CONFIGS / config), opts=[]))
    assert reference == cfg.SOLVER.REFERENCE_NUM_IMAGES
