// The CUDA ops with their kernels run on the CPU, registered for CPU tensors as lite_detr_emulated::*.

#include "../../../lite_detr_d2/csrc/cuda/deform_attn.h"

namespace lite_detr::cuda {

alignas(16) double shared_memory[SHARED_MEMORY / sizeof(double) + 1];  // and one to see who writes beyond the end

}  // namespace lite_detr::cuda

namespace {

using torch::stable::Tensor;

struct LaunchEmulated {
  static constexpr int MAX_IMAGE_BLOCKS = 2;

  template <typename... Parameters, typename... Arguments>
  void operator()(
      const Tensor&,
      const char* name,
      void (*kernel)(Parameters...),
      lite_detr::cuda::Blocks blocks,
      int threads,
      int shared_memory,
      const Arguments&... arguments) const {
    using lite_detr::cuda::SHARED_MEMORY;
    constexpr double UNTOUCHED = 12345.678;
    double* const memory = lite_detr::cuda::shared_memory;
    if (shared_memory > SHARED_MEMORY || shared_memory % sizeof(double) || !blocks.rows || !blocks.images) {
      throw std::runtime_error(std::string(name) + ": invalid launch");
    }
    blockDim = {static_cast<unsigned>(threads), 1};
    gridDim = {blocks.rows, blocks.images};
    for (blockIdx.y = 0; blockIdx.y < gridDim.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x) {
        memset(memory, 0xff, SHARED_MEMORY);  // NaN
        memory[shared_memory / sizeof(double)] = UNTOUCHED;
        cuda_emulation::run_block(threads, [&] { kernel(arguments...); });
        if (memory[shared_memory / sizeof(double)] != UNTOUCHED) {
          throw std::runtime_error(std::string(name) + ": wrote beyond its shared memory");
        }
      }
    }
  }
};

// To test the emulation itself: half of the lanes of a warp leave before a shuffle, or take part in another.
__global__ void diverging(bool leave) {
  if (threadIdx.x % 2) {
    __shfl_xor_sync(0xffffffff, 1, 1, 32);
  } else if (!leave) {
    __shfl_xor_sync(0xffffffff, 1, 2, 32);
  }
}

Tensor diverge(const Tensor& like, bool leave) {
  LaunchEmulated()(like, "diverging", diverging, {1, 1}, 32, 0, leave);
  return like;
}

}  // namespace

STABLE_TORCH_LIBRARY(lite_detr_emulated, library) {
  library.def(
      "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor reference_points, Tensor sampling_offsets, "
      "Tensor attention_logits) -> Tensor");
  library.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
      "Tensor sampling_offsets, Tensor attention_logits, bool[4] output_mask) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "key_aware_deform_attn(Tensor query, Tensor value, SymInt[] spatial_shapes, Tensor reference_points, "
      "Tensor sampling_offsets, Tensor? key) -> Tensor");
  library.def(
      "key_aware_deform_attn_backward(Tensor grad_output, Tensor query, Tensor value, SymInt[] spatial_shapes, "
      "Tensor reference_points, Tensor sampling_offsets, Tensor? key, bool[5] output_mask) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("diverge(Tensor like, bool leave) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(lite_detr_emulated, CPU, library) {
  namespace cuda = lite_detr::cuda;
  library.impl("ms_deform_attn", TORCH_BOX(&cuda::ms_deform_attn<LaunchEmulated>));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&cuda::ms_deform_attn_backward<LaunchEmulated>));
  library.impl("key_aware_deform_attn", TORCH_BOX(&cuda::key_aware_deform_attn<LaunchEmulated>));
  library.impl("key_aware_deform_attn_backward", TORCH_BOX(&cuda::key_aware_deform_attn_backward<LaunchEmulated>));
  library.impl("diverge", TORCH_BOX(&diverge));
}
