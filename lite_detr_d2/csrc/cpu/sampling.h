// Bilinear sampling of the token map of one image and head, and its gradients.
//
// A map is the address of the first channel of its token 0; consecutive tokens are M * D elements apart.
// `Channels` is int64_t, or a std::integral_constant that lets the compiler unroll for that head dimension.

#pragma once

#include <algorithm>
#include <cstdint>

#include "../checks.h"

namespace lite_detr::cpu {

// Where the reference point lies in a level, and how far a unit of offset moves it, in pixels.
template <typename T>
struct Frame {
  T x, y, step_x, step_y;
};

template <typename T>
inline Frame<T> frame_of(const Sizes& sizes, const Level& level, const T* reference) {
  Frame<T> frame{reference[0] * level.width - T(0.5), reference[1] * level.height - T(0.5), 1, 1};
  if (sizes.reference_size == 4) {
    frame.step_x = reference[2] * level.width / (2 * sizes.points);
    frame.step_y = reference[3] * level.height / (2 * sizes.points);
  }
  return frame;
}

// The sampling points of a row, each among its four neighbours: top left, top right, bottom left, bottom right. Arrays
// over the L * P points, so that the arithmetic vectorises over points.
template <typename T>
struct SamplingPoints {
  int64_t stride;  // elements between tokens
  // Of the point's level.
  std::vector<T> width, height;
  std::vector<int32_t> columns, rows, start;
  // Of the point. A neighbour outside of the map has weight 0, and the nearest token in it as a stand-in.
  std::vector<T> x, y;  // pixels; 0 is the centre of the first
  std::vector<int32_t> inside;  // whether any neighbour is
  std::vector<T> outside_value;  // sampled if none is: 0, or NaN for a location that is not finite
  std::vector<int32_t> neighbour[4];
  std::vector<T> weight[4], weight_by_x[4], weight_by_y[4];  // and derivatives

  explicit SamplingPoints(const Sizes& sizes) : stride(sizes.heads * sizes.channels) {
    for (const Level& level : sizes.levels) {
      width.insert(width.end(), sizes.points, static_cast<T>(level.width));
      height.insert(height.end(), sizes.points, static_cast<T>(level.height));
      columns.insert(columns.end(), sizes.points, static_cast<int32_t>(level.width));
      rows.insert(rows.end(), sizes.points, static_cast<int32_t>(level.height));
      start.insert(start.end(), sizes.points, static_cast<int32_t>(level.start));
    }
    for (std::vector<T>* array : {&x, &y, &outside_value}) {
      array->resize(sizes.samples());
    }
    inside.resize(sizes.samples());
    for (int i = 0; i < 4; ++i) {
      neighbour[i].resize(sizes.samples());
      weight[i].resize(sizes.samples());
      weight_by_x[i].resize(sizes.samples());
      weight_by_y[i].resize(sizes.samples());
    }
  }

