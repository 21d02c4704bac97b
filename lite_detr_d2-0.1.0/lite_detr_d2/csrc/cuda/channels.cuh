// How a group of lanes of a warp holds the channels of a head: loads, stores, and sums over the group.
//
// Each function is called by all lanes of a warp together: a shuffle waits for every one of them.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace lite_detr::cuda {

// The type that locations and sums are computed in.
template <typename T>
struct ComputeType {
  using type = float;
};

template <>
struct ComputeType<double> {
  using type = double;
};

template <typename T>
using Compute = typename ComputeType<T>::type;

__device__ inline double to_compute(double stored) {
  return stored;
}

__device__ inline float to_compute(float stored) {
  return stored;
}

__device__ inline float to_compute(__half stored) {
  return __half2float(stored);
}

__device__ inline float to_compute(__nv_bfloat16 stored) {
  return __bfloat162float(stored);
}

__device__ inline void to_stored(double computed, double& stored) {
  stored = computed;
}

__device__ inline void to_stored(float computed, float& stored) {
  stored = computed;
}

__device__ inline void to_stored(float computed, __half& stored) {
  stored = __float2half_rn(computed);
}

__device__ inline void to_stored(float computed, __nv_bfloat16& stored) {
  stored = __float2bfloat16_rn(computed);
}

// What one instruction moves.
template <int BYTES>
struct Words;

template <>
struct Words<16> {
  using type = uint4;
};

template <>
struct Words<8> {
  using type = uint2;
};

template <typename T, typename Vector, typename C, int WIDTH>
__device__ inline void unpack(const Vector& words, C (&computed)[WIDTH]) {
  static_assert(sizeof(words) == sizeof(T) * WIDTH);
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    // One instruction each: a bfloat16 is the upper half of a float.
    unsigned pairs[WIDTH / 2];
    memcpy(pairs, &words, sizeof(words));
#pragma unroll
    for (int i = 0; i < WIDTH; i += 2) {
      computed[i] = __uint_as_float(pairs[i / 2] << 16);
      computed[i + 1] = __uint_as_float(pairs[i / 2] & 0xffff0000);
    }
  } else {
    T stored[WIDTH];
    memcpy(stored, &words, sizeof(words));
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
      computed[i] = to_compute(stored[i]);
    }
  }
}

// Whether one instruction adds four floats to memory.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool ADDS_VECTORS = true;
#else
constexpr bool ADDS_VECTORS = false;
#endif

__device__ inline void add_vector_atomically(float* address, float a, float b, float c, float d) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile(
      "red.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(address)), "f"(a), "f"(b), "f"(c),
      "f"(d));
#endif
}

