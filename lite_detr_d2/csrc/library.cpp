// The dispatcher ops. Arguments are documented in lite_detr_d2/ops/deform_attn.py; `spatial_shapes` is flattened to
// (height, width, height, width, ...). A gradient that is not asked for, or whose input is absent, has shape (0).

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lite_detr, library) {
  library.def(
      "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor reference_points, Tensor sampling_offsets, "
      "Tensor attention_logits) -> Tensor");
  library.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
      "Tensor sampling_offsets, Tensor attention_logits, bool reference_points_grad) -> "
      "(Tensor grad_value, Tensor grad_reference_points, Tensor grad_sampling_offsets, Tensor grad_attention_logits)");
  library.def(
      "key_aware_deform_attn(Tensor query, Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
      "Tensor sampling_offsets, Tensor? key) -> Tensor");
  library.def(
      "key_aware_deform_attn_backward(Tensor grad_output, Tensor query, Tensor value, SymInt[] spatial_shapes, "
      "Tensor reference_points, Tensor sampling_offsets, Tensor? key, bool reference_points_grad) -> "
      "(Tensor grad_query, Tensor grad_value, Tensor grad_reference_points, Tensor grad_sampling_offsets, "
      "Tensor grad_key)");
}