  int64_t offset(int64_t point, int i) const {
    return neighbour[i][point] * stride;
  }
};

// Finds the sampling points of a row. `references` (N, Q, L, 2 or 4) and `offsets` (N, Q, M, L, P, 2) are the whole
// tensors; `query` counts over (N, Q), `row` over (N, Q, M).
template <typename T>
inline void locate(
    const Sizes& sizes, const T* references, const T* offsets, int64_t query, int64_t row, SamplingPoints<T>& at) {
  const T* reference = references + query * sizes.coordinates();
  offsets += row * sizes.samples() * 2;
  int64_t first = 0;
  for (const Level& level : sizes.levels) {
    const Frame<T> frame = frame_of(sizes, level, reference);
    for (int64_t i = first; i < first + sizes.points; ++i) {
      at.x[i] = frame.x + offsets[2 * i] * frame.step_x;
      at.y[i] = frame.y + offsets[2 * i + 1] * frame.step_y;
    }
    first += sizes.points;
    reference += sizes.reference_size;
  }

  const int64_t count = sizes.samples();
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const T given_x = at.x[i], given_y = at.y[i], width = at.width[i], height = at.height[i];
    const int32_t columns = at.columns[i], rows = at.rows[i], start = at.start[i];
    // NaN fails the comparisons: only a point next to the map is converted to an index. No `&&`: no branches.
    const bool inside = (given_x > -1) & (given_x < width) & (given_y > -1) & (given_y < height);
    const T x = inside ? given_x : T(0), y = inside ? given_y : T(0), one = inside ? T(1) : T(0);
    const int32_t column = static_cast<int32_t>(x) - (x < 0 ? 1 : 0);  // of the left neighbours: the floor, as x > -1
    const int32_t row_above = static_cast<int32_t>(y) - (y < 0 ? 1 : 0);
    const T has_left = column >= 0 ? one : T(0), has_right = column + 1 < columns ? one : T(0);
    const T has_top = row_above >= 0 ? one : T(0), has_bottom = row_above + 1 < rows ? one : T(0);
    const T right = (x - column) * has_right, left = (1 - (x - column)) * has_left;
    const T bottom = (y - row_above) * has_bottom, top = (1 - (y - row_above)) * has_top;
    const int32_t left_column = column < 0 ? 0 : column, right_column = column + 1 < columns ? column + 1 : column;
    const int32_t top_start = start + (row_above < 0 ? 0 : row_above) * columns;
    const int32_t bottom_start = start + (row_above + 1 < rows ? row_above + 1 : row_above) * columns;
    at.inside[i] = inside ? 1 : 0;
    at.outside_value[i] = 0 * given_x + 0 * given_y;
    at.neighbour[0][i] = top_start + left_column;
    at.neighbour[1][i] = top_start + right_column;
    at.neighbour[2][i] = bottom_start + left_column;
    at.neighbour[3][i] = bottom_start + right_column;
    at.weight[0][i] = top * left;
    at.weight[1][i] = top * right;
    at.weight[2][i] = bottom * left;
    at.weight[3][i] = bottom * right;
    at.weight_by_x[0][i] = -top * has_left;
    at.weight_by_x[1][i] = top * has_right;
    at.weight_by_x[2][i] = -bottom * has_left;
    at.weight_by_x[3][i] = bottom * has_right;
    at.weight_by_y[0][i] = -left * has_top;
    at.weight_by_y[1][i] = -right * has_top;
    at.weight_by_y[2][i] = left * has_bottom;
    at.weight_by_y[3][i] = right * has_bottom;
  }
}

// The gradient with respect to a location, from the dot products of the four neighbours with the gradient of the
// sample. Where no neighbour is inside, the sample is constant, or NaN.
template <typename T>
struct Slope {
  T x, y;
};

template <typename T>
inline Slope<T> slope_at(const SamplingPoints<T>& at, int64_t point, const T* dots) {
  Slope<T> slope{at.outside_value[point], at.outside_value[point]};
  for (int i = 0; i < 4; ++i) {
    slope.x += at.weight_by_x[i][point] * dots[i];
    slope.y += at.weight_by_y[i][point] * dots[i];
  }
  return slope;
}

// Takes the slopes of the L * P points of a row to its offsets and, unless null, to its share (N, Q, M, L, 2 or 4) of
// the gradient of the reference points.
template <typename T>
inline void locate_backward(
    const Sizes& sizes,
    const T* references,
    const T* offsets,
    int64_t query,
    int64_t row,
    const Slope<T>* slopes,
    T* grad_offsets,
    T* grad_reference) {
  const T* reference = references + query * sizes.coordinates();
  offsets += row * sizes.samples() * 2;
  grad_offsets += row * sizes.samples() * 2;
  if (grad_reference) {
    grad_reference += row * sizes.coordinates();
  }
  for (const Level& level : sizes.levels) {
    const Frame<T> frame = frame_of(sizes, level, reference);
    Slope<T> shift{0, 0}, stretch{0, 0};
    for (int64_t point = 0; point < sizes.points; ++point, offsets += 2, grad_offsets += 2, ++slopes) {
      grad_offsets[0] = slopes->x * frame.step_x;
      grad_offsets[1] = slopes->y * frame.step_y;
      shift.x += slopes->x;
      shift.y += slopes->y;
      stretch.x += slopes->x * offsets[0];
      stretch.y += slopes->y * offsets[1];
    }
    if (grad_reference) {
      grad_reference[0] = shift.x * level.width;
      grad_reference[1] = shift.y * level.height;
      if (sizes.reference_size == 4) {
        grad_reference[2] = stretch.x * level.width / (2 * sizes.points);
        grad_reference[3] = stretch.y * level.height / (2 * sizes.points);
      }
      grad_reference += sizes.reference_size;
    }
    reference += sizes.reference_size;
  }
}

