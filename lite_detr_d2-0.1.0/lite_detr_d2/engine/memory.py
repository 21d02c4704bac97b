"""When memory runs out: what it was wanted for, and the keys that help."""

from collections.abc import Sequence
from typing import Any

import torch

# On the CPU, and in CUDA's libraries, it is a RuntimeError like any other, known by its words alone.
_WORDS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")

OUT_OF_MEMORY = (
    "Out of memory. In training, lower SOLVER.IMS_PER_BATCH, INPUT.MAX_SIZE_TRAIN or DATALOADER.NUM_WORKERS; in "
    "evaluation and prediction, INPUT.MIN_SIZE_TEST and INPUT.MAX_SIZE_TEST, or the batch."
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that a device, or the machine, has no more memory."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS))


def out_of_memory_in_training(batch: Sequence[dict[str, Any]], parts: int, device: torch.device) -> str:
    """Say what a batch was when memory ran out.

    Args:
        batch: inputs of a detector, in training.
        parts: in how many it was seen, one after the other.
        device: that they were computed on.
    """
    height, width = (max(image["image"].shape[side] for image in batch) for side in (1, 2))
    boxes = [len(image["instances"]) for image in batch if "instances" in image]
    seen = f", seen in {parts} parts" if parts > 1 else ""
    more = "see the batch in more parts (SOLVER.ACCUMULATE), " if parts < len(batch) else ""
    return (
        f"Out of memory on {device}, with a batch of {len(batch)} images, padded to {height} x {width} (height x width)"
        f"{seen}, and {sum(boxes)} boxes: lower INPUT.MAX_SIZE_TRAIN or SOLVER.IMS_PER_BATCH, {more}or have "
        "activations computed again (SOLVER.RECOMPUTE ['backbone', 'encoder']). --resume goes on from the last "
        "checkpoint."
    )
