// A level of a feature map, as kernels see it. No torch header: kernels are compiled for other instruction sets or by
// other compilers than the rest.

#pragma once

#include <cstdint>

namespace lite_detr {

struct Level {
  int64_t height, width;
  int64_t start;  // index of its first token
};

}  // namespace lite_detr
