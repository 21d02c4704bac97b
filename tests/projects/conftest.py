"""Entry points set up detectron2's logging, as those of the engine do; one of them exports."""

from tests.deploy.conftest import images, pickled, run
from tests.engine.conftest import loggers_propagate

__all__ = ["images", "loggers_propagate", "pickled", "run"]
