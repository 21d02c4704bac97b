// The ops on the CPU: checks, memory, and the choice of the kernel for the type and the head dimension.

#include <tuple>
#include <type_traits>

#include "attention.h"

namespace lite_detr::cpu {
namespace {

using torch::stable::contiguous;
using torch::stable::new_empty;
using torch::stable::new_zeros;

// Calls body(T(), channels): T is float or double, channels a constant for the usual head dimensions in float.
template <typename Body>
void dispatch(const Tensor& value, const Body& body) {
  const int64_t channels = value.size(3);
  if (value.scalar_type() == torch::headeronly::ScalarType::Double) {
    return body(double(), channels);
  }
  switch (channels) {
    case 16:
      return body(float(), std::integral_constant<int64_t, 16>());
    case 32:
      return body(float(), std::integral_constant<int64_t, 32>());
    case 64:
      return body(float(), std::integral_constant<int64_t, 64>());
    default:
      return body(float(), channels);
  }
}

// The gradient of the reference points. Heads are tasks of their own, so each has its share, and the sum comes last.
struct ReferenceGradient {
  Tensor shares, total;

  ReferenceGradient(const Sizes& sizes, const Tensor& reference_points, bool wanted)
      : shares(new_empty(reference_points, {0})), total(shares) {
    if (wanted) {
      const auto levels = static_cast<int64_t>(sizes.levels.size());
      shares =
          new_empty(reference_points, {sizes.images, sizes.queries, sizes.heads, levels, sizes.reference_size});
      total = new_zeros(reference_points, {sizes.images, sizes.queries, levels, sizes.reference_size});
    }
  }

  template <typename T>
  T* address_of_shares() const {
    return shares.numel() ? shares.mutable_data_ptr<T>() : nullptr;
  }

