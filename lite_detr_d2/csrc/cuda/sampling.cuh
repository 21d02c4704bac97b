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

// Heads are innermost, so that the groups of a warp read about the same tokens' memory.
template <int LANES>
__device__ inline Row find_row(const Problem& problem, int image) {
  const int rows = problem.queries * problem.heads;
  const int64_t given = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / LANES;
  const int row = static_cast<int>(given < rows ? given : rows - 1);
  const int head = row % problem.heads;
  return {
      given < rows, static_cast<int64_t>(image) * rows + row,
      static_cast<int64_t>(image) * problem.queries + row / problem.heads,
      (static_cast<int64_t>(image) * problem.tokens * problem.heads + head) * problem.channels};
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
  int token[4];  // -1 for one outside of the map, which counts as zeros
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
    const int token = level.start + line * width + column;
    const bool has_left = column >= 0, has_right = column + 1 < width;
    const bool has_top = line >= 0, has_bottom = line + 1 < height;
    at.token[0] = has_top && has_left ? token : -1;
    at.token[1] = has_top && has_right ? token + 1 : -1;
    at.token[2] = has_bottom && has_left ? token + width : -1;
    at.token[3] = has_bottom && has_right ? token + width + 1 : -1;
    at.x = x - left;
    at.y = y - top;
  }
  return at;
}

// What another lane located.
template <typename L, typename C>
__device__ inline Neighbours<C> from_lane(const L& lanes, const Neighbours<C>& own, int source) {
  Neighbours<C> at;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    at.token[i] = lanes.from_lane(own.token[i], source);
  }
  at.x = lanes.from_lane(own.x, source);
  at.y = lanes.from_lane(own.y, source);
  return at;
}

// A map is the address of the first channel of its token 0; consecutive tokens are M * D elements apart.
template <typename T>
struct Map {
  T* start;
  int stride;

  __device__ Map(T* tensor, const Problem& problem, const Row& row)
      : start(tensor + row.map), stride(problem.heads * problem.channels) {
  }

  __device__ T* at(int token) const {
    return start + static_cast<int64_t>(token) * stride;
  }
};

// sum += factor * (the map at the point)
template <typename L, typename T, typename C>
__device__ inline void add_sample(
    const L& lanes, const Map<const T>& map, const Neighbours<C>& at, C factor, int slice, C (&sum)[L::WIDTH]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    C neighbour[L::WIDTH];
    lanes.load(map.at(at.token[i]), slice, neighbour, at.token[i] >= 0);
    add_scaled(neighbour, factor * at.weight(i), sum);
  }
}

// The gradient of the map: shares the gradient of a sample out by weight.
template <typename L, typename C>
__device__ inline void spread(
    const L& lanes, const Map<C>& map, const Neighbours<C>& at, int slice, const C (&grad_sample)[L::WIDTH]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (at.token[i] >= 0) {
      C addend[L::WIDTH] = {};
      add_scaled(grad_sample, at.weight(i), addend);
      lanes.add(map.at(at.token[i]), slice, addend);
    }
  }
}

}  // namespace lite_detr::cuda
