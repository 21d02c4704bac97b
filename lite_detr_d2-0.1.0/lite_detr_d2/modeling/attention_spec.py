"""Which attention a layer samples the feature levels with."""

from dataclasses import dataclass

from torch import nn

from .attention import DeformableAttention
from .key_aware import KeyAwareDeformableAttention


@dataclass(frozen=True)
class AttentionSpec:
    """The attention of an encoder, or of a decoder's cross-attention; ``build`` makes one layer of it.

    Attributes:
        num_channels: C, a multiple of ``num_heads``.
        num_heads: M.
        num_levels: L.
        num_points: sampling points per head and level.
        key_aware: key-aware deformable attention instead of the plain one.
        key_proj: key-aware attention projects keys on their own, instead of using the projected values.
    """

    num_channels: int
    num_heads: int
    num_levels: int
    num_points: int
    key_aware: bool = False
    key_proj: bool = False

    def __post_init__(self) -> None:
        if self.key_proj and not self.key_aware:
            raise ValueError("key_proj needs key_aware: plain deformable attention has no keys.")

    def build(self) -> nn.Module:
        """Make a layer (a ``CrossAttention``) with weights of its own."""
        size = (self.num_channels, self.num_heads, self.num_levels, self.num_points)
        if self.key_aware:
            return KeyAwareDeformableAttention(*size, key_proj=self.key_proj)
        return DeformableAttention(*size)
