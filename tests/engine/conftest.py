"""What setting up detectron2's logging changes is changed back."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def loggers_propagate() -> Iterator[None]:
    """Other tests capture messages of these loggers, which a set-up keeps to itself."""
    yield
    for name in ("lite_detr_d2", "detectron2", "fvcore"):
        logging.getLogger(name).propagate = True
