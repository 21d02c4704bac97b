// The classic design of multi-scale deformable attention for CUDA, as a baseline of the benchmark: sampling locations
// and attention weights come from memory; forward has a thread per output channel, backward a block per head of a
// query, which sums over channels in shared memory.

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <tuple>
#include <vector>

namespace {

using torch::stable::Tensor;

// As in its time, sizes and indices are ints: a tensor has fewer than 2^31 elements.
struct Sizes {
  int images, tokens, heads, channels, queries, levels, points;
};

// Reads four tokens around (x, y) of the map of a level; `map` is at this thread's channel.
__device__ float sample(const float* map, int stride, int height, int width, float x, float y, float (&corner)[4]) {
  const int left = static_cast<int>(floorf(x)), top = static_cast<int>(floorf(y));
  const float right_share = x - left, bottom_share = y - top;
  float sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int column = left + (i & 1), line = top + (i >> 1);
    const bool inside = column >= 0 && column < width && line >= 0 && line < height;
    corner[i] = inside ? map[(line * width + column) * stride] : 0.f;
    sum += (i & 1 ? right_share : 1 - right_share) * (i >> 1 ? bottom_share : 1 - bottom_share) * corner[i];
  }
  return sum;
}

__global__ void forward(
    int count,
    Sizes sizes,
    const float* value,
    const int64_t* shapes,
    const int64_t* starts,
    const float* locations,
    const float* weights,
    float* output) {
  const int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index >= count) {
    return;
  }
  const int channel = index % sizes.channels, row = index / sizes.channels, head = row % sizes.heads;
  const int image = row / sizes.heads / sizes.queries, stride = sizes.heads * sizes.channels;
  const float* map_of_image = value + image * sizes.tokens * stride + head * sizes.channels + channel;
  int sample_index = row * sizes.levels * sizes.points;
  float sum = 0;
  for (int level = 0; level < sizes.levels; ++level) {
    const int height = static_cast<int>(shapes[2 * level]), width = static_cast<int>(shapes[2 * level + 1]);
    const float* map = map_of_image + static_cast<int>(starts[level]) * stride;
    for (int point = 0; point < sizes.points; ++point, ++sample_index) {
      const float x = locations[2 * sample_index] * width - 0.5f;
      const float y = locations[2 * sample_index + 1] * height - 0.5f;
      if (x > -1 && y > -1 && x < width && y < height) {
        float corner[4];
        sum += weights[sample_index] * sample(map, stride, height, width, x, y, corner);
      }
    }
  }
  output[index] = sum;
}

// A thread per channel, a block per row. The sums over channels are made by thread 0, one after the other.
template <int CHANNELS>
__global__ void backward(
    Sizes sizes,
    const float* grad_output,
    const float* value,
    const int64_t* shapes,
    const int64_t* starts,
    const float* locations,
    const float* weights,
    float* grad_value,
    float* grad_locations,
    float* grad_weights) {
  __shared__ float share_x[CHANNELS], share_y[CHANNELS], share_weight[CHANNELS];
  const int channel = threadIdx.x, row = blockIdx.x, head = row % sizes.heads;
  const int image = row / sizes.heads / sizes.queries, stride = sizes.heads * CHANNELS;
  const int start = image * sizes.tokens * stride + head * CHANNELS + channel;
  const float grad = grad_output[row * CHANNELS + channel];
  int sample_index = row * sizes.levels * sizes.points;
  for (int level = 0; level < sizes.levels; ++level) {
    const int height = static_cast<int>(shapes[2 * level]), width = static_cast<int>(shapes[2 * level + 1]);
    const int offset = start + static_cast<int>(starts[level]) * stride;
    for (int point = 0; point < sizes.points; ++point, ++sample_index) {
      const float x = locations[2 * sample_index] * width - 0.5f;
      const float y = locations[2 * sample_index + 1] * height - 0.5f;
      const float weight = weights[sample_index];
      share_x[channel] = share_y[channel] = share_weight[channel] = 0;
      if (x > -1 && y > -1 && x < width && y < height) {
        float corner[4];
        share_weight[channel] = grad * sample(value + offset, stride, height, width, x, y, corner);
        const int left = static_cast<int>(floorf(x)), top = static_cast<int>(floorf(y));
        const float right_share = x - left, bottom_share = y - top, scaled = weight * grad;
        share_x[channel] =
            scaled * width * ((1 - bottom_share) * (corner[1] - corner[0]) + bottom_share * (corner[3] - corner[2]));
        share_y[channel] =
            scaled * height * ((1 - right_share) * (corner[2] - corner[0]) + right_share * (corner[3] - corner[1]));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = left + (i & 1), line = top + (i >> 1);
          if (column >= 0 && column < width && line >= 0 && line < height) {
            const float share = (i & 1 ? right_share : 1 - right_share) * (i >> 1 ? bottom_share : 1 - bottom_share);
            atomicAdd(grad_value + offset + (line * width + column) * stride, share * scaled);
          }
        }
      }
      __syncthreads();
      if (channel == 0) {
        float sum_x = 0, sum_y = 0, sum_weight = 0;
#pragma unroll
        for (int i = 0; i < CHANNELS; ++i) {
          sum_x += share_x[i];
          sum_y += share_y[i];
          sum_weight += share_weight[i];
        }
        grad_locations[2 * sample_index] = sum_x;
        grad_locations[2 * sample_index + 1] = sum_y;
        grad_weights[sample_index] = sum_weight;
      }
      __syncthreads();
    }
  }
}

