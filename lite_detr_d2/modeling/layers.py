"""Small layers that the encoder, the decoder and the heads share."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FeedForward(nn.Module):
    """A two-layer perceptron with residual and LayerNorm (post-norm)."""

    def __init__(self, num_channels: int, hidden_channels: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(num_channels, hidden_channels)
        self.linear2 = nn.Linear(hidden_channels, num_channels)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(num_channels)
        draw_weights(self.linear1, self.linear2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Refine (..., C) tokens."""
        # In place saves memory where nothing is recorded; autograd takes more, for copies of the gradient.
        hidden = self.dropout(F.relu(self.linear1(tokens), inplace=not torch.is_grad_enabled()))
        refined: Tensor = self.norm(tokens + self.dropout(self.linear2(hidden)))
        return refined


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_channels] + [hidden_channels] * (num_layers - 1) + [out_channels]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, values: Tensor) -> Tensor:
        """Map (..., in_channels) to (..., out_channels)."""
        for layer in self.layers[:-1]:
            values = F.relu(layer(values))
        result: Tensor = self.layers[-1](values)
        return result


def draw_weights(*linears: nn.Module) -> None:
    """Draw weights as all of a published transformer are, by Xavier's uniform rule; biases stay PyTorch's."""
    for linear in linears:
        assert isinstance(linear, nn.Linear)
        nn.init.xavier_uniform_(linear.weight)
