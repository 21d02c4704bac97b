"""The fuzzer of configs: a sample of what it tries, and it would notice a fault."""

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lite_detr_d2.config import kinds, schema
from lite_detr_d2.config.kinds import Integer, Number
from tests.projects.scripts import TOOLS, load_script

SAMPLE = ["SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "INPUT.CROP.SIZE", "MODEL.SWIN.DEPTHS", "MODEL.LITE_DETR.ENCODER.FUSION"]


@pytest.fixture
def script() -> ModuleType:
    return load_script("fuzz_config", TOOLS)


@pytest.fixture
def fuzzer(script: ModuleType, tmp_path: Path) -> Iterator[Any]:
    logging.disable(logging.WARNING)
    script.register_images(tmp_path)
    yield script.Fuzzer(tmp_path)
    script.unregister_images()
    logging.disable(logging.NOTSET)


def test_values(fuzzer: Any) -> None:
    fuzzer.use = 0.3
    fuzzer.values(random.Random(0), 1, SAMPLE)
    assert fuzzer.failures == []
    assert fuzzer.counts["values refused"] > 100
    assert fuzzer.counts["values used"] > 5


def test_files(fuzzer: Any) -> None:
    fuzzer.files(random.Random(0), 100)
    assert fuzzer.failures == []
    assert fuzzer.counts["files refused"] > 20
    assert fuzzer.counts["files read"] > 0


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", Number()),
        ("SOLVER.CHECKPOINT_PERIOD", Integer()),
        ("INPUT.RANDOM_FLIP", kinds.Text()),
        ("SOLVER.BASE_LR", kinds.OrNull(Number(least=0))),
        ("MODEL.SWIN.DROP_PATH_RATE", Number()),
    ],
)
def test_a_fault_of_the_schema_is_noticed(
    fuzzer: Any, monkeypatch: pytest.MonkeyPatch, key: str, kind: kinds.Kind
) -> None:
    monkeypatch.setitem(schema.SCHEMA, key, kind)
    fuzzer.use = 0.0 if key.startswith("MODEL.") else 1.0  # models take their time
    fuzzer.values(random.Random(0), 1, [key])
    assert fuzzer.failures


def test_code_that_runs_is_noticed(fuzzer: Any, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "merge_file", lambda cfg, file: cfg.merge_from_file(file))  # detectron2's own
    fuzzer.files(random.Random(0), 100)
    assert fuzzer.counts["code run"] > 0
