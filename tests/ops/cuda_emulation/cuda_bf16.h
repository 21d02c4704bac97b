// CUDA's bfloat16, on the CPU.

#pragma once

#include <torch/headeronly/util/BFloat16.h>

struct __nv_bfloat16 {
  c10::BFloat16 value;
};

inline float __bfloat162float(__nv_bfloat16 given) {
  return static_cast<float>(given.value);
}

inline __nv_bfloat16 __float2bfloat16_rn(float given) {
  return {c10::BFloat16(given)};
}
