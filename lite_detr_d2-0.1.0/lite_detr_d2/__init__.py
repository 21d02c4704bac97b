"""Lite DETR for detectron2: importing this package registers its models, encoders and backbones with detectron2."""

import importlib.util
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .deploy.predictor import load

__version__ = "0.1.0"

if importlib.util.find_spec("detectron2") is not None:
    with warnings.catch_warnings():
        # By torch, of what detectron2's modules do when they are imported.
        warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
        from . import meta_arch, modeling  # noqa: F401  (imported for what they register)
    from .config import add_lite_detr_config
    from .ops.flops import register_flop_handlers

    register_flop_handlers()
    __all__ = ["__version__", "add_lite_detr_config", "load"]
elif os.environ.get("LITE_DETR_OPS_ONLY") == "1" or "lite_detr_d2.doctor" in sys.orig_argv:
    __all__ = ["__version__"]  # the ops and the doctor work without detectron2
else:
    raise ImportError(
        "lite_detr_d2 is a detectron2 plug-in, and detectron2 is not installed. It is not on the package index under "
        "its own name: run `make setup` in a checkout of lite_detr_d2, or install it from its repository with "
        "`pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2.git`. "
        "(LITE_DETR_OPS_ONLY=1 lets lite_detr_d2.ops be imported without it.)"
    )

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Import what predicts when it is asked for: it needs all of detectron2's engine, as training does not."""
        if name != "load":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .deploy.predictor import load  # noqa: PLC0415

        return load
