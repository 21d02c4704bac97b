// Bilinear sampling of the token map of one image and head, and its gradients, for the L * P points of a row.
//
// A map is the address of the first channel of its token 0; consecutive tokens are `stride` elements apart. A row is one
// head of one query. Arithmetic on points is vectorised over points, arithmetic on channels over channels.

#pragma once

#include "storage.h"

namespace lite_detr::cpu::LITE_DETR_ISA {

// Of one row. Arrays over the points, padded to whole vectors. The four neighbours of a point are top left, top right,
// bottom left, bottom right. One that is outside of the map has weight 0, and another token stands in for it.
template <typename T>
struct Points {
  int64_t samples, padded;
  T *width, *height;  // of the point's level; 0 for padding, so that nothing is inside
  Index<T> *columns, *last_row, *start;
  T *reference_x, *reference_y, *step_x, *step_y;  // of the level: in pixels, and pixels per unit of offset
  T *x, *y;  // pixels; 0 is the centre of the first
  T* outside_value;  // sampled where no neighbour is inside: 0, or NaN for a location that is not finite
  Index<T>* neighbour[4];  // the offset of its first channel in the map
  T* weight[4];
  T *left, *right, *top, *bottom, *has_left, *has_right, *has_top, *has_bottom;  // weight[1] = top * right
  T* offsets;  // the tail of a row's offsets, padded
  bool any_inside, all_inside;
  Buffer<T> memory;

