// The kernels for AVX2 and FMA.

#if defined(__x86_64__)

// Standard headers come before the target is set: it is for our functions only.
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif

#define LITE_DETR_ISA avx2
#define LITE_DETR_VECTOR_BYTES 32
#include "attention.h"

namespace lite_detr::cpu {

const Kernels kAvx2 = {"AVX2", avx2::attend, avx2::attend_backward, avx2::attend_by_key, avx2::attend_by_key_backward};

}  // namespace lite_detr::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
