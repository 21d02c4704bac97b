"""The attention ops of Lite DETR."""

from lite_detr_d2.ops.deform_attn import key_aware_deform_attn, ms_deform_attn
from lite_detr_d2.ops.located import ms_deform_attn_at
from lite_detr_d2.ops.reference import sampling_locations_and_weights

__all__ = ["key_aware_deform_attn", "ms_deform_attn", "ms_deform_attn_at", "sampling_locations_and_weights"]
