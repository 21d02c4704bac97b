// What the kernels are called with, and the kernels of each instruction set.
//
// kernels_*.cpp compile the same code (attention.h) for different instruction sets. They must share no inline function
// with the rest of the library, or the linker might keep the copy that not every processor can run: hence plain
// structures here, and no torch or container header there.

#pragma once

#include <cstdint>

#include "../level.h"

namespace lite_detr::cpu {

enum class Storage { kFloat64, kFloat32, kBFloat16, kFloat16 };

// N, S, M, D, Q, L, P of the documentation, in this order; `reference_size` is 2 or 4.
struct Call {
  int64_t images, tokens, heads, channels, queries, level_count, points, reference_size;
  const Level* levels;
  // From this many queries on, a map is copied to where its tokens are adjacent, in the type that is computed in,
  // before it is sampled; 0 for half types. Backward copies for all queries or none: if it does, it overwrites the
  // gradients of the maps, and else adds to them.
  int64_t queries_worth_packing;

  // Contiguous. Of the storage type; null where the op has no such input or is to use `value` as the key.
  Storage storage;
  const void *query, *value, *key, *grad_output;
  // Contiguous. Of the type that is computed in: double for kFloat64, else float.
  const void *reference, *offsets, *logits;

  // Of the types of the inputs; null where not wanted. `grad_reference` (N, Q, M, L, 2 or 4) has each head's share.
  void* output;
  void *grad_query, *grad_value, *grad_key, *grad_reference, *grad_offsets, *grad_logits;
};

// Forward works on rows begin .. end of (image, head, query), backward on those of (image, head): a task owns its part
// of every result, so nothing is atomic and no bit depends on the number of threads.
struct Kernels {
  const char* name;  // as torch.backends.cpu.get_cpu_capability() names it
  void (*attend)(const Call&, int64_t begin, int64_t end);
  void (*attend_backward)(const Call&, int64_t begin, int64_t end);
  void (*attend_by_key)(const Call&, int64_t begin, int64_t end);
  void (*attend_by_key_backward)(const Call&, int64_t begin, int64_t end);
};

extern const Kernels kPortable;
#if defined(__x86_64__)
extern const Kernels kAvx2, kAvx512;
#endif

}  // namespace lite_detr::cpu
