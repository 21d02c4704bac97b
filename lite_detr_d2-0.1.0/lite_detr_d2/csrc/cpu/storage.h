// Rows of the types that tensors are stored in, read and written as what is computed in; and the memory of a task.

#pragma once

#include <new>

#include "kernels.h"
#include "vec.h"

namespace lite_detr::cpu::LITE_DETR_ISA {

LITE_DETR_INLINE float from_bits(uint32_t bits) {
  float number;
  std::memcpy(&number, &bits, 4);
  return number;
}

LITE_DETR_INLINE uint32_t to_bits(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, 4);
  return bits;
}

LITE_DETR_INLINE float from_bfloat16(uint16_t stored) {
  return from_bits(static_cast<uint32_t>(stored) << 16);
}

// Rounds to nearest, ties to even; so does to_float16.
LITE_DETR_INLINE uint16_t to_bfloat16(float number) {
  const uint32_t bits = to_bits(number);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>(number != number ? 0x7fc0 : rounded);
}

LITE_DETR_INLINE float from_float16(uint16_t stored) {
  const uint32_t magnitude = stored & 0x7fff, sign = (stored & 0x8000u) << 16;
  // Moving the exponent's bias by a product gives subnormal numbers, too.
  const uint32_t finite = to_bits(from_bits(magnitude << 13) * from_bits(0x77800000));
  return from_bits(sign | finite | (magnitude >= 0x7c00 ? 0x7f800000 : 0));
}

LITE_DETR_INLINE uint16_t to_float16(float number) {
  const uint32_t bits = to_bits(number), magnitude = bits & 0x7fffffff, sign = (bits >> 16) & 0x8000;
  // Adding one half lets the addition round a subnormal result's bits.
  const uint32_t subnormal = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000;
  const uint32_t normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
  const uint32_t stored = magnitude > 0x7f800000 ? 0x7e00 : magnitude >= 0x477ff000 ? 0x7c00 : finite;
  return static_cast<uint16_t>(sign | stored);
}

LITE_DETR_INLINE bool is_half(Storage storage) {
  return storage == Storage::kBFloat16 || storage == Storage::kFloat16;
}

// Reads `count` elements from `index` of `base`: in place where they are of type T, else into `buffer`.
template <typename T>
LITE_DETR_INLINE const T* read(const void* base, Storage storage, int64_t index, int64_t count, T* buffer) {
  if (storage == Storage::kBFloat16) {
    const auto* from = static_cast<const uint16_t*>(base) + index;
    for (int64_t i = 0; i < count; ++i) {
      buffer[i] = from_bfloat16(from[i]);
    }
  } else if (storage == Storage::kFloat16) {
    const auto* from = static_cast<const uint16_t*>(base) + index;
    for (int64_t i = 0; i < count; ++i) {
      buffer[i] = from_float16(from[i]);
    }
  } else {
    return static_cast<const T*>(base) + index;
  }
  return buffer;
}

// Where a row of results is computed: in place if it is of type T, else in `buffer`, to be written afterwards.
template <typename T>
LITE_DETR_INLINE T* writable(void* base, Storage storage, int64_t index, T* buffer) {
  return is_half(storage) ? buffer : static_cast<T*>(base) + index;
}

template <typename T>
LITE_DETR_INLINE void write(const T* row, void* base, Storage storage, int64_t index, int64_t count) {
  if (storage == Storage::kBFloat16) {
    auto* to = static_cast<uint16_t*>(base) + index;
    for (int64_t i = 0; i < count; ++i) {
      to[i] = to_bfloat16(static_cast<float>(row[i]));
    }
  } else if (storage == Storage::kFloat16) {
    auto* to = static_cast<uint16_t*>(base) + index;
    for (int64_t i = 0; i < count; ++i) {
      to[i] = to_float16(static_cast<float>(row[i]));
    }
  } else if (row != static_cast<T*>(base) + index) {
    std::memcpy(static_cast<T*>(base) + index, row, count * sizeof(T));
  }
}

// Uninitialised memory, aligned to cache lines.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    ::operator delete(begin_, std::align_val_t(kCacheLine));
  }

  // Once.
  void allocate(int64_t count) {
    begin_ = static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(kCacheLine)));
  }

  T* get() const {
    return begin_;
  }

 private:
  static constexpr int kCacheLine = 64;
  T* begin_ = nullptr;
};

}  // namespace lite_detr::cpu::LITE_DETR_ISA