  template <typename T>
  void sum(const Sizes& sizes) const {
    const T* share = shares.const_data_ptr<T>();
    T* sum = total.mutable_data_ptr<T>();
    const int64_t coordinates = sizes.coordinates();
    for (int64_t i = 0; i < shares.numel(); ++i) {
      const int64_t row = i / coordinates;
      sum[row / sizes.heads * coordinates + i % coordinates] += share[i];
    }
  }
};

Tensor ms_deform_attn(
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const Tensor& attention_logits) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_ms_deform_attn(sizes, value, attention_logits);
  const Tensor maps = contiguous(value), reference = contiguous(reference_points);
  const Tensor offsets = contiguous(sampling_offsets), logits = contiguous(attention_logits);
  const Tensor output = new_empty(value, {sizes.images, sizes.queries, sizes.heads * sizes.channels});
  dispatch(value, [&](auto type, auto channels) {
    using T = decltype(type);
    const Inputs<T> in{
        nullptr,
        maps.const_data_ptr<T>(),
        nullptr,
        reference.const_data_ptr<T>(),
        offsets.const_data_ptr<T>(),
        logits.const_data_ptr<T>()};
    attend(sizes, channels, in, output.mutable_data_ptr<T>());
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> ms_deform_attn_backward(
    const Tensor& grad_output,
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const Tensor& attention_logits,
    bool reference_points_grad) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_ms_deform_attn(sizes, value, attention_logits);
  check_grad_output(sizes, grad_output, value);
  const Tensor maps = contiguous(value), reference = contiguous(reference_points);
  const Tensor offsets = contiguous(sampling_offsets), logits = contiguous(attention_logits);
  const Tensor grad_attended = contiguous(grad_output);
  const Tensor grad_value = new_zeros(value, shape_of(value));
  const Tensor grad_offsets = new_empty(value, shape_of(sampling_offsets));
  const Tensor grad_logits = new_empty(value, shape_of(attention_logits));
  const ReferenceGradient grad_reference(sizes, reference_points, reference_points_grad);
  dispatch(value, [&](auto type, auto channels) {
    using T = decltype(type);
    const Inputs<T> in{
        nullptr,
        maps.const_data_ptr<T>(),
        nullptr,
        reference.const_data_ptr<T>(),
        offsets.const_data_ptr<T>(),
        logits.const_data_ptr<T>()};
    const Gradients<T> grad{
        nullptr,
        grad_value.mutable_data_ptr<T>(),
        nullptr,
        grad_reference.address_of_shares<T>(),
        grad_offsets.mutable_data_ptr<T>(),
        grad_logits.mutable_data_ptr<T>()};
    attend_backward(sizes, channels, in, grad_attended.const_data_ptr<T>(), grad);
    grad_reference.sum<T>(sizes);
  });
  return {grad_value, grad_reference.total, grad_offsets, grad_logits};
}

Tensor key_aware_deform_attn(
    const Tensor& query,
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const std::optional<Tensor>& key) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_key_aware(sizes, query, value, key);
  const Tensor queries = contiguous(query), maps = contiguous(value), key_maps = contiguous(key.value_or(value));
  const Tensor reference = contiguous(reference_points), offsets = contiguous(sampling_offsets);
  const Tensor output = new_empty(value, {sizes.images, sizes.queries, sizes.heads * sizes.channels});
  dispatch(value, [&](auto type, auto channels) {
    using T = decltype(type);
    const Inputs<T> in{
        queries.const_data_ptr<T>(),
        maps.const_data_ptr<T>(),
        key ? key_maps.const_data_ptr<T>() : nullptr,
        reference.const_data_ptr<T>(),
        offsets.const_data_ptr<T>(),
        nullptr};
    attend_by_key(sizes, channels, in, output.mutable_data_ptr<T>());
  });
  return output;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> key_aware_deform_attn_backward(
    const Tensor& grad_output,
    const Tensor& query,
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const std::optional<Tensor>& key,
    bool reference_points_grad) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_key_aware(sizes, query, value, key);
  check_grad_output(sizes, grad_output, value);
  const Tensor queries = contiguous(query), maps = contiguous(value), key_maps = contiguous(key.value_or(value));
  const Tensor reference = contiguous(reference_points), offsets = contiguous(sampling_offsets);
  const Tensor grad_attended = contiguous(grad_output);
  const Tensor grad_query = new_empty(value, shape_of(query));
  const Tensor grad_value = new_zeros(value, shape_of(value));
  const Tensor grad_key = key ? new_zeros(value, shape_of(value)) : new_empty(value, {0});
  const Tensor grad_offsets = new_empty(value, shape_of(sampling_offsets));
  const ReferenceGradient grad_reference(sizes, reference_points, reference_points_grad);
  dispatch(value, [&](auto type, auto channels) {
    using T = decltype(type);
    const Inputs<T> in{
        queries.const_data_ptr<T>(),
        maps.const_data_ptr<T>(),
        key ? key_maps.const_data_ptr<T>() : nullptr,
        reference.const_data_ptr<T>(),
        offsets.const_data_ptr<T>(),
        nullptr};
    const Gradients<T> grad{
        grad_query.mutable_data_ptr<T>(),
        grad_value.mutable_data_ptr<T>(),
        grad_key.mutable_data_ptr<T>(),
        grad_reference.address_of_shares<T>(),
        grad_offsets.mutable_data_ptr<T>(),
        nullptr};
    attend_by_key_backward(sizes, channels, in, grad_attended.const_data_ptr<T>(), grad);
    grad_reference.sum<T>(sizes);
  });
  return {grad_query, grad_value, grad_reference.total, grad_offsets, grad_key};
}

}  // namespace
}  // namespace lite_detr::cpu

STABLE_TORCH_LIBRARY_IMPL(lite_detr, CPU, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&lite_detr::cpu::ms_deform_attn));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&lite_detr::cpu::ms_deform_attn_backward));
  library.impl("key_aware_deform_attn", TORCH_BOX(&lite_detr::cpu::key_aware_deform_attn));
  library.impl("key_aware_deform_attn_backward", TORCH_BOX(&lite_detr::cpu::key_aware_deform_attn_backward));
}
