// The ops on the CPU: checks, memory, and the choice of the kernels.

#include <algorithm>
#include <cstdlib>
#include <string>
#include <tuple>

#include "../checks.h"
#include "kernels.h"

namespace lite_detr::cpu {
namespace {

using torch::stable::contiguous;
using torch::stable::new_empty;
using torch::stable::new_zeros;

// Of this processor's instruction sets, the widest; or a lesser one that ATEN_CPU_CAPABILITY, torch's own variable for
// this, asks for.
const Kernels& choose_kernels() {
#if defined(__x86_64__)
  const char* variable = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string limit = variable ? variable : "";
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (limit != "default" && limit != "avx2" && has_avx512 && has_avx2) {
    return kAvx512;
  }
  if (limit != "default" && has_avx2) {
    return kAvx2;
  }
#endif
  return kPortable;
}

const Kernels& kernels_of_this_processor() {
  static const Kernels& kernels = choose_kernels();
  return kernels;
}

std::string cpu_capability() {
  return kernels_of_this_processor().name;
}

Storage storage_of(const Tensor& value) {
  switch (value.scalar_type()) {
    case ScalarType::Double:
      return Storage::kFloat64;
    case ScalarType::BFloat16:
      return Storage::kBFloat16;
    case ScalarType::Half:
      return Storage::kFloat16;
    default:
      return Storage::kFloat32;
  }
}

// A call and the contiguous tensors whose addresses it holds.
class Invocation {
 public:
  Invocation(const Sizes& sizes, const Tensor& value, const Tensor& reference_points, const Tensor& sampling_offsets)
      : sizes_(sizes), kernels_(value.scalar_type() == ScalarType::Double ? kPortable : kernels_of_this_processor()) {
    call_.images = sizes.images;
    call_.tokens = sizes.tokens;
    call_.heads = sizes.heads;
    call_.channels = sizes.channels;
    call_.queries = sizes.queries;
    call_.level_count = static_cast<int64_t>(sizes_.levels.size());
    call_.points = sizes.points;
    call_.reference_size = sizes.reference_size;
    call_.levels = sizes_.levels.data();
    call_.storage = storage_of(value);
    // Half types are copied to convert them; others when about every token is a neighbour of a point.
    const bool half = call_.storage == Storage::kBFloat16 || call_.storage == Storage::kFloat16;
    call_.queries_worth_packing = half ? 0 : sizes.tokens / sizes.samples() + 1;
    read(&Call::value, value);
    read(&Call::reference, reference_points);
    read(&Call::offsets, sampling_offsets);
  }
  Invocation(const Invocation&) = delete;
  Invocation& operator=(const Invocation&) = delete;

  void read(const void* Call::*member, const Tensor& tensor) {
    tensors_.push_back(contiguous(tensor));
    call_.*member = tensors_.back().const_data_ptr();
  }

  void write(void* Call::*member, const Tensor& tensor) {
    call_.*member = tensor.numel() ? tensor.mutable_data_ptr() : nullptr;
  }

  // Whether backward adds to the gradients of the maps.
  bool adds_to_maps() const {
    return call_.queries < call_.queries_worth_packing;
  }

  void run_forward(void (*Kernels::*kernel)(const Call&, int64_t, int64_t)) const {
    // A task outweighs its start.
    const int64_t work = std::max<int64_t>(1, sizes_.samples() * sizes_.channels);
    run(kernel, sizes_.images * sizes_.heads * sizes_.queries, std::max<int64_t>(1, (1 << 17) / work));
  }

  void run_backward(void (*Kernels::*kernel)(const Call&, int64_t, int64_t)) const {
    run(kernel, sizes_.images * sizes_.heads, 1);
  }

 private:
  void run(void (*Kernels::*kernel)(const Call&, int64_t, int64_t), int64_t tasks, int64_t grain) const {
    torch::stable::parallel_for(
        0, tasks, grain, [&](int64_t begin, int64_t end) { (kernels_.*kernel)(call_, begin, end); });
  }

