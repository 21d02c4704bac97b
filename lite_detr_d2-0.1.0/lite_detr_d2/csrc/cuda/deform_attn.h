// The ops on a CUDA device: checks, memory, and the choice of the kernel.
//
// `Launch` is called as Launch()(tensor on the device, name, kernel, blocks, threads, bytes of shared memory,
// arguments...), and knows the device's limit MAX_IMAGE_BLOCKS. It is a parameter for the sake of tests that run the
// kernels without a device.

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <type_traits>

#include "../checks.h"
#include "attention.cuh"

namespace lite_detr::cuda {

using torch::stable::contiguous;
using torch::stable::new_empty;
using torch::stable::new_zeros;

constexpr int SHARED_MEMORY = 48 << 10;  // bytes that every device gives to a block

struct Blocks {
  unsigned rows, images;
};

inline Problem problem_of(const Sizes& sizes) {
  const int64_t limit = std::numeric_limits<int32_t>::max();
  check_argument(
      sizes.levels.size() <= MAX_LEVELS, "spatial_shapes", "expected at most ", MAX_LEVELS, " levels on CUDA, got ",
      sizes.levels.size(), "; LITE_DETR_PURE_TORCH=1 allows more");
  check_argument(
      sizes.tokens <= limit && sizes.heads <= limit && sizes.channels <= limit && sizes.images <= limit, "value",
      "expected sizes below 2^31 on CUDA");
  check_argument(
      sizes.points <= limit / 4 / MAX_LEVELS && sizes.queries <= limit / std::max<int64_t>(1, sizes.heads),
      "sampling_offsets",
      "expected fewer than 2^31 heads of the queries of an image, and fewer than 2^25 points, on CUDA");
  Problem problem{};
  problem.images = static_cast<int>(sizes.images);
  problem.tokens = static_cast<int>(sizes.tokens);
  problem.heads = static_cast<int>(sizes.heads);
  problem.channels = static_cast<int>(sizes.channels);
  problem.queries = static_cast<int>(sizes.queries);
  problem.points = static_cast<int>(sizes.points);
  problem.samples = static_cast<int>(sizes.samples());
  problem.level_count = static_cast<int>(sizes.levels.size());
  problem.reference_size = static_cast<int>(sizes.reference_size);
  problem.scale = 1 / std::sqrt(std::max(1.0, static_cast<double>(sizes.channels)));
  for (int i = 0; i < problem.level_count; ++i) {
    const auto& level = sizes.levels[i];
    problem.levels[i] = {static_cast<int>(level.height), static_cast<int>(level.width), static_cast<int>(level.start)};
  }
  return problem;
}

inline bool has_rows(const Problem& problem) {
  return problem.images > 0 && problem.queries > 0 && problem.heads > 0;
}

template <typename Launch, int LANES>
Blocks blocks_of(const Problem& problem) {
  const int64_t queries_of_block = THREADS / LANES;
  return {
      static_cast<unsigned>((problem.queries + queries_of_block - 1) / queries_of_block * problem.heads),
      static_cast<unsigned>(std::min(problem.images, Launch::MAX_IMAGE_BLOCKS))};
}

inline bool is_aligned(const Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
}

template <typename T, int CHANNELS>
struct Specialisation {
  using Type = T;
  static constexpr int channels = CHANNELS;
};

// Calls body(Specialisation()): for the usual head dimensions, of tensors that vectors can be loaded from, or for any.
template <typename T, typename Body>
void dispatch_channels(int64_t channels, bool aligned, const Body& body) {
  switch (aligned ? channels : 0) {
    case 16:
      return body(Specialisation<T, 16>());
    case 32:
      return body(Specialisation<T, 32>());
    case 64:
      return body(Specialisation<T, 64>());
    default:
      return body(Specialisation<T, 0>());
  }
}

template <typename Body>
void dispatch(const Tensor& value, bool aligned, const Body& body) {
  switch (value.scalar_type()) {
    case ScalarType::Double:
      return body(Specialisation<double, 0>());
    case ScalarType::Half:
      return dispatch_channels<__half>(value.size(3), aligned, body);
    case ScalarType::BFloat16:
      return dispatch_channels<__nv_bfloat16>(value.size(3), aligned, body);
    default:
      return dispatch_channels<float>(value.size(3), aligned, body);
  }
}

// The tensors of a call, contiguous; undefined where there is none.
struct Tensors {
  std::optional<Tensor> query, key;
  Tensor value, reference, offsets;
  std::optional<Tensor> logits;