template <typename T, typename Channels>
inline T dot(const T* a, const T* b, Channels channels) {
  const int64_t count = channels;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < count; ++d) {
    sum += a[d] * b[d];
  }
  return sum;
}

// sum += factor * vector
template <typename T, typename Channels>
inline void add_scaled(const T* vector, T factor, Channels channels, T* __restrict sum) {
  const int64_t count = channels;
#pragma omp simd
  for (int64_t d = 0; d < count; ++d) {
    sum[d] += factor * vector[d];
  }
}

// sum += factor * (the map at the point)
template <typename T, typename Channels>
inline void add_sample(
    const T* map, const SamplingPoints<T>& at, int64_t point, T factor, Channels channels, T* __restrict sum) {
  const int64_t count = channels;
  if (!at.inside[point]) {
    if (at.outside_value[point] != 0) {
      std::fill_n(sum, count, at.outside_value[point]);
    }
    return;
  }
  const T *first = map + at.offset(point, 0), *second = map + at.offset(point, 1);
  const T *third = map + at.offset(point, 2), *fourth = map + at.offset(point, 3);
  const T weight[] = {
      factor * at.weight[0][point], factor * at.weight[1][point], factor * at.weight[2][point],
      factor * at.weight[3][point]};
#pragma omp simd
  for (int64_t d = 0; d < count; ++d) {
    sum[d] += weight[0] * first[d] + weight[1] * second[d] + weight[2] * third[d] + weight[3] * fourth[d];
  }
}

// dots[i] = <vector, neighbour i>; returns <vector, sample>.
template <typename T, typename Channels>
inline T dot_neighbours(
    const T* map, const SamplingPoints<T>& at, int64_t point, const T* vector, Channels channels, T* dots) {
  if (!at.inside[point]) {
    std::fill_n(dots, 4, T(0));
    return at.outside_value[point];
  }
  const int64_t count = channels;
  const T *first = map + at.offset(point, 0), *second = map + at.offset(point, 1);
  const T *third = map + at.offset(point, 2), *fourth = map + at.offset(point, 3);
  T dot_first = 0, dot_second = 0, dot_third = 0, dot_fourth = 0;
#pragma omp simd reduction(+ : dot_first, dot_second, dot_third, dot_fourth)
  for (int64_t d = 0; d < count; ++d) {
    dot_first += vector[d] * first[d];
    dot_second += vector[d] * second[d];
    dot_third += vector[d] * third[d];
    dot_fourth += vector[d] * fourth[d];
  }
  dots[0] = dot_first;
  dots[1] = dot_second;
  dots[2] = dot_third;
  dots[3] = dot_fourth;
  return at.weight[0][point] * dot_first + at.weight[1][point] * dot_second + at.weight[2][point] * dot_third +
      at.weight[3][point] * dot_fourth;
}

// The gradient of the map: grad_map at the point += factor * grad_sample, shared out by weight.
template <typename T, typename Channels>
inline void spread(
    T* grad_map,
    const SamplingPoints<T>& at,
    int64_t point,
    T factor,
    const T* __restrict grad_sample,
    Channels channels) {
  if (!at.inside[point]) {
    return;
  }
  for (int i = 0; i < 4; ++i) {
    add_scaled(grad_sample, factor * at.weight[i][point], channels, grad_map + at.offset(point, i));
  }
}

}  // namespace lite_detr::cpu
