"""What encoder, decoder and heads share."""

import pytest
import torch
from torch import Tensor

from lite_detr_d2.modeling.layers import FeedForward


@pytest.mark.parametrize("recorded", [False, True])
def test_activations_are_in_place_only_without_gradients(recorded: bool) -> None:
    """Else autograd, for which the layer's result is a view, would copy the whole gradient."""
    layer, tokens = FeedForward(32, 64, dropout=0.0), torch.randn(2, 5, 32)
    hidden: list[Tensor] = []
    layer.linear1.register_forward_hook(lambda module, args, output: hidden.append(output))
    with torch.set_grad_enabled(recorded):
        refined = layer(tokens)
    assert bool((hidden[0] < 0).any()) == recorded
    expected = layer.norm(tokens + layer.linear2(layer.linear1(tokens).relu()))
    torch.testing.assert_close(refined, expected)