  bool are_aligned() const {
    return is_aligned(value) && (!query || is_aligned(*query)) && (!key || is_aligned(*key));
  }

  template <typename T>
  Inputs<T> inputs() const {
    return {
        query ? static_cast<const T*>(query->const_data_ptr()) : nullptr,
        static_cast<const T*>(value.const_data_ptr()),
        key ? static_cast<const T*>(key->const_data_ptr()) : nullptr,
        static_cast<const Compute<T>*>(reference.const_data_ptr()),
        static_cast<const Compute<T>*>(offsets.const_data_ptr()),
        logits ? static_cast<const Compute<T>*>(logits->const_data_ptr()) : nullptr};
  }
};

inline std::optional<Tensor> contiguous_if(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(contiguous(*tensor)) : std::nullopt;
}

// A gradient: memory of the type that is computed in, which is that of the result unless the result is half.
class Gradient {
 public:
  enum class Start { EMPTY, ZEROS };

  Gradient(const Tensor& like, ScalarType type, bool wanted, Start start)
      : wanted_(wanted), result_type_(like.scalar_type()), memory_(new_empty(like, {0})) {
    if (wanted) {
      const std::vector<int64_t> shape = shape_of(like);
      memory_ = start == Start::ZEROS ? new_zeros(like, shape, type) : new_empty(like, shape, type);
    }
  }

  template <typename C>
  C* address() const {
    return wanted_ ? static_cast<C*>(memory_.mutable_data_ptr()) : nullptr;
  }

  bool wanted() const {
    return wanted_;
  }

  Tensor result() const {
    return torch::stable::to(memory_, result_type_);
  }

 private:
  bool wanted_;
  ScalarType result_type_;
  Tensor memory_;
};

template <Mode MODE, typename Launch>
Tensor run(const Sizes& sizes, const Tensors& tensors) {
  const Problem problem = problem_of(sizes);
  const Tensor output = new_empty(tensors.value, {sizes.images, sizes.queries, sizes.heads * sizes.channels});
  if (has_rows(problem)) {
    dispatch(tensors.value, tensors.are_aligned(), [&](auto specialisation) {
      using S = decltype(specialisation);
      using T = typename S::Type;
      constexpr int LANES = Channels<T, S::channels>::LANES;
      Launch()(
          tensors.value, "attend", attend<MODE, T, S::channels>, blocks_of<Launch, LANES>(problem), THREADS, 0, problem,
          tensors.inputs<T>(), static_cast<T*>(output.mutable_data_ptr()));
    });
  }
  return output;
}

struct WantedGradients {
  bool query, value, key, reference, offsets, logits;
};

struct GradientTensors {
  Gradient query, value, key, reference, offsets, logits;

  GradientTensors(const Tensors& tensors, const WantedGradients& wanted)
      : GradientTensors(tensors, wanted, compute_type(tensors.value)) {
  }

  bool any_wanted() const {
    return query.wanted() || value.wanted() || key.wanted() || reference.wanted() || offsets.wanted() ||
           logits.wanted();
  }

