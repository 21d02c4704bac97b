// CUDA's float16, on the CPU.

#pragma once

#include <torch/headeronly/util/Half.h>

struct __half {
  c10::Half value;
};

inline float __half2float(__half given) {
  return static_cast<float>(given.value);
}

inline __half __float2half_rn(float given) {
  return {c10::Half(given)};
}
