"""Statistics of batch norms that are measured before an evaluation, for ``TEST.PRECISE_BN``."""

from detectron2.engine.hooks import PreciseBN


class PreciseNorms(PreciseBN):
    """detectron2's hook, on the same batches each time: which ones come next would depend on stops in between."""

    def update_stats(self) -> None:
        self._data_iter = None
        super().update_stats()