  Sizes sizes_;
  const Kernels& kernels_;
  Call call_{};
  std::vector<Tensor> tensors_;
};

// A gradient like `tensor`, or of shape (0).
Tensor new_gradient(const Tensor& tensor, bool wanted, bool zeros = false) {
  if (!wanted) {
    return new_empty(tensor, {0});
  }
  return zeros ? new_zeros(tensor, shape_of(tensor)) : new_empty(tensor, shape_of(tensor));
}

// The gradient of the reference points. Heads are tasks of their own, so each has its share, and the sum comes last.
Tensor new_reference_shares(const Sizes& sizes, const Tensor& reference_points, bool wanted) {
  const auto levels = static_cast<int64_t>(sizes.levels.size());
  return wanted ? new_empty(reference_points, {sizes.images, sizes.queries, sizes.heads, levels, sizes.reference_size})
                : new_empty(reference_points, {0});
}

Tensor sum_reference_shares(const Tensor& shares, bool wanted) {
  const int64_t heads = 2;
  return wanted ? torch::stable::sum(shares, torch::headeronly::HeaderOnlyArrayRef<int64_t>(&heads, 1)) : shares;
}

Tensor ms_deform_attn(
    const Tensor& value,
    const std::vector<int64_t>& spatial_shapes,
    const Tensor& reference_points,
    const Tensor& sampling_offsets,
    const Tensor& attention_logits) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_ms_deform_attn(sizes, value, attention_logits);
  const Tensor output = new_empty(value, {sizes.images, sizes.queries, sizes.heads * sizes.channels});
  Invocation invocation(sizes, value, reference_points, sampling_offsets);
  invocation.read(&Call::logits, attention_logits);
  invocation.write(&Call::output, output);
  invocation.run_forward(&Kernels::attend);
  return output;
}

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
  Invocation invocation(sizes, value, reference_points, sampling_offsets);
  const Tensor grad_value = new_gradient(value, output_mask[0], invocation.adds_to_maps());
  const Tensor grad_reference_shares = new_reference_shares(sizes, reference_points, output_mask[1]);
  const Tensor grad_offsets = new_gradient(sampling_offsets, output_mask[2]);
  const Tensor grad_logits = new_gradient(attention_logits, output_mask[3]);
  invocation.read(&Call::grad_output, grad_output);
  invocation.read(&Call::logits, attention_logits);
  invocation.write(&Call::grad_value, grad_value);
  invocation.write(&Call::grad_reference, grad_reference_shares);
  invocation.write(&Call::grad_offsets, grad_offsets);
  invocation.write(&Call::grad_logits, grad_logits);
  invocation.run_backward(&Kernels::attend_backward);
  return {grad_value, sum_reference_shares(grad_reference_shares, output_mask[1]), grad_offsets, grad_logits};
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
  const Tensor output = new_empty(value, {sizes.images, sizes.queries, sizes.heads * sizes.channels});
  Invocation invocation(sizes, value, reference_points, sampling_offsets);
  invocation.read(&Call::query, query);
  if (key) {
    invocation.read(&Call::key, *key);
  }
  invocation.write(&Call::output, output);
  invocation.run_forward(&Kernels::attend_by_key);
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
    const std::vector<bool>& output_mask) {
  const Sizes sizes = check_sampling(value, spatial_shapes, reference_points, sampling_offsets);
  check_key_aware(sizes, query, value, key);
  check_backward(sizes, grad_output, value, output_mask, 5);
  Invocation invocation(sizes, value, reference_points, sampling_offsets);
  const bool wants_key = output_mask[4] && key.has_value();
  const Tensor grad_query = new_gradient(query, output_mask[0]);
  const Tensor grad_value = new_gradient(value, output_mask[1], invocation.adds_to_maps());
  const Tensor grad_reference_shares = new_reference_shares(sizes, reference_points, output_mask[2]);
  const Tensor grad_offsets = new_gradient(sampling_offsets, output_mask[3]);
  const Tensor grad_key = new_gradient(value, wants_key, invocation.adds_to_maps());
  invocation.read(&Call::grad_output, grad_output);
  invocation.read(&Call::query, query);
  if (key) {
    invocation.read(&Call::key, *key);
  }
  invocation.write(&Call::grad_query, grad_query);
  invocation.write(&Call::grad_value, grad_value);
  invocation.write(&Call::grad_reference, grad_reference_shares);
  invocation.write(&Call::grad_offsets, grad_offsets);
  invocation.write(&Call::grad_key, grad_key);
  invocation.run_backward(&Kernels::attend_by_key_backward);
  return {grad_query, grad_value, sum_reference_shares(grad_reference_shares, output_mask[2]), grad_offsets, grad_key};
}

}  // namespace
}  // namespace lite_detr::cpu

STABLE_TORCH_LIBRARY_IMPL(lite_detr, CPU, library) {
  library.impl("ms_deform_attn", TORCH_BOX(&lite_detr::cpu::ms_deform_attn));
  library.impl("ms_deform_attn_backward", TORCH_BOX(&lite_detr::cpu::ms_deform_attn_backward));
  library.impl("key_aware_deform_attn", TORCH_BOX(&lite_detr::cpu::key_aware_deform_attn));
  library.impl("key_aware_deform_attn_backward", TORCH_BOX(&lite_detr::cpu::key_aware_deform_attn_backward));
}

STABLE_TORCH_LIBRARY_IMPL(lite_detr, CompositeExplicitAutograd, library) {
  library.impl("cpu_capability", TORCH_BOX(&lite_detr::cpu::cpu_capability));
}
