"""Entry points set up detectron2's logging, as those of the engine do."""

from tests.engine.conftest import loggers_propagate

__all__ = ["loggers_propagate"]
