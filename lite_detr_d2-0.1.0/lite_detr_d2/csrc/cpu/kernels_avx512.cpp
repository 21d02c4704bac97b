// The kernels for AVX-512 (F, BW, DQ, VL).

#if defined(__x86_64__)

// Standard headers come before the target is set: it is for our functions only.
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif

#define LITE_DETR_ISA avx512
#define LITE_DETR_VECTOR_BYTES 64
#include "attention.h"

namespace lite_detr::cpu {

const Kernels kAvx512 = {
    "AVX512", avx512::attend, avx512::attend_backward, avx512::attend_by_key, avx512::attend_by_key_backward};

}  // namespace lite_detr::cpu

#if defined(__clang__)
#pragma clang attribute pop
#endif

#endif
