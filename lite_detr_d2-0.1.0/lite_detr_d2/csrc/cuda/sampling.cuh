// Where a point lies among the tokens of its level, and the bilinear interpolation there.

#pragma once

#include "channels.cuh"

namespace lite_detr::cuda {

constexpr int MAX_LEVELS = 16;

struct Level {
  int height, width;
  int start;  // index of its first token
};

// The sizes of a call, passed to kernels by value: neither memory nor a copy to wait for. See Sizes in ../checks.h.
struct Problem {
  int images, tokens, heads, channels, queries, points, samples, level_count, reference_size;
  double scale;  // 1 / sqrt(D)
  Level levels[MAX_LEVELS];
};

// Addresses of the contiguous tensors of a call; null where there is no such tensor.
template <typename T>
struct Inputs {
  const T *query, *value, *key;
  const Compute<T>*reference, *offsets, *logits;
};

// One head of one query, to which a group of lanes attends.
struct Row {
  bool real;      // else a repetition of the last one, which writes nothing: a warp needs all of its lanes
  int64_t index;  // among all (image, query, head)
  int64_t query;  // among all (image, query)
  int64_t map;    // element offset of the map of its image and head
};

// A block is consecutive queries of one head, which sample about the same tokens: what one has fetched, the next finds
// in the nearest cache. Other heads read other channels of a token, which lie in other cache lines.
template <int LANES>
__device__ inline Row find_row(const Problem& problem, int image) {
  const unsigned heads = problem.heads, queries = problem.queries;
  const unsigned head = blockIdx.x % heads, given = blockIdx.x / heads * (blockDim.x / LANES) + threadIdx.x / LANES;
  const int64_t query = static_cast<int64_t>(image) * queries + (given < queries ? given : queries - 1);
  return {
      given < queries, query * heads + head, query,
      (static_cast<int64_t>(image) * problem.tokens * heads + head) * problem.channels};
}

// The location of a point, (x, y) = origin + step * offset in pixels; 0 is the centre of the first.
template <typename C>
struct Frame {
  C x, y, step_x, step_y;
};

template <typename C>
__device__ inline Frame<C> frame_of(const Problem& problem, const Level& level, const C* reference) {
  Frame<C> frame{reference[0] * level.width - C(0.5), reference[1] * level.height - C(0.5), 1, 1};
  if (problem.reference_size == 4) {
    frame.step_x = reference[2] * level.width / (2 * problem.points);
    frame.step_y = reference[3] * level.height / (2 * problem.points);
  }
  return frame;
}

// The four neighbours of a point: top left, top right, bottom left, bottom right.
template <typename C>
struct Neighbours {
  int offset[4];  // in elements from the map's start; -1 for one outside of the map, which counts as zeros
  // From the top left one to the point, in pixels. If all are outside: zeros, or NaN for a location that is not finite.
  C x, y;

  __device__ C weight(int neighbour) const {
    return (neighbour & 1 ? x : 1 - x) * (neighbour & 2 ? y : 1 - y);
  }

  // The interpolation of something known at the neighbours, and its derivatives.
  __device__ C interpolate(const C (&at)[4]) const {
    return (1 - y) * ((1 - x) * at[0] + x * at[1]) + y * ((1 - x) * at[2] + x * at[3]);
  }

  __device__ C by_x(const C (&at)[4]) const {
    return (1 - y) * (at[1] - at[0]) + y * (at[3] - at[2]);
  }

