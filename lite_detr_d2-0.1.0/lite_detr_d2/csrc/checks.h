// The sizes of a call, read from its tensors and checked. Errors name the argument.

#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "level.h"

namespace lite_detr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// N, S, M, D, Q, L, P of the documentation; `reference_size` is 2 or 4.
struct Sizes {
  int64_t images, tokens, heads, channels, queries, points, reference_size;
  std::vector<Level> levels;

  int64_t samples() const {  // per query and head
    return static_cast<int64_t>(levels.size()) * points;
  }

  int64_t coordinates() const {  // of the reference points of a query
    return static_cast<int64_t>(levels.size()) * reference_size;
  }
};

// Texts are put together without streams: in a library with a C++ library of its own inside, as some compilers link it,
// a stream crashes at the first number.
template <typename Part>
std::string text_of(const Part& part) {
  if constexpr (std::is_arithmetic_v<Part>) {
    return std::to_string(part);
  } else {
    return part;
  }
}

template <typename... Parts>
void check_argument(bool condition, const char* argument, const Parts&... parts) {
  if (!condition) {
    throw std::invalid_argument((std::string(argument) + ": " + ... + text_of(parts)));
  }
}

inline std::string describe(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t side : shape) {
    text += (text.empty() ? "(" : ", ") + std::to_string(side);
  }
  return text.empty() ? "()" : text + ")";
}

inline std::vector<int64_t> shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

inline void check_shape(const Tensor& tensor, const char* argument, const std::vector<int64_t>& expected) {
  const std::vector<int64_t> shape = shape_of(tensor);
  if (shape != expected) {  // or the texts would be made for every call
    check_argument(false, argument, "expected shape ", describe(expected), ", got ", describe(shape));
  }
}

// The type that locations and sums are computed in: a half type could not tell the pixels of a large map apart.
inline ScalarType compute_type(const Tensor& value) {
  return value.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline void check_type(const Tensor& tensor, const char* argument, ScalarType expected, const Tensor& value) {
  using torch::headeronly::toString;
  check_argument(
      tensor.scalar_type() == expected, argument, "expected dtype ", toString(expected), " for a value of ",
      toString(value.scalar_type()), ", got ", toString(tensor.scalar_type()));
  check_argument(tensor.device() == value.device(), argument, "expected the device of value");
}

inline Sizes check_sampling(
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets) {
  Sizes sizes{};
  const ScalarType type = value.scalar_type();
  check_argument(
      type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::BFloat16 ||
          type == ScalarType::Half,
      "value", "expected float64, float32, bfloat16 or float16, got ", torch::headeronly::toString(type));
  check_argument(value.dim() == 4, "value", "expected 4 dimensions (N, S, M, D), got ", value.dim());
  sizes.images = value.size(0);
  sizes.tokens = value.size(1);
  sizes.heads = value.size(2);
  sizes.channels = value.size(3);
  check_argument(sizes.channels > 0, "value", "expected at least one channel");
  check_argument(
      value.numel() / std::max<int64_t>(1, sizes.images) <= std::numeric_limits<int32_t>::max(), "value",
      "expected fewer than 2^31 elements in an image, got ", sizes.tokens, " * ", sizes.heads, " * ", sizes.channels);

  check_argument(
      !spatial_shapes.empty() && spatial_shapes.size() % 2 == 0, "spatial_shapes",
      "expected (height, width) pairs, got ", spatial_shapes.size(), " numbers");
  int64_t tokens = 0;
  for (size_t i = 0; i < spatial_shapes.size(); i += 2) {
    const int64_t height = spatial_shapes[i], width = spatial_shapes[i + 1];
    check_argument(
        height > 0 && width > 0, "spatial_shapes", "expected positive sizes, got (", height, ", ", width, ")");
    // Bounding each side by S first keeps the sum of areas far from overflow.
    check_argument(
        height <= sizes.tokens && width <= sizes.tokens, "spatial_shapes", "(", height, ", ", width,
        ") does not fit into the ", sizes.tokens, " tokens of value");
    sizes.levels.push_back({height, width, tokens});
    tokens += height * width;
    check_argument(tokens <= sizes.tokens, "spatial_shapes", "the areas exceed the ", sizes.tokens, " tokens of value");
  }
  check_argument(
      tokens == sizes.tokens, "spatial_shapes", "the areas sum to ", tokens, ", but value has ", sizes.tokens,
      " tokens");

  const auto levels = static_cast<int64_t>(sizes.levels.size());
  check_argument(
      sampling_offsets.dim() == 6, "sampling_offsets", "expected 6 dimensions (N, Q, M, L, P, 2), got ",
      sampling_offsets.dim());
  sizes.queries = sampling_offsets.size(1);
  sizes.points = sampling_offsets.size(4);
  check_argument(sizes.points > 0, "sampling_offsets", "expected at least one point");
  check_shape(
      sampling_offsets, "sampling_offsets", {sizes.images, sizes.queries, sizes.heads, levels, sizes.points, 2});

  check_argument(
      reference_points.dim() == 4, "reference_points", "expected 4 dimensions (N, Q, L, 2 or 4), got ",
      reference_points.dim());
  sizes.reference_size = reference_points.size(3);
  check_argument(
      sizes.reference_size == 2 || sizes.reference_size == 4, "reference_points", "expected 2 or 4 coordinates, got ",
      sizes.reference_size);
  check_shape(reference_points, "reference_points", {sizes.images, sizes.queries, levels, sizes.reference_size});

  check_type(reference_points, "reference_points", compute_type(value), value);
  check_type(sampling_offsets, "sampling_offsets", compute_type(value), value);
  return sizes;
}

inline void check_ms_deform_attn(const Sizes& sizes, const Tensor& value, const Tensor& attention_logits) {
  check_shape(attention_logits, "attention_logits", {sizes.images, sizes.queries, sizes.heads, sizes.samples()});
  check_type(attention_logits, "attention_logits", compute_type(value), value);
}

inline void check_key_aware(
    const Sizes& sizes, const Tensor& query, const Tensor& value, const std::optional<Tensor>& key) {
  check_shape(query, "query", {sizes.images, sizes.queries, sizes.heads, sizes.channels});
  check_type(query, "query", value.scalar_type(), value);
  if (key.has_value()) {
    check_shape(*key, "key", {sizes.images, sizes.tokens, sizes.heads, sizes.channels});
    check_type(*key, "key", value.scalar_type(), value);
  }
}

inline void check_backward(
    const Sizes& sizes,
    const Tensor& grad_output,
    const Tensor& value,
    const std::vector<bool>& output_mask,
    size_t outputs) {
  check_argument(
      output_mask.size() == outputs, "output_mask", "expected ", outputs, " entries, got ", output_mask.size());
  check_shape(grad_output, "grad_output", {sizes.images, sizes.queries, sizes.heads * sizes.channels});
  check_type(grad_output, "grad_output", value.scalar_type(), value);
}

}  // namespace lite_detr