 private:
  GradientTensors(const Tensors& tensors, const WantedGradients& wanted, ScalarType type)
      : query(tensors.query.value_or(tensors.value), type, wanted.query, Gradient::Start::ZEROS),
        value(tensors.value, type, wanted.value, Gradient::Start::ZEROS),
        key(tensors.key.value_or(tensors.value), type, wanted.key && tensors.key, Gradient::Start::ZEROS),
        reference(tensors.reference, type, wanted.reference, Gradient::Start::ZEROS),
        offsets(tensors.offsets, type, wanted.offsets, Gradient::Start::EMPTY),
        logits(tensors.logits.value_or(tensors.offsets), type, wanted.logits, Gradient::Start::EMPTY) {
  }
};

template <Mode MODE, typename Launch>
GradientTensors run_backward(
    const Sizes& sizes, const Tensors& tensors, const Tensor& grad_output, const WantedGradients& wanted) {
  const Problem problem = problem_of(sizes);
  const GradientTensors gradients(tensors, wanted);
  if (!has_rows(problem) || !gradients.any_wanted()) {
    return gradients;
  }
  dispatch(tensors.value, tensors.are_aligned() && is_aligned(grad_output), [&](auto specialisation) {
    using S = decltype(specialisation);
    using T = typename S::Type;
    using C = Compute<T>;
    constexpr int LANES = AddingChannels<T, S::channels>::LANES;
    constexpr int BYTES_OF_ROUND = Kept<C>::count(MODE) * THREADS * sizeof(C);
    const int rounds = std::min((problem.samples + LANES - 1) / LANES, SHARED_MEMORY / BYTES_OF_ROUND);
    const Gradients<T> grad{
        static_cast<const T*>(grad_output.const_data_ptr()),
        gradients.query.address<C>(),
        gradients.value.address<C>(),
        gradients.key.address<C>(),
        gradients.reference.address<C>(),
        gradients.offsets.address<C>(),
        gradients.logits.address<C>()};
    Launch()(
        tensors.value, "attend_backward", attend_backward<MODE, T, S::channels>, blocks_of<Launch, LANES>(problem),
        THREADS, rounds * BYTES_OF_ROUND, problem, tensors.inputs<T>(), grad, rounds);
  });
  return gradients;
}

template <typename Launch>
Tensor ms_deform_attn(
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const Tensor& attention_logits) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_ms_deform_attn(sizes, value, attention_logits);
  const Tensors tensors{
      std::nullopt,
      std::nullopt,
      contiguous(value),
      contiguous(reference_points),
      contiguous(sampling_offsets),
      contiguous(attention_logits)};
  return run<Mode::LOGITS, Launch>(sizes, tensors);
}

template <typename Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad_output,
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const Tensor& attention_logits,
    const std::vector<bool>& output_mask) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_ms_deform_attn(sizes, value, attention_logits);
  check_backward(sizes, grad_output, value, output_mask, 4);
  const Tensors tensors{
      std::nullopt,
      std::nullopt,
      contiguous(value),
      contiguous(reference_points),
      contiguous(sampling_offsets),
      contiguous(attention_logits)};
  const WantedGradients wanted{false, output_mask[0], false, output_mask[1], output_mask[2], output_mask[3]};
  const GradientTensors grad = run_backward<Mode::LOGITS, Launch>(sizes, tensors, contiguous(grad_output), wanted);
  return {grad.value.result(), grad.reference.result(), grad.offsets.result(), grad.logits.result()};
}

template <typename Launch>
Tensor key_aware_deform_attn(
    const Tensor& query,
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const std::optional<Tensor>& key) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_key_aware(sizes, query, value, key);
  const Tensors tensors{contiguous(query),
                        contiguous_if(key),
                        contiguous(value),
                        contiguous(reference_points),
                        contiguous(sampling_offsets),
                        std::nullopt};
  return key ? run<Mode::SEPARATE_KEYS, Launch>(sizes, tensors) : run<Mode::SHARED_KEYS, Launch>(sizes, tensors);
}

template <typename Launch>
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> key_aware_deform_attn_backward(
    const Tensor& grad_output,
    const Tensor& query,
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const std::optional<Tensor>& key,
    const std::vector<bool>& output_mask) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_key_aware(sizes, query, value, key);
  check_backward(sizes, grad_output, value, output_mask, 5);
  const Tensors tensors{contiguous(query),
                        contiguous_if(key),
                        contiguous(value),
                        contiguous(reference_points),
                        contiguous(sampling_offsets),
                        std::nullopt};
  const WantedGradients wanted{output_mask[0], output_mask[1], output_mask[4], output_mask[2], output_mask[3], false};
  const Tensor grad_attended = contiguous(grad_output);
  const GradientTensors grad = key ? run_backward<Mode::SEPARATE_KEYS, Launch>(sizes, tensors, grad_attended, wanted)
                                   : run_backward<Mode::SHARED_KEYS, Launch>(sizes, tensors, grad_attended, wanted);
  return {grad.query.result(), grad.value.result(), grad.reference.result(), grad.offsets.result(), grad.key.result()};
}

}  // namespace lite_detr::cuda