  explicit Points(const Call& call)
      : samples(call.level_count * call.points),
        padded((samples + kLanes<T> - 1) / kLanes<T> * kLanes<T>) {
    memory.allocate(padded * 32);
    T* next = memory.get();
    const auto take = [&]<typename Element>(Element*& array, int64_t count) {
      array = reinterpret_cast<Element*>(next);
      next += count;
    };
    std::memset(next, 0, padded * 32 * sizeof(T));
    for (T** array : {&width,  &height, &reference_x, &reference_y, &step_x,   &step_y,    &x,       &y,
                      &left,   &right,  &top,         &bottom,      &has_left, &has_right, &has_top, &has_bottom,
                      &weight[0], &weight[1], &weight[2], &weight[3], &outside_value}) {
      take(*array, padded);
    }
    for (Index<T>** array : {&columns, &last_row, &start, &neighbour[0], &neighbour[1], &neighbour[2], &neighbour[3]}) {
      take(*array, padded);
    }
    take(offsets, 2 * padded);
    for (int64_t i = 0; i < samples; ++i) {
      const Level& level = call.levels[i / call.points];
      width[i] = static_cast<T>(level.width);
      height[i] = static_cast<T>(level.height);
      columns[i] = static_cast<Index<T>>(level.width);
      last_row[i] = static_cast<Index<T>>(level.height - 1);
      start[i] = static_cast<Index<T>>(level.start);
    }
  }
};

// Spreads the reference points of a query, (L, 2 or 4), over the points of each level.
template <typename T>
LITE_DETR_INLINE void place_references(const Call& call, const T* reference, Points<T>& at) {
  int64_t i = 0;
  for (int64_t j = 0; j < call.level_count; ++j, reference += call.reference_size) {
    const T x = reference[0] * at.width[i] - T(0.5), y = reference[1] * at.height[i] - T(0.5);
    const int64_t end = i + call.points;
    if (call.reference_size == 4) {
      const T step_x = reference[2] * at.width[i] / static_cast<T>(2 * call.points);
      const T step_y = reference[3] * at.height[i] / static_cast<T>(2 * call.points);
      for (int64_t k = i; k < end; ++k) {
        at.step_x[k] = step_x;
        at.step_y[k] = step_y;
      }
    }
    for (; i < end; ++i) {
      at.reference_x[i] = x;
      at.reference_y[i] = y;
    }
  }
}

// x and y of kLanes points, from (x, y) pairs.
LITE_DETR_INLINE void unzip(const float* pairs, Vec<float>& x, Vec<float>& y) {
  const auto first = load<Vec<float>>(pairs), second = load<Vec<float>>(pairs + kLanes<float>);
  constexpr auto lanes = std::make_integer_sequence<int, kLanes<float>>();
  x = blocks<1, kLanes<float>, 0>(first, second, lanes);
  y = blocks<1, kLanes<float>, 1>(first, second, lanes);
}
LITE_DETR_INLINE void unzip(const double* pairs, double& x, double& y) {
  x = pairs[0];
  y = pairs[1];
}

// Lets the neighbours of one point inside stand in for those of the points outside, so that these read no other token.
template <typename T>
inline __attribute__((noinline)) void stand_in(Points<T>& at) {
  const auto is_inside = [&](int64_t i) { return at.has_left[i] + at.has_right[i] > 0; };
  int64_t inside = 0;
  while (!is_inside(inside)) {
    ++inside;
  }
  for (int64_t i = 0; i < at.samples; ++i) {
    if (!is_inside(i)) {
      for (auto* neighbour : at.neighbour) {
        neighbour[i] = neighbour[inside];
      }
    }
  }
}

// Finds the sampling points of a row from its offsets, (L * P, 2).
template <typename T>
LITE_DETR_INLINE void locate(const Call& call, const T* offsets, int64_t stride, Points<T>& at) {
  using V = Vec<T>;
  using I = IndexVec<T>;
  if (at.samples != at.padded) {
    std::memcpy(at.offsets, offsets, 2 * at.samples * sizeof(T));
    offsets = at.offsets;
  }
  const V one = splat<V>(T(1)), none = splat<V>(T(0));
  const I next = splat<I>(Index<T>(1)), zero = splat<I>(Index<T>(0));
  V inside_count = none;
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    V x, y;
    unzip(offsets + 2 * i, x, y);
    if (call.reference_size == 4) {
      x *= load<V>(at.step_x + i);
      y *= load<V>(at.step_y + i);
    }
    x += load<V>(at.reference_x + i);
    y += load<V>(at.reference_y + i);
    // 0 times infinity, or NaN, is NaN.
    store(at.outside_value + i, x * T(0) + y * T(0));
    // NaN fails the comparisons: only a point next to the map is converted to an index.
    const auto inside = (x > T(-1)) & (x < load<V>(at.width + i)) & (y > T(-1)) & (y < load<V>(at.height + i));
    x = inside ? x : none;
    y = inside ? y : none;
    const V is_inside = inside ? one : none;
    inside_count += is_inside;
    // The floors, as both are above -1.
    const I column = truncate(x) - (x < T(0) ? next : zero), row = truncate(y) - (y < T(0) ? next : zero);
    const V right = x - to_real(column), bottom = y - to_real(row);
    const I columns = load<I>(at.columns + i), last_column = columns - next, last_row = load<I>(at.last_row + i);
    const V has_left = column >= zero ? is_inside : none, has_right = column < last_column ? is_inside : none;
    const V has_top = row >= zero ? is_inside : none, has_bottom = row < last_row ? is_inside : none;
    const I left_column = column < zero ? zero : column;
    const I right_column = column < last_column ? column + next : column;
    const I start = load<I>(at.start + i);
    const I top_row = start + (row < zero ? zero : row) * columns;
    const I bottom_row = start + (row < last_row ? row + next : row) * columns;
    const auto elements = static_cast<Index<T>>(stride);
    store(at.neighbour[0] + i, (top_row + left_column) * elements);
    store(at.neighbour[1] + i, (top_row + right_column) * elements);
    store(at.neighbour[2] + i, (bottom_row + left_column) * elements);
    store(at.neighbour[3] + i, (bottom_row + right_column) * elements);
    const V left_weight = (one - right) * has_left, right_weight = right * has_right;
    const V top_weight = (one - bottom) * has_top, bottom_weight = bottom * has_bottom;
    store(at.weight[0] + i, top_weight * left_weight);
    store(at.weight[1] + i, top_weight * right_weight);
    store(at.weight[2] + i, bottom_weight * left_weight);
    store(at.weight[3] + i, bottom_weight * right_weight);
    store(at.left + i, left_weight);
    store(at.right + i, right_weight);
    store(at.top + i, top_weight);
    store(at.bottom + i, bottom_weight);
    store(at.has_left + i, has_left);
    store(at.has_right + i, has_right);
    store(at.has_top + i, has_top);
    store(at.has_bottom + i, has_bottom);
  }
  const auto count = static_cast<int64_t>(sum_of_lanes(inside_count));
  at.all_inside = count == at.samples;
  at.any_inside = count != 0;
  if (!at.all_inside && at.any_inside) {
    stand_in(at);
  }
}

// What the points outside sample in all: 0, or NaN.
template <typename T>
LITE_DETR_INLINE T sum_outside(const Points<T>& at) {
  T sum = 0;
  for (int64_t i = 0; i < at.samples; ++i) {
    sum += at.outside_value[i];
  }
  return sum;
}

// --- Channels. `kChannels` is the number of channels where it is known when compiled, or else 0. Then blocks of one vector
// are taken in turn, and single channels at the end.

template <typename V, int kVecs>
struct Block {};