  __device__ C by_y(const C (&at)[4]) const {
    return (1 - x) * (at[2] - at[0]) + x * (at[3] - at[1]);
  }
};

template <typename T, typename C = Compute<T>>
__device__ inline const C* reference_of(const Problem& problem, const Inputs<T>& in, const Row& row, int level) {
  return in.reference + (row.query * problem.level_count + level) * problem.reference_size;
}

template <typename T, typename C = Compute<T>>
__device__ inline const C* offset_of(const Problem& problem, const Inputs<T>& in, const Row& row, int point) {
  return in.offsets + (row.index * problem.samples + point) * 2;
}

// `point` counts over (L, P). One beyond them has no neighbours.
template <typename T, typename C = Compute<T>>
__device__ inline Neighbours<C> locate(const Problem& problem, const Inputs<T>& in, const Row& row, int point) {
  Neighbours<C> at{{-1, -1, -1, -1}, 0, 0};
  if (point >= problem.samples) {
    return at;
  }
  const Level& level = problem.levels[point / problem.points];
  const int height = level.height, width = level.width;
  const Frame<C> frame = frame_of(problem, level, reference_of(problem, in, row, point / problem.points));
  const C* offset = offset_of(problem, in, row, point);
  const C x = frame.x + offset[0] * frame.step_x, y = frame.y + offset[1] * frame.step_y;
  at.x = at.y = 0 * x + 0 * y;
  // NaN fails the comparisons: only a point next to the map is converted to an index.
  if (x > -1 && x < width && y > -1 && y < height) {
    const C left = floor(x), top = floor(y);
    const int column = static_cast<int>(left), line = static_cast<int>(top);
    // Unsigned, as the top left neighbour may lie before the map. An image has fewer than 2^31 elements: see checks.h.
    const unsigned stride = static_cast<unsigned>(problem.heads) * problem.channels;
    const unsigned first = (level.start + line * width + column) * stride, next_line = width * stride;
    const bool has_left = column >= 0, has_right = column + 1 < width;
    const bool has_top = line >= 0, has_bottom = line + 1 < height;
    at.offset[0] = has_top && has_left ? static_cast<int>(first) : -1;
    at.offset[1] = has_top && has_right ? static_cast<int>(first + stride) : -1;
    at.offset[2] = has_bottom && has_left ? static_cast<int>(first + next_line) : -1;
    at.offset[3] = has_bottom && has_right ? static_cast<int>(first + next_line + stride) : -1;
    at.x = x - left;
    at.y = y - top;
  }
  return at;
}

// The neighbours of a point with their shares in a sum. The owner of the point computes them once for its group.
template <typename C>
struct Shares {
  int offset[4];
  C share[4];

  // `factor` is the weight of the point.
  __device__ Shares(const Neighbours<C>& at, C factor) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset[i] = at.offset[i];
      share[i] = factor * at.weight(i);
    }
  }
};

// What another lane located.
template <typename L, typename C>
__device__ inline Neighbours<C> from_lane(const L& lanes, const Neighbours<C>& own, int source) {
  Neighbours<C> at;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    at.offset[i] = lanes.from_lane(own.offset[i], source);
  }
  at.x = lanes.from_lane(own.x, source);
  at.y = lanes.from_lane(own.y, source);
  return at;
}

template <typename L, typename C>
__device__ inline Shares<C> from_lane(const L& lanes, Shares<C> own, int source) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    own.offset[i] = lanes.from_lane(own.offset[i], source);
    own.share[i] = lanes.from_lane(own.share[i], source);
  }
  return own;
}

// Where the map of a row starts, for this lane.
template <typename L, typename T>
__device__ inline T* map_of(const L& lanes, T* tensor, const Row& row) {
  T* start = lanes.own(tensor + row.map);
#if defined(__CUDA_ARCH__)
  // Else the compiler adds up the parts of this sum anew for each neighbour. It does not see any more that this is
  // global memory, which only its own atomic additions need to know.
  if constexpr (ADDS_VECTORS || std::is_const_v<T>) {
    asm("" : "+l"(start));
  }
#endif
  return start;
}

// The address of nothing for a neighbour outside of the map. Unsigned: an addition is one instruction.
template <typename T>
__device__ inline T* neighbour_of(T* map, int offset) {
  return map + static_cast<unsigned>(offset);
}

// sum += the map at the neighbours, by their shares
template <typename L, typename T, typename C>
__device__ inline void add_sample(const L& lanes, const T* map, const Shares<C>& at, int slice, C (&sum)[L::WIDTH]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    C neighbour[L::WIDTH];
    lanes.load(neighbour_of(map, at.offset[i]), slice, neighbour, at.offset[i] >= 0);
    add_scaled(neighbour, at.share[i], sum);
  }
}

// sample = the map at the neighbours, by their shares
template <typename L, typename T, typename C>
__device__ inline void take_sample(
    const L& lanes, const T* map, const Shares<C>& at, int slice, C (&sample)[L::WIDTH]) {
#pragma unroll
  for (int i = 0; i < L::WIDTH; ++i) {
    sample[i] = 0;
  }
  add_sample(lanes, map, at, slice, sample);
}

// The gradient of the map: shares the gradient of a sample out by weight.
template <typename L, typename C>
__device__ inline void spread(
    const L& lanes, C* map, const Neighbours<C>& at, int slice, const C (&grad_sample)[L::WIDTH]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (at.offset[i] >= 0) {
      C addend[L::WIDTH] = {};
      add_scaled(grad_sample, at.weight(i), addend);
      lanes.add(neighbour_of(map, at.offset[i]), slice, addend);
    }
  }
}

}  // namespace lite_detr::cuda
