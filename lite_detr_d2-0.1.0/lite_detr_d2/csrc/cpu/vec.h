// Vectors of the widest kind that the instruction set has, by the vector extension of GCC and Clang.
//
// To be included within kernels_*.cpp only, which define LITE_DETR_ISA and LITE_DETR_VECTOR_BYTES.

#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define LITE_DETR_INLINE inline __attribute__((always_inline))

namespace lite_detr::cpu::LITE_DETR_ISA {

// Float arithmetic is done in vectors. Doubles, which only tests of gradients use, are vectors of one.
template <typename T>
struct VecOf;

template <>
struct VecOf<float> {
  typedef float Vec __attribute__((vector_size(LITE_DETR_VECTOR_BYTES)));
  typedef int32_t Index __attribute__((vector_size(LITE_DETR_VECTOR_BYTES)));
};

template <>
struct VecOf<double> {
  using Vec = double;
  using Index = int64_t;
};

template <typename T>
using Vec = typename VecOf<T>::Vec;
template <typename T>
using IndexVec = typename VecOf<T>::Index;
template <typename T>
using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
template <typename T>
constexpr int kLanes = sizeof(Vec<T>) / sizeof(T);

template <typename V, typename T>
LITE_DETR_INLINE V load(const T* from) {
  V vec;
  std::memcpy(&vec, from, sizeof(V));
  return vec;
}

template <typename V, typename T>
LITE_DETR_INLINE void store(T* to, V vec) {
  std::memcpy(to, &vec, sizeof(V));
}

template <typename V, typename T>
LITE_DETR_INLINE V splat(T number) {
  return V{} + number;
}

template <typename To, typename From>
LITE_DETR_INLINE To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

LITE_DETR_INLINE VecOf<float>::Index truncate(VecOf<float>::Vec x) {
  return __builtin_convertvector(x, VecOf<float>::Index);
}
LITE_DETR_INLINE int64_t truncate(double x) {
  return static_cast<int64_t>(x);
}

LITE_DETR_INLINE VecOf<float>::Vec to_real(VecOf<float>::Index x) {
  return __builtin_convertvector(x, VecOf<float>::Vec);
}
LITE_DETR_INLINE double to_real(int64_t x) {
  return static_cast<double>(x);
}

// Lanes of a, then of b.
template <int... kSource>
LITE_DETR_INLINE VecOf<float>::Vec shuffle(VecOf<float>::Vec a, VecOf<float>::Vec b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, kSource...);
#else
  return __builtin_shuffle(a, b, VecOf<float>::Index{kSource...});
#endif
}

// The even (kOdd = 0) or odd blocks of a, then of b, within each group of lanes.
template <int kBlock, int kGroup, int kOdd, int... kLane>
LITE_DETR_INLINE VecOf<float>::Vec blocks(
    VecOf<float>::Vec a, VecOf<float>::Vec b, std::integer_sequence<int, kLane...>) {
  constexpr auto source = [](int lane) {
    const int group = lane / kGroup * kGroup, half = kGroup / 2, in_group = lane - group;
    const int block = 2 * (in_group % half / kBlock) + kOdd;
    return group + block * kBlock + in_group % kBlock + (in_group < half ? 0 : kLanes<float>);
  };
  return shuffle<source(kLane)...>(a, b);
}

// a[kFirst], b[kFirst], a[kFirst + 1], ...
template <int kFirst, int... kLane>
LITE_DETR_INLINE VecOf<float>::Vec alternate(
    VecOf<float>::Vec a, VecOf<float>::Vec b, std::integer_sequence<int, kLane...>) {
  return shuffle<(kFirst + kLane / 2 + kLane % 2 * kLanes<float>)...>(a, b);
}

// Sums neighbouring blocks of a and b.
template <int kBlock, int kGroup>
LITE_DETR_INLINE VecOf<float>::Vec fold(VecOf<float>::Vec a, VecOf<float>::Vec b) {
  constexpr auto lanes = std::make_integer_sequence<int, kLanes<float>>();
  return blocks<kBlock, kGroup, 0>(a, b, lanes) + blocks<kBlock, kGroup, 1>(a, b, lanes);
}

// In each quarter of 128 bits: the sums of that quarter of a, b, c and d.
LITE_DETR_INLINE VecOf<float>::Vec fold_lanes(
    VecOf<float>::Vec a, VecOf<float>::Vec b, VecOf<float>::Vec c, VecOf<float>::Vec d) {
  return fold<1, 4>(fold<1, 4>(a, b), fold<1, 4>(c, d));
}