template <typename T, int kChannels, typename Body>
LITE_DETR_INLINE void for_each_block(int64_t channels, const Body& body) {
  if constexpr (kChannels > 0) {
    static_assert(kChannels % kLanes<T> == 0);
    body(Block<Vec<T>, kChannels / kLanes<T>>(), 0);
  } else {
    int64_t channel = 0;
    for (; channel + kLanes<T> <= channels; channel += kLanes<T>) {
      body(Block<Vec<T>, 1>(), channel);
    }
    for (; channel < channels; ++channel) {
      body(Block<T, 1>(), channel);
    }
  }
}

template <typename V, typename T>
constexpr int kLanesOf = sizeof(V) / sizeof(T);

// result = the sum of the map at the points, with `weight` of their neighbours; NaN if a location is not finite.
template <typename T, int kChannels>
LITE_DETR_INLINE void gather(
    const T* map, const Points<T>& at, T* const* weight, int64_t channels, T* result) {
  const T outside = at.all_inside ? T(0) : sum_outside(at);
  const int64_t samples = at.any_inside ? at.samples : 0;
  for_each_block<T, kChannels>(channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel)
                                             __attribute__((always_inline)) {
    constexpr int lanes = kLanesOf<V, T>;
    V sum[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      sum[v] = splat<V>(outside);
    }
    for (int64_t i = 0; i < samples; ++i) {
      for (int j = 0; j < 4; ++j) {
        const T* neighbour = map + at.neighbour[j][i] + channel;
        for (int v = 0; v < kVecs; ++v) {
          sum[v] += weight[j][i] * load<V>(neighbour + v * lanes);
        }
      }
    }
    for (int v = 0; v < kVecs; ++v) {
      store(result + channel + v * lanes, sum[v]);
    }
  });
}

// samples[i] = the map at point i, dots[i] = <vector, samples[i]>. Of `dots`, padding is 0.
template <typename T, int kChannels>
LITE_DETR_INLINE void gather_each(
    const T* map, const Points<T>& at, const T* vector, int64_t channels, T* samples, T* dots) {
  std::memset(dots, 0, at.padded * sizeof(T));
  if (!at.any_inside) {
    std::memset(samples, 0, at.samples * channels * sizeof(T));
    return;
  }
  for_each_block<T, kChannels>(channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel)
                                             __attribute__((always_inline)) {
    constexpr int lanes = kLanesOf<V, T>;
    V factor[kVecs];
    for (int v = 0; v < kVecs; ++v) {
      factor[v] = load<V>(vector + channel + v * lanes);
    }
    for (int64_t first = 0; first < at.samples; first += lanes) {
      V products[lanes] = {};
      const int64_t end = at.samples - first < lanes ? at.samples - first : lanes;
      for (int64_t k = 0; k < end; ++k) {
        const int64_t i = first + k;
        V sample[kVecs] = {};
        for (int j = 0; j < 4; ++j) {
          const T* neighbour = map + at.neighbour[j][i] + channel;
          for (int v = 0; v < kVecs; ++v) {
            sample[v] += at.weight[j][i] * load<V>(neighbour + v * lanes);
          }
        }
        for (int v = 0; v < kVecs; ++v) {
          store(samples + i * channels + channel + v * lanes, sample[v]);
          products[k] += factor[v] * sample[v];
        }
      }
      store(dots + first, load<V>(dots + first) + sum_rows(products));
    }
  });
}

// dots[k][j][i] = <vectors[k], neighbour j of point i>. Padding is 0.
template <typename T, int kChannels, int kVectors>
LITE_DETR_INLINE void dot_neighbours(
    const T* map, const Points<T>& at, const T* const (&vectors)[kVectors], int64_t channels, T* dots) {
  std::memset(dots, 0, kVectors * 4 * at.padded * sizeof(T));
  if (!at.any_inside) {
    return;
  }
  for_each_block<T, kChannels>(channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel)
                                             __attribute__((always_inline)) {
    constexpr int lanes = kLanesOf<V, T>;
    V factor[kVectors][kVecs];
    for (int k = 0; k < kVectors; ++k) {
      for (int v = 0; v < kVecs; ++v) {
        factor[k][v] = load<V>(vectors[k] + channel + v * lanes);
      }
    }
    for (int64_t first = 0; first < at.samples; first += lanes) {
      V products[kVectors * 4][lanes];
      const int64_t end = at.samples - first < lanes ? at.samples - first : lanes;
      for (int64_t i = 0; i < end; ++i) {
        for (int j = 0; j < 4; ++j) {
          const T* neighbour = map + at.neighbour[j][first + i] + channel;
          V product[kVectors] = {};
          for (int v = 0; v < kVecs; ++v) {
            const V values = load<V>(neighbour + v * lanes);
            for (int k = 0; k < kVectors; ++k) {
              product[k] += factor[k][v] * values;
            }
          }
          for (int k = 0; k < kVectors; ++k) {
            products[k * 4 + j][i] = product[k];
          }
        }
      }
      for (int j = 0; j < kVectors * 4; ++j) {
        for (int64_t i = end; i < lanes; ++i) {
          products[j][i] = V{};
        }
        T* sums = dots + j * at.padded + first;
        store(sums, load<V>(sums) + sum_rows(products[j]));
      }
    }
  });
}

