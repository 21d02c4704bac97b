// The dispatcher ops. Arguments are documented in lite_detr_d2/ops/deform_attn.py; `spatial_shapes` is flattened to
// (height, width, height, width, ...). `value`, `query`, `key` and the output are of one type: float64, float32,
// bfloat16 or float16. The other tensors are of the type that is computed in: float32, or float64 for a float64 value.
//
// `output_mask` says which gradients are wanted, in the order of the results; the others have shape (0).

#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(lite_detr, library) {
  library.def(
      "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor reference_points, Tensor sampling_offsets, "
      "Tensor attention_logits) -> Tensor");
  library.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
      "Tensor sampling_offsets, Tensor attention_logits, bool[4] output_mask) -> "
      "(Tensor grad_value, Tensor grad_reference_points, Tensor grad_sampling_offsets, Tensor grad_attention_logits)");
  library.def(
      "key_aware_deform_attn(Tensor query, Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
      "Tensor sampling_offsets, Tensor? key) -> Tensor");
  library.def(
      "key_aware_deform_attn_backward(Tensor grad_output, Tensor query, Tensor value, SymInt[] spatial_shapes, "
      "Tensor reference_points, Tensor sampling_offsets, Tensor? key, bool[5] output_mask) -> "
      "(Tensor grad_query, Tensor grad_value, Tensor grad_reference_points, Tensor grad_sampling_offsets, "
      "Tensor grad_key)");
  // What an exported model begins with: copies of its inputs, if they are uint8 images (N, 3, H, W) and int64 sizes
  // (N, 2), and N, H and W are within bounds. Sizes on the CPU must lie within the images, too.
  library.def("check_images(Tensor images, Tensor sizes, int[3] smallest, int[3] largest) -> (Tensor, Tensor)");
  // The instruction set that the CPU kernels use: DEFAULT, AVX2 or AVX512.
  library.def("cpu_capability() -> str");
}
