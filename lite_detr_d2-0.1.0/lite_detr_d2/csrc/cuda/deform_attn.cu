// The ops' kernels for CUDA, launched and registered.

#include <torch/csrc/stable/accelerator.h>

#include "deform_attn.h"

namespace {

using torch::stable::Tensor;

struct LaunchOnDevice {
  static constexpr int MAX_IMAGE_BLOCKS = 65535;

  template <typename... Parameters, typename... Arguments>
  void operator()(
      const Tensor& on,
      const char* name,
      void (*kernel)(Parameters...),
      lite_detr::cuda::Blocks blocks,
      int threads,
      int shared_memory,
      const Arguments&... arguments) const {
    const torch::stable::accelerator::DeviceGuard guard(on.get_device_index());
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(on.get_device_index(), &stream));
    kernel<<<dim3(blocks.rows, blocks.images), threads, shared_memory, static_cast<cudaStream_t>(stream)>>>(
        arguments...);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
      throw std::runtime_error(std::string("lite_detr: launch of ") + name + " failed: " + cudaGetErrorString(error));
    }
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(lite_detr, CUDA, library) {
  namespace cuda = lite_detr::cuda;
  library.impl("ms_deform_attn", TORCH_BOX(&cuda::ms_deform_attn<LaunchOnDevice>));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&cuda::ms_deform_attn_backward<LaunchOnDevice>));
  library.impl("key_aware_deform_attn", TORCH_BOX(&cuda::key_aware_deform_attn<LaunchOnDevice>));
  library.impl("key_aware_deform_attn_backward", TORCH_BOX(&cuda::key_aware_deform_attn_backward<LaunchOnDevice>));
}