// The gradient of the map: at the neighbours of point i, grad_map += weight * sum over k of factors[k][i] * vectors[k].
// Without factors, of which a sole vector has no need, they are 1.
template <typename T, int kChannels, int kVectors>
LITE_DETR_INLINE void spread(
    T* grad_map,
    const Points<T>& at,
    T* const* weight,
    const T* const (&factors)[kVectors],
    const T* const (&vectors)[kVectors],
    int64_t channels) {
  if (!at.any_inside) {
    return;
  }
  for_each_block<T, kChannels>(channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel)
                                             __attribute__((always_inline)) {
    constexpr int lanes = kLanesOf<V, T>;
    V vector[kVectors][kVecs];
    for (int k = 0; k < kVectors; ++k) {
      for (int v = 0; v < kVecs; ++v) {
        vector[k][v] = load<V>(vectors[k] + channel + v * lanes);
      }
    }
    for (int64_t i = 0; i < at.samples; ++i) {
      V grad_sample[kVecs];
      for (int v = 0; v < kVecs; ++v) {
        grad_sample[v] = vector[0][v];
        if constexpr (kVectors == 2) {
          grad_sample[v] = factors[0][i] * vector[0][v] + factors[1][i] * vector[1][v];
        }
      }
      for (int j = 0; j < 4; ++j) {
        T* neighbour = grad_map + at.neighbour[j][i] + channel;
        for (int v = 0; v < kVecs; ++v) {
          store(neighbour + v * lanes, load<V>(neighbour + v * lanes) + weight[j][i] * grad_sample[v]);
        }
      }
    }
  });
}

// --- Gradients of the locations.

// Takes dots (4 arrays), the products of the points' neighbours with the gradients of their samples, to the offsets'
// gradient, (L * P, 2), and the reference points' share, (L, 2 or 4), each unless null. `slopes` is memory for 2 arrays.
template <typename T>
LITE_DETR_INLINE void locate_backward(
    const Call& call,
    const Points<T>& at,
    const T* dots,
    const T* offsets,
    T* slopes,
    T* grad_offsets,
    T* grad_reference) {
  using V = Vec<T>;
  T *slopes_x = slopes, *slopes_y = slopes + at.padded;
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    const auto dot = [&](int j) __attribute__((always_inline)) { return load<V>(dots + j * at.padded + i); };
    const V has_left = load<V>(at.has_left + i), has_right = load<V>(at.has_right + i);
    const V has_top = load<V>(at.has_top + i), has_bottom = load<V>(at.has_bottom + i);
    const V nan = load<V>(at.outside_value + i);
    store(slopes_x + i, nan + load<V>(at.top + i) * (has_right * dot(1) - has_left * dot(0)) +
        load<V>(at.bottom + i) * (has_right * dot(3) - has_left * dot(2)));
    store(slopes_y + i, nan + load<V>(at.left + i) * (has_bottom * dot(2) - has_top * dot(0)) +
        load<V>(at.right + i) * (has_bottom * dot(3) - has_top * dot(1)));
  }
  if (grad_offsets) {
    const bool boxes = call.reference_size == 4;
    for (int64_t i = 0; i < at.samples; ++i) {
      grad_offsets[2 * i] = slopes_x[i] * (boxes ? at.step_x[i] : T(1));
      grad_offsets[2 * i + 1] = slopes_y[i] * (boxes ? at.step_y[i] : T(1));
    }
  }
  if (grad_reference) {
    for (int64_t first = 0; first < at.samples; first += call.points, grad_reference += call.reference_size) {
      T shift_x = 0, shift_y = 0, stretch_x = 0, stretch_y = 0;
      for (int64_t i = first; i < first + call.points; ++i) {
        shift_x += slopes_x[i];
        shift_y += slopes_y[i];
        stretch_x += slopes_x[i] * offsets[2 * i];
        stretch_y += slopes_y[i] * offsets[2 * i + 1];
      }
      grad_reference[0] = shift_x * at.width[first];
      grad_reference[1] = shift_y * at.height[first];
      if (call.reference_size == 4) {
        grad_reference[2] = stretch_x * at.width[first] / static_cast<T>(2 * call.points);
        grad_reference[3] = stretch_y * at.height[first] / static_cast<T>(2 * call.points);
      }
    }
  }
}

}  // namespace lite_detr::cpu::LITE_DETR_ISA
