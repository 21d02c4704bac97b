// Bilinear sampling of the token map of one image and head, and its gradients, for the L * P points of a row.
//
// A map is the address of the first channel of its token 0; consecutive tokens are `stride` elements apart. A row is
// one head of one query. Arithmetic on points is vectorised over points, arithmetic on channels over channels.

#pragma once

#include "storage.h"

namespace lite_detr::cpu::LITE_DETR_ISA {

// Where the reference point of each point's level is, in pixels (0 is the centre of the first), and pixels per unit of
// offset. Arrays over the points of a row, padded to whole vectors.
template <typename T>
struct Frame {
  T *x, *y, *step_x, *step_y;
};

// To whole vectors.
template <typename T>
LITE_DETR_INLINE int64_t round_up(int64_t count) {
  return (count + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// Of one row. Arrays over the points, padded to whole vectors. The four neighbours of a point are top left, top right,
// bottom left, bottom right. One that is outside of the map has weight 0, and another token stands in for it.
template <typename T>
struct Points {
  int64_t samples, padded;
  T *width, *height;  // of the point's level; 0 for padding, so that nothing is inside
  Index<T>*columns, *last_row, *start;
  T* outside_value;        // sampled where no neighbour is inside: 0, or NaN for a location that is not finite
  Index<T>* neighbour[4];  // the offset of its first channel in the map
  T* weight[4];
  T *left, *right, *top, *bottom, *has_left, *has_right, *has_top, *has_bottom;  // weight[1] = top * right
  T* offsets;                                                                    // a copy of the row's, padded
  bool any_inside, all_inside;
  const Frame<T>* frame;
  Buffer<T> memory;

  explicit Points(const Call& call) : samples(call.level_count * call.points), padded(round_up<T>(samples)) {
    memory.allocate(padded * 24);
    T* next = memory.get();
    const auto take = [&]<typename Element>(Element*& array, int64_t count) {
      array = reinterpret_cast<Element*>(next);
      next += count;
    };
    std::memset(next, 0, padded * 24 * sizeof(T));
    T** const reals[] = {&width, &height, &outside_value, &weight[0], &weight[1], &weight[2], &weight[3], &left,
                         &right, &top,    &bottom,        &has_left,  &has_right, &has_top,   &has_bottom};
    for (T** array : reals) {
      take(*array, padded);
    }
    Index<T>** const indices[] = {&columns,      &last_row,     &start,       &neighbour[0],
                                  &neighbour[1], &neighbour[2], &neighbour[3]};
    for (Index<T>** array : indices) {
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
LITE_DETR_INLINE void place_references(
    const Call& call, const Points<T>& at, const T* reference, const Frame<T>& frame) {
  int64_t i = 0;
  for (int64_t j = 0; j < call.level_count; ++j, reference += call.reference_size) {
    const T x = reference[0] * at.width[i] - T(0.5), y = reference[1] * at.height[i] - T(0.5);
    const int64_t end = i + call.points;
    if (call.reference_size == 4) {
      const T step_x = reference[2] * at.width[i] / static_cast<T>(2 * call.points);
      const T step_y = reference[3] * at.height[i] / static_cast<T>(2 * call.points);
      for (int64_t k = i; k < end; ++k) {
        frame.step_x[k] = step_x;
        frame.step_y[k] = step_y;
      }
    }
    for (; i < end; ++i) {
      frame.x[i] = x;
      frame.y[i] = y;
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

LITE_DETR_INLINE void zip(Vec<float> x, Vec<float> y, float* pairs) {
  constexpr auto lanes = std::make_integer_sequence<int, kLanes<float>>();
  store(pairs, alternate<0>(x, y, lanes));
  store(pairs + kLanes<float>, alternate<kLanes<float> / 2>(x, y, lanes));
}
LITE_DETR_INLINE void zip(double x, double y, double* pairs) {
  pairs[0] = x;
  pairs[1] = y;
}

// Lets a neighbour of a point inside stand in for those of the points outside, so that these read no other token.
template <typename T>
LITE_DETR_INLINE void stand_in(Points<T>& at) {
  using I = IndexVec<T>;
  I inside = splat<I>(Index<T>(-1));
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    const I neighbour = load<I>(at.neighbour[0] + i);
    inside = neighbour > inside ? neighbour : inside;
  }
  inside = splat<I>(largest_lane(inside));
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    for (auto* neighbour : at.neighbour) {
      const I own = load<I>(neighbour + i);
      store(neighbour + i, own < splat<I>(Index<T>(0)) ? inside : own);
    }
  }
}

// Finds the sampling points of a row from its offsets, (L * P, 2).
template <typename T, bool kBackward>
LITE_DETR_INLINE void locate(const Call& call, const T* offsets, int64_t stride, Points<T>& at) {
  const Frame<T>& frame = *at.frame;
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
      x *= load<V>(frame.step_x + i);
      y *= load<V>(frame.step_y + i);
    }
    x += load<V>(frame.x + i);
    y += load<V>(frame.y + i);
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
    const I outside = splat<I>(Index<T>(-1));  // for stand_in
    store(at.neighbour[0] + i, inside ? (top_row + left_column) * elements : outside);
    store(at.neighbour[1] + i, inside ? (top_row + right_column) * elements : outside);
    store(at.neighbour[2] + i, inside ? (bottom_row + left_column) * elements : outside);
    store(at.neighbour[3] + i, inside ? (bottom_row + right_column) * elements : outside);
    const V left_weight = (one - right) * has_left, right_weight = right * has_right;
    const V top_weight = (one - bottom) * has_top, bottom_weight = bottom * has_bottom;
    store(at.weight[0] + i, top_weight * left_weight);
    store(at.weight[1] + i, top_weight * right_weight);
    store(at.weight[2] + i, bottom_weight * left_weight);
    store(at.weight[3] + i, bottom_weight * right_weight);
    if constexpr (kBackward) {
      store(at.left + i, left_weight);
      store(at.right + i, right_weight);
      store(at.top + i, top_weight);
      store(at.bottom + i, bottom_weight);
      store(at.has_left + i, has_left);
      store(at.has_right + i, has_right);
      store(at.has_top + i, has_top);
      store(at.has_bottom + i, has_bottom);
    }
  }
  const auto count = static_cast<int64_t>(sum_of_lanes(inside_count));
  at.all_inside = count == at.samples;
  at.any_inside = count != 0;
  if (!at.all_inside && at.any_inside) {
    stand_in(at);
  }
}

// The product of a vector with zeros: 0, or NaN where the vector is not finite.
template <typename T>
LITE_DETR_INLINE T dot_zeros(const T* vector, int64_t channels) {
  T sum = 0;
  for (int64_t channel = 0; channel < channels; ++channel) {
    sum += vector[channel] * 0;
  }
  return sum;
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

// Addresses of four arrays, one per neighbour, as values of their own: stores through other pointers, which might
// otherwise change them, do not make the compiler read them again.
template <typename Element>
struct PerNeighbour {
  Element *first, *second, *third, *fourth;

  LITE_DETR_INLINE explicit PerNeighbour(Element* const* arrays)
      : first(arrays[0]), second(arrays[1]), third(arrays[2]), fourth(arrays[3]) {
  }

  LITE_DETR_INLINE Element* operator[](int j) const {
    return j == 0 ? first : j == 1 ? second : j == 2 ? third : fourth;
  }
};

// Lane i of the result is the sum of the lanes of product(i).
template <typename V, typename Product>
LITE_DETR_INLINE V sums_of_lanes(const Product& product) {
  if constexpr (std::is_arithmetic_v<V>) {
    return product(0);
  } else {
    V quarters[kLanes<float> / 4];
    for (int i = 0; i < kLanes<float>; i += 4) {
      const V a = product(i), b = product(i + 1), c = product(i + 2), d = product(i + 3);
      quarters[i / 4] = fold_lanes(a, b, c, d);
    }
    return fold_quarters(quarters);
  }
}

// Lane i of sums[j] is the sum of the lanes of products[j] that multiply(i, products) gives.
template <typename V, typename Multiply>
LITE_DETR_INLINE void sums_of_lanes(V (&sums)[4], const Multiply& multiply) {
  if constexpr (std::is_arithmetic_v<V>) {
    multiply(0, sums);
  } else {
    constexpr int quarters = kLanes<float> / 4;
    V of_points[4];  // each of `quarters` points: the four sums of the first, of the second, ...
    for (int group = 0; group < 4; ++group) {
      V folded[quarters];
      for (int point = 0; point < quarters; ++point) {
        V products[4];
        multiply(group * quarters + point, products);
        folded[point] = fold_lanes(products[0], products[1], products[2], products[3]);
      }
      of_points[group] = fold_quarters(folded);
    }
    transpose(of_points, sums);
  }
}

// --- Channels. `kChannels` is the number of channels where it is known when compiled, or else 0. Then blocks of one
// vector are taken in turn, and single channels at the end.

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

// result = the sum of the map at the points, with `weight` of their neighbours; NaN if a location or weight is.
template <typename T, int kChannels>
LITE_DETR_INLINE void gather(const T* map, const Points<T>& at, T* const* weight, int64_t channels, T* result) {
  const T outside = at.all_inside ? T(0) : sum_outside(at) + weight[0][0] * 0;
  const int64_t samples = at.any_inside ? at.samples : 0;
  const PerNeighbour neighbours(at.neighbour);
  const PerNeighbour weights(weight);
  for_each_block<T, kChannels>(
      channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel) __attribute__((always_inline)) {
        constexpr int lanes = kLanesOf<V, T>;
        constexpr int sums = kVecs >= 8 ? 1 : kVecs >= 4 ? 2 : 4;  // enough that none waits for the one before
        V sum[sums][kVecs] = {};
        for (int64_t i = 0; i < samples; ++i) {
          for (int j = 0; j < 4; ++j) {
            const T* neighbour = map + neighbours[j][i] + channel;
            for (int v = 0; v < kVecs; ++v) {
              sum[j % sums][v] += weights[j][i] * load<V>(neighbour + v * lanes);
            }
          }
        }
        for (int v = 0; v < kVecs; ++v) {
          V total = splat<V>(outside);
          for (int j = 0; j < sums; ++j) {
            total += sum[j][v];
          }
          store(result + channel + v * lanes, total);
        }
      });
}

// samples[i] = the map at point i, dots[i] = <vector, samples[i]>. Padding of `dots` is arbitrary.
template <typename T, int kChannels>
LITE_DETR_INLINE void gather_each(
    const T* map, const Points<T>& at, const T* vector, int64_t channels, T* samples, T* dots) {
  if (!at.any_inside) {
    std::memset(samples, 0, at.samples * channels * sizeof(T));
    for (int64_t i = 0; i < at.samples; ++i) {
      dots[i] = dot_zeros(vector, channels);
    }
    return;
  }
  const PerNeighbour neighbours(at.neighbour);
  const PerNeighbour weights(at.weight);
  const int64_t count = at.samples;
  for_each_block<T, kChannels>(
      channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel) __attribute__((always_inline)) {
        constexpr int lanes = kLanesOf<V, T>;
        V factor[kVecs];
        for (int v = 0; v < kVecs; ++v) {
          factor[v] = load<V>(vector + channel + v * lanes);
        }
        const auto product = [&](int64_t i) __attribute__((always_inline)) {
          V sample[kVecs] = {}, sum{};
          for (int j = 0; j < 4; ++j) {
            const T* neighbour = map + neighbours[j][i] + channel;
            for (int v = 0; v < kVecs; ++v) {
              sample[v] += weights[j][i] * load<V>(neighbour + v * lanes);
            }
          }
          for (int v = 0; v < kVecs; ++v) {
            store(samples + i * channels + channel + v * lanes, sample[v]);
            sum += factor[v] * sample[v];
          }
          return sum;
        };
        for (int64_t first = 0; first < count; first += lanes) {
          const V sums = sums_of_lanes<V>([&](int64_t i) __attribute__((always_inline)) {
            return product(first + i < count ? first + i : count - 1);
          });
          store(dots + first, channel ? load<V>(dots + first) + sums : sums);
        }
      });
}

// dots[j][i] = <vector, neighbour j of point i>. Padding is arbitrary.
template <typename T, int kChannels>
LITE_DETR_INLINE void dot_neighbours(const T* map, const Points<T>& at, const T* vector, int64_t channels, T* dots) {
  if (!at.any_inside) {
    for (int64_t i = 0; i < 4 * at.padded; ++i) {
      dots[i] = dot_zeros(vector, channels);
    }
    return;
  }
  const PerNeighbour neighbours(at.neighbour);
  const int64_t count = at.samples, padded = at.padded;
  for_each_block<T, kChannels>(
      channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel) __attribute__((always_inline)) {
        constexpr int lanes = kLanesOf<V, T>;
        V factor[kVecs];
        for (int v = 0; v < kVecs; ++v) {
          factor[v] = load<V>(vector + channel + v * lanes);
        }
        for (int64_t first = 0; first < count; first += lanes) {
          V sums[4];
          sums_of_lanes<V>(
              sums, [&](int64_t k, V(&products)[4]) __attribute__((always_inline)) {
                const int64_t i = first + k < count ? first + k : count - 1;
                for (int j = 0; j < 4; ++j) {
                  const T* neighbour = map + neighbours[j][i] + channel;
                  products[j] = factor[0] * load<V>(neighbour);
                  for (int v = 1; v < kVecs; ++v) {
                    products[j] += factor[v] * load<V>(neighbour + v * lanes);
                  }
                }
              });
          for (int j = 0; j < 4; ++j) {
            T* to = dots + j * padded + first;
            store(to, channel ? load<V>(to) + sums[j] : sums[j]);
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
  const PerNeighbour neighbours(at.neighbour);
  const PerNeighbour weights(weight);
  const int64_t count = at.samples;
  for_each_block<T, kChannels>(
      channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel) __attribute__((always_inline)) {
        constexpr int lanes = kLanesOf<V, T>;
        V vector[kVectors][kVecs];
        for (int k = 0; k < kVectors; ++k) {
          for (int v = 0; v < kVecs; ++v) {
            vector[k][v] = load<V>(vectors[k] + channel + v * lanes);
          }
        }
        for (int64_t i = 0; i < count; ++i) {
          T* to[4];
          V share[4];
          for (int j = 0; j < 4; ++j) {
            to[j] = grad_map + neighbours[j][i] + channel;
            share[j] = splat<V>(weights[j][i]);
          }
          V grad_sample[kVecs];
          for (int v = 0; v < kVecs; ++v) {
            grad_sample[v] = vector[0][v];
            if constexpr (kVectors == 2) {
              grad_sample[v] = factors[0][i] * vector[0][v] + factors[1][i] * vector[1][v];
            }
          }
          for (int j = 0; j < 4; ++j) {
            for (int v = 0; v < kVecs; ++v) {
              store(to[j] + v * lanes, load<V>(to[j] + v * lanes) + share[j] * grad_sample[v]);
            }
          }
        }
      });
}

// --- Gradients of the locations.

// Takes dots (4 arrays), the products of the points' neighbours with the gradients of their samples, to the offsets'
// gradient, (L * P, 2), and the reference points' share, (L, 2 or 4), each unless null. `slopes` is memory for 4
// arrays.
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
    const auto dot = [&](int j) __attribute__((always_inline)) {
      return load<V>(dots + j * at.padded + i);
    };
    const V has_left = load<V>(at.has_left + i), has_right = load<V>(at.has_right + i);
    const V has_top = load<V>(at.has_top + i), has_bottom = load<V>(at.has_bottom + i);
    const V nan = load<V>(at.outside_value + i);
    store(
        slopes_x + i, nan + load<V>(at.top + i) * (has_right * dot(1) - has_left * dot(0)) +
                          load<V>(at.bottom + i) * (has_right * dot(3) - has_left * dot(2)));
    store(
        slopes_y + i, nan + load<V>(at.left + i) * (has_bottom * dot(2) - has_top * dot(0)) +
                          load<V>(at.right + i) * (has_bottom * dot(3) - has_top * dot(1)));
  }
  if (grad_offsets) {
    T* const pairs = at.samples == at.padded ? grad_offsets : slopes + 2 * at.padded;
    for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
      V x = load<V>(slopes_x + i), y = load<V>(slopes_y + i);
      if (call.reference_size == 4) {
        x *= load<V>(at.frame->step_x + i);
        y *= load<V>(at.frame->step_y + i);
      }
      zip(x, y, pairs + 2 * i);
    }
    if (pairs != grad_offsets) {
      std::memcpy(grad_offsets, pairs, 2 * at.samples * sizeof(T));
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
