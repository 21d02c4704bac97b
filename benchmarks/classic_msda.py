"""The classic CUDA design of multi-scale deformable attention, as a baseline: see classic_msda.cu.

Its users compute the sampling locations and the softmax in PyTorch first. Run this file to compile it ahead of
its first use.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension


@functools.cache
def _build() -> None:
    """Compile for the GPU that is present, unless that has been done, and load."""
    cpp_extension.load(
        "classic_msda",
        [str(Path(__file__).with_suffix(".cu"))],
        extra_cuda_cflags=["-O3", f"-DTORCH_TARGET_VERSION={2 << 56 | 10 << 48:#x}ULL", "-DUSE_CUDA"],
        is_python_module=False,
    )


class _ClassicMSDA(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        contiguous = [tensor.contiguous() for tensor in inputs]
        ctx.save_for_backward(*contiguous)
        attended: Tensor = torch.ops.classic_msda.forward(*contiguous)
        return attended

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        grad_value, grad_locations, grad_weights = torch.ops.classic_msda.backward(
            grad_output.contiguous(), *ctx.saved_tensors
        )
        return grad_value, None, None, grad_locations, grad_weights


def classic_ms_deform_attn(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Attend to the values at finished locations, with finished weights. All on CUDA; float32 and int64.

    Args:
        value: (N, S, M, D), D of 16, 32 or 64.
        shapes: (L, 2), height and width of each level.
        starts: (L,), the first token of each level.
        locations: (N, Q, M, L, P, 2) as (x, y); 0 and 1 are the edges of the padded map.
        weights: (N, Q, M, L, P).

    Returns:
        (N, Q, M * D). Differentiable in the value, the locations and the weights.
    """
    _build()
    attended: Tensor = _ClassicMSDA.apply(value, shapes, starts, locations, weights)
    return attended


if __name__ == "__main__":
    _build()
