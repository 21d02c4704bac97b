"""The inference form as one graph: what torch.compile makes of a prepared detector."""

from torch import Tensor

from ..detector import DetrDetector
from ..modeling.backbones import shifts_windows
from ..structures import LayerPredictions
from ..torch_compile import CompiledMethod, with_open_sizes

_DETECT = "detect"
_CURE = "Leave compile out."


def compile_detection(detector: DetrDetector) -> None:
    """Let ``detector.detect`` be compiled, with its weights as constants: they change by ``load_state_dict`` alone.

    There is one graph for images of all sizes; another where their number is another, where some are padded, and for a
    single image of some 100 pixels a side or less, whose convolutions PyTorch computes in another way.
    A Swin Transformer takes a graph for each size, of which there may be 8.
    """
    detector.detect = _CompiledDetection(detector)  # type: ignore[method-assign]


class _CompiledDetection(CompiledMethod):
    """See :meth:`.DetrDetector.detect`."""

    def __init__(self, detector: DetrDetector) -> None:
        self._has_fixed_sizes = shifts_windows(detector.backbone)
        super().__init__(detector, _DETECT, cure=_CURE, has_fixed_sizes=self._has_fixed_sizes, has_fixed_weights=True)

    def __call__(self, images: Tensor, padding: Tensor, is_padded: bool = True) -> LayerPredictions:
        inputs = (images, padding) if self._has_fixed_sizes else with_open_sizes(images, padding)
        result: LayerPredictions = super().__call__(*inputs, is_padded)
        return result