// Sums the quarters of each of the vectors, of which there are as many as quarters: quarter i is the sum of vecs[i].
LITE_DETR_INLINE VecOf<float>::Vec fold_quarters(const VecOf<float>::Vec* vecs) {
  constexpr int lanes = kLanes<float>;
  if constexpr (lanes == 4) {
    return vecs[0];
  } else if constexpr (lanes == 8) {
    return fold<4, lanes>(vecs[0], vecs[1]);
  } else {
    return fold<4, lanes>(fold<4, lanes>(vecs[0], vecs[1]), fold<4, lanes>(vecs[2], vecs[3]));
  }
}

// Lane i of to[j] is lane 4 * i + j of all lanes of from.
LITE_DETR_INLINE void transpose(const VecOf<float>::Vec (&from)[4], VecOf<float>::Vec (&to)[4]) {
  constexpr int count = kLanes<float>;
  constexpr auto lanes = std::make_integer_sequence<int, count>();
  const auto even_0 = blocks<1, count, 0>(from[0], from[1], lanes),
             odd_0 = blocks<1, count, 1>(from[0], from[1], lanes);
  const auto even_1 = blocks<1, count, 0>(from[2], from[3], lanes),
             odd_1 = blocks<1, count, 1>(from[2], from[3], lanes);
  to[0] = blocks<1, count, 0>(even_0, even_1, lanes);
  to[1] = blocks<1, count, 0>(odd_0, odd_1, lanes);
  to[2] = blocks<1, count, 1>(even_0, even_1, lanes);
  to[3] = blocks<1, count, 1>(odd_0, odd_1, lanes);
}

// exp(x) for x <= 0, to about one unit in the last place; 0 below the smallest normal number. The polynomial is that of
// the Cephes library.
LITE_DETR_INLINE VecOf<float>::Vec exp_of_nonpositive(VecOf<float>::Vec x) {
  using V = VecOf<float>::Vec;
  const V smallest = splat<V>(-87.336544f);
  const auto underflows = x < smallest;
  const V clamped = underflows ? smallest : x;
  constexpr float round = 12582912;  // 1.5 * 2^23: adding it leaves no fraction
  const V power = (clamped * 1.44269504f + round) - round;
  const V rest = clamped - power * 0.693359375f + power * 2.12194440e-4f;
  V polynomial = splat<V>(1.9875691500e-4f);
  polynomial = polynomial * rest + 1.3981999507e-3f;
  polynomial = polynomial * rest + 8.3334519073e-3f;
  polynomial = polynomial * rest + 4.1665795894e-2f;
  polynomial = polynomial * rest + 1.6666665459e-1f;
  polynomial = polynomial * rest + 5.0000001201e-1f;
  const V mantissa = polynomial * rest * rest + rest + 1.0f;
  const auto exponent = (truncate(power) + 127) << 23;
  return underflows ? V{} : mantissa * as<V>(exponent);
}
LITE_DETR_INLINE double exp_of_nonpositive(double x) {
  return __builtin_exp(x);
}

// Combines all lanes, in a tree.
template <typename Combine>
LITE_DETR_INLINE float reduce(VecOf<float>::Vec vec, const Combine& combine) {
  constexpr int count = kLanes<float>;
  constexpr auto lanes = std::make_integer_sequence<int, count>();
  for (int i = 0; i < 2; ++i) {
    vec = combine(blocks<1, 4, 0>(vec, vec, lanes), blocks<1, 4, 1>(vec, vec, lanes));
  }
  if constexpr (count > 4) {
    for (int quarters = count / 4; quarters > 1; quarters /= 2) {
      vec = combine(blocks<4, count, 0>(vec, vec, lanes), blocks<4, count, 1>(vec, vec, lanes));
    }
  }
  return vec[0];
}
template <typename Combine>
LITE_DETR_INLINE double reduce(double vec, const Combine&) {
  return vec;
}

LITE_DETR_INLINE int32_t largest_lane(VecOf<float>::Index vec) {
  using V = VecOf<float>::Vec;
  using I = VecOf<float>::Index;
  // The shuffles are of bits.
  const float largest = reduce(
      as<V>(vec),
      [](V a, V b) __attribute__((always_inline)) { return as<V>(as<I>(a) > as<I>(b) ? as<I>(a) : as<I>(b)); });
  return as<int32_t>(largest);
}
LITE_DETR_INLINE int64_t largest_lane(int64_t vec) {
  return vec;
}

template <typename V>
LITE_DETR_INLINE auto sum_of_lanes(V vec) {
  return reduce(vec, [](V a, V b) __attribute__((always_inline)) { return a + b; });
}

LITE_DETR_INLINE float largest_lane(VecOf<float>::Vec vec) {
  using V = VecOf<float>::Vec;
  return reduce(vec, [](V a, V b) __attribute__((always_inline)) { return a > b ? a : b; });
}
LITE_DETR_INLINE double largest_lane(double vec) {
  return vec;
}

}  // namespace lite_detr::cpu::LITE_DETR_ISA