// Adds to memory that other threads add to.
template <typename C, int WIDTH>
__device__ inline void add_atomically(C* address, const C (&addend)[WIDTH]) {
  if constexpr (ADDS_VECTORS && sizeof(C) == 4 && WIDTH % 4 == 0) {
#pragma unroll
    for (int i = 0; i < WIDTH; i += 4) {
      add_vector_atomically(address + i, addend[i], addend[i + 1], addend[i + 2], addend[i + 3]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) {
      atomicAdd(address + i, addend[i]);
    }
  }
}

constexpr unsigned WARP = 0xffffffff;

// CHANNELS is D, of tensors aligned to 16 bytes; or 0 for any D, which a loop takes in slices. A lane has as many
// channels as 16 bytes of type WORD hold: what it loads at once, or what it adds at once. A group's instruction then
// reaches memory without gaps; with gaps, additions take twice as long.
template <typename T, int CHANNELS, typename WORD = T>
struct Channels {
  using C = Compute<T>;
  static constexpr bool FIXED = CHANNELS > 0;
  // Of a lane. At least four lanes, as a batch has four points.
  static constexpr int WIDTH = !FIXED || CHANNELS * sizeof(WORD) < 64 ? 4 : 16 / sizeof(WORD);
  static constexpr int LANES = FIXED ? CHANNELS / WIDTH : 32;
  static constexpr int SLICE = WIDTH * LANES;
  static_assert(LANES >= 4 && LANES <= 32 && (LANES & (LANES - 1)) == 0 && (!FIXED || SLICE == CHANNELS));

  // A batch of points is worked on at once. Each point has an owner among the lanes, who computes what does not
  // depend on the channel. A round is the points that the lanes own, one each: SHARE batches.
  static constexpr int BATCH = 4;
  static constexpr int SHARE = LANES / BATCH;

  int lane, count;

  __device__ Channels(int lane_, int count_) : lane(lane_), count(FIXED ? CHANNELS : count_) {
  }

  __device__ int size() const {
    return FIXED ? CHANNELS : count;
  }

  // The point of a batch whose sum `sum_of_point` returns, and the batch of a round, that are this lane's own.
  __device__ int own_point() const {
    return lane / SHARE;
  }

  __device__ int own_batch() const {
    return lane % SHARE;
  }

  __device__ static int owner(int batch, int point) {
    return point * SHARE + batch;
  }

  template <typename V>
  __device__ V from_lane(V given, int source) const {
    return __shfl_sync(WARP, given, source, LANES);
  }

  __device__ C sum(C addend) const {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
      addend += __shfl_xor_sync(WARP, addend, step, LANES);
    }
    return addend;
  }

  __device__ C max(C given) const {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
      given = fmax(given, __shfl_xor_sync(WARP, given, step, LANES));
    }
    return given;
  }

  // Of each point of a batch a lane has an addend. Sums over the lanes; each learns the sum of its own_point() only,
  // which takes a third of the shuffles.
  __device__ C sum_of_point(const C (&addends)[BATCH]) const {
    const bool high = lane & (LANES / 2), low = lane & (LANES / 4);
    C first = high ? addends[2] : addends[0], second = high ? addends[3] : addends[1];
    first += __shfl_xor_sync(WARP, high ? addends[0] : addends[2], LANES / 2, LANES);
    second += __shfl_xor_sync(WARP, high ? addends[1] : addends[3], LANES / 2, LANES);
    C own = low ? second : first;
    own += __shfl_xor_sync(WARP, low ? first : second, LANES / 4, LANES);
#pragma unroll
    for (int step = LANES / 8; step > 0; step /= 2) {
      own += __shfl_xor_sync(WARP, own, step, LANES);
    }
    return own;
  }

  // Across the points of a batch, from each lane's own_point().
  __device__ C sum_of_batch(C own) const {
    own += __shfl_xor_sync(WARP, own, LANES / 2, LANES);
    return own + __shfl_xor_sync(WARP, own, LANES / 4, LANES);
  }

  __device__ C max_of_batch(C own) const {
    own = fmax(own, __shfl_xor_sync(WARP, own, LANES / 2, LANES));
    return fmax(own, __shfl_xor_sync(WARP, own, LANES / 4, LANES));
  }

  // Where this lane's own channels start, of the D channels at `head`.
  template <typename V>
  __device__ V* own(V* head) const {
    return head + (FIXED ? lane * WIDTH : lane);
  }

  // This lane's channels of a slice of those of a head; zeros if not `wanted`, and beyond D.
  __device__ void load(const T* own, int slice, C (&loaded)[WIDTH], bool wanted = true) const {
    if constexpr (FIXED) {
      using Vector = typename Words<sizeof(T) * WIDTH>::type;
      Vector words{};
      if (wanted) {
        words = __ldg(reinterpret_cast<const Vector*>(own));
      }
      unpack<T>(words, loaded);
    } else {
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        const int step = slice + i * LANES;
        loaded[i] = wanted && step + lane < count ? to_compute(__ldg(own + step)) : C(0);
      }
    }
  }

  // To memory that only this group writes.
  __device__ void store(T* own, int slice, const C (&computed)[WIDTH]) const {
    if constexpr (FIXED) {
      using Vector = typename Words<sizeof(T) * WIDTH>::type;
      T stored[WIDTH];
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        to_stored(computed[i], stored[i]);
      }
      Vector words;
      memcpy(&words, stored, sizeof(words));
      *reinterpret_cast<Vector*>(own) = words;
    } else {
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        const int step = slice + i * LANES;
        if (step + lane < count) {
          to_stored(computed[i], own[step]);
        }
      }
    }
  }

  // To gradients, which are in the compute type until they are complete.
  __device__ void add(C* own, int slice, const C (&addend)[WIDTH]) const {
    if constexpr (FIXED) {
      add_atomically(own, addend);
    } else {
#pragma unroll
      for (int i = 0; i < WIDTH; ++i) {
        const int step = slice + i * LANES;
        if (step + lane < count) {
          atomicAdd(own + step, addend[i]);
        }
      }
    }
  }
};

// Of backward, which adds gradients of maps in the compute type.
template <typename T, int CHANNELS>
using AddingChannels = Channels<T, CHANNELS, Compute<T>>;

template <typename C, int WIDTH>
__device__ inline C dot(const C (&a)[WIDTH], const C (&b)[WIDTH]) {
  C sum = 0;
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

// sum += factor * addend
template <typename C, int WIDTH>
__device__ inline void add_scaled(const C (&addend)[WIDTH], C factor, C (&sum)[WIDTH]) {
#pragma unroll
  for (int i = 0; i < WIDTH; ++i) {
    sum[i] += factor * addend[i];
  }
}

}  // namespace lite_detr::cuda
