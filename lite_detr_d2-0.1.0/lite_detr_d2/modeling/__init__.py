"""The parts that detectors are assembled from; importing it registers the encoders and the backbones."""

from . import backbones, interleaved, sparse, timm_backbone  # noqa: F401  (imported for what they register)
