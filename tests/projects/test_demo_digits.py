"""The demo leaves its pictures and figures."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from lite_detr_d2.errors import InputError

from .scripts import TINY, load_script

demo_digits = load_script("demo_digits")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    output = tmp_path_factory.mktemp("demo")
    small = functools.partial(demo_digits.make_digits_dataset, train_images=4, val_images=3, image_size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_digits, "make_digits_dataset", small)
        patch.setattr(demo_digits, "CONFIG", TINY)
        demo_digits.main(["--output", str(output), "SOLVER.MAX_ITER", "2", "SOLVER.STEPS", "()"])
    yield output
    for name in ("digits_train", "digits_val"):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_a_wrong_command_is_said_before_the_images_are_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--overwrite comes after KEY VALUE pairs"):
        demo_digits.main(["--output", str(tmp_path / "demo"), "SOLVER.MAX_ITER", "2", "--overwrite"])
    assert not (tmp_path / "demo").exists()


def test_it_leaves_what_it_should(output: Path) -> None:
    assert {"AP", "AP50", "APs", "APm", "APl"} <= set(json.loads((output / "eval_metrics.json").read_text())["bbox"])
    assert (output / "model_final.pth").exists()
    flops = (output / "flops.txt").read_text()
    assert "| decoder" in flops
    log = (output / "log.txt").read_text()
    assert flops.strip() in log
    assert "APs" in log.splitlines()[-2]
    for said in ("The training:\n  model ", "The training is done:\n  time: ", f"predict.py {output} --input "):
        assert log.count(said) == 1


@pytest.mark.parametrize("picture", ["predictions.png", "curves.png", "loss_curve.png"])
def test_its_pictures_show_something(output: Path, picture: str) -> None:
    with Image.open(output / picture) as image:
        assert min(image.size) > 200
        assert np.asarray(image.convert("L")).std() > 10
