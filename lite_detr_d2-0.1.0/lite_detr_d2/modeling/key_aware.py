"""Key-aware deformable attention (KDA) as a module."""

from torch import Tensor

from ..ops import key_aware_deform_attn, sampling_locations_and_weights
from ..structures import FlattenedFeatures
from .attention import SamplingAttention, projection


class KeyAwareDeformableAttention(SamplingAttention):
    """Deformable attention whose weights compare the query with the keys found at its sampling locations.

    Source: Lite DETR, arXiv 2303.07335, Sec. 3.6.
    """

    def __init__(
        self, num_channels: int, num_heads: int, num_levels: int, num_points: int, key_proj: bool = False
    ) -> None:
        """Make the layer; keys are the projected values unless ``key_proj`` gives them a projection of their own."""
        super().__init__(num_channels, num_heads, num_levels, num_points)
        self.query_proj = projection(num_channels)
        self.key_proj = projection(num_channels) if key_proj else None

    def forward(self, query: Tensor, reference_points: Tensor, features: FlattenedFeatures) -> Tensor:
        """Attend to the tokens around the reference points; shapes as in ``DeformableAttention.forward``."""
        attended = key_aware_deform_attn(
            self._projected(query),
            self._sampled_map(self.value_proj, features),
            features.shapes,
            reference_points,
            self._offsets(query),
            key=None if self.key_proj is None else self._sampled_map(self.key_proj, features),
        )
        result: Tensor = self.output_proj(attended)
        return result

    def sampling(self, query: Tensor, reference_points: Tensor, features: FlattenedFeatures) -> tuple[Tensor, Tensor]:
        """See ``SamplingAttention.sampling``."""
        key = self._sampled_map(self.value_proj if self.key_proj is None else self.key_proj, features)
        return sampling_locations_and_weights(
            features.shapes, reference_points, self._offsets(query), query=self._projected(query), key=key
        )

    def _projected(self, query: Tensor) -> Tensor:
        return self.query_proj(query).unflatten(-1, (self.num_heads, -1))  # type: ignore[no-any-return]