auto backward_of(int channels) {
  switch (channels) {
    case 16:
      return backward<16>;
    case 32:
      return backward<32>;
    case 64:
      return backward<64>;
    default:
      throw std::runtime_error("value: expected 16, 32 or 64 channels per head");
  }
}

Sizes sizes_of(const Tensor& value, const Tensor& locations) {
  const auto size = [](const Tensor& tensor, int dimension) { return static_cast<int>(tensor.size(dimension)); };
  if (std::max(value.numel(), locations.numel()) > std::numeric_limits<int>::max()) {
    throw std::runtime_error("expected fewer than 2^31 elements");
  }
  return {size(value, 0),     size(value, 1),     size(value, 2),    size(value, 3),
          size(locations, 1), size(locations, 3), size(locations, 4)};
}

cudaStream_t stream_of(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

void check_launch() {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(cudaGetErrorString(error));
  }
}

Tensor classic_forward(
    const Tensor& value, const Tensor& shapes, const Tensor& starts, const Tensor& locations, const Tensor& weights) {
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  const Sizes sizes = sizes_of(value, locations);
  const Tensor output = torch::stable::new_empty(value, {sizes.images, sizes.queries, sizes.heads * sizes.channels});
  const int count = static_cast<int>(output.numel()), threads = 1024;
  forward<<<(count + threads - 1) / threads, threads, 0, stream_of(value)>>>(
      count, sizes, value.const_data_ptr<float>(), shapes.const_data_ptr<int64_t>(), starts.const_data_ptr<int64_t>(),
      locations.const_data_ptr<float>(), weights.const_data_ptr<float>(), output.mutable_data_ptr<float>());
  check_launch();
  return output;
}

std::tuple<Tensor, Tensor, Tensor> classic_backward(
    const Tensor& grad_output,
    const Tensor& value,
    const Tensor& shapes,
    const Tensor& starts,
    const Tensor& locations,
    const Tensor& weights) {
  const torch::stable::accelerator::DeviceGuard guard(value.get_device_index());
  const Sizes sizes = sizes_of(value, locations);
  const auto zeros_like = [](const Tensor& tensor) {
    const auto shape = tensor.sizes();
    return torch::stable::new_zeros(tensor, std::vector<int64_t>(shape.begin(), shape.end()));
  };
  const Tensor grad_value = zeros_like(value);
  const Tensor grad_locations = zeros_like(locations), grad_weights = zeros_like(weights);
  const auto kernel = backward_of(sizes.channels);
  kernel<<<sizes.images * sizes.queries * sizes.heads, sizes.channels, 0, stream_of(value)>>>(
      sizes, grad_output.const_data_ptr<float>(), value.const_data_ptr<float>(), shapes.const_data_ptr<int64_t>(),
      starts.const_data_ptr<int64_t>(), locations.const_data_ptr<float>(), weights.const_data_ptr<float>(),
      grad_value.mutable_data_ptr<float>(), grad_locations.mutable_data_ptr<float>(),
      grad_weights.mutable_data_ptr<float>());
  check_launch();
  return {grad_value, grad_locations, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY(classic_msda, library) {
  library.def("forward(Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights) -> Tensor");
  library.def(
      "backward(Tensor grad_output, Tensor value, Tensor shapes, Tensor starts, Tensor locations, Tensor weights) -> "
      "(Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(classic_msda, CUDA, library) {
  library.impl("forward", TORCH_BOX(&classic_forward));
  library.impl("backward", TORCH_BOX(&classic_backward));
}
