// The attention of one head of one query, and its gradients, for all of them. Nothing of the size (N, Q, M, L * P, D)
// is stored: backward samples again.

#pragma once

#include "sampling.h"

namespace lite_detr::cpu::LITE_DETR_ISA {

constexpr int kPrefetchDistance = 8;  // queries

template <typename T>
struct TokenMap {
  T* begin;
  int64_t stride;
};

// Index of the first channel of token 0 of an image and head.
inline int64_t map_index(const Call& call, int64_t map) {
  return (map / call.heads * call.tokens * call.heads + map % call.heads) * call.channels;
}

// Gives maps for sampling: the tensor's own, or copies of type T whose tokens are adjacent.
template <typename T, int kChannels>
class MapReader {
 public:
  TokenMap<const T> read_map(const Call& call, const void* tensor, int64_t map, int64_t queries) {
    const int64_t begin = map_index(call, map), stride = call.heads * call.channels;
    if (queries < call.queries_worth_packing) {
      return {static_cast<const T*>(tensor) + begin, stride};
    }
    const int64_t channels = kChannels ? kChannels : call.channels;
    if (!copy_.get()) {
      copy_.allocate(call.tokens * channels);
    }
    for (int64_t token = 0; token < call.tokens; ++token) {
      T* to = copy_.get() + token * channels;
      const T* from = read(tensor, call.storage, begin + token * stride, channels, to);
      if (from != to) {
        __builtin_prefetch(from + 16 * stride);
        std::memcpy(to, from, channels * sizeof(T));
      }
    }
    return {copy_.get(), channels};
  }

 private:
  Buffer<T> copy_;
};

// Gives maps to sum gradients in, and writes them to the tensor where they are not its own.
template <typename T, int kChannels>
class MapWriter {
 public:
  TokenMap<T> open_map(const Call& call, void* tensor, int64_t map) {
    if (!tensor || call.queries < call.queries_worth_packing) {
      return {static_cast<T*>(tensor) + (tensor ? map_index(call, map) : 0), call.heads * call.channels};
    }
    const int64_t channels = kChannels ? kChannels : call.channels;
    if (!sums_.get()) {
      sums_.allocate(call.tokens * channels);
    }
    std::memset(sums_.get(), 0, call.tokens * channels * sizeof(T));
    return {sums_.get(), channels};
  }

  void close_map(const Call& call, void* tensor, int64_t map) {
    const int64_t channels = kChannels ? kChannels : call.channels, stride = call.heads * call.channels;
    for (int64_t token = 0; sums_.get() && token < call.tokens; ++token) {
      write(sums_.get() + token * channels, tensor, call.storage, map_index(call, map) + token * stride, channels);
    }
  }

 private:
  Buffer<T> sums_;
};

// One row: `index` counts over (image, query, head), `query` over (image, query).
struct Row {
  int64_t index, query;
};

inline Row row_of(const Call& call, int64_t map, int64_t query) {
  const int64_t of_all = map / call.heads * call.queries + query;
  return {of_all * call.heads + map % call.heads, of_all};
}

// Bytes of a tensor, from `index` elements of `size` bytes on.
LITE_DETR_INLINE void prefetch(const void* tensor, int64_t size, int64_t index, int64_t count) {
  constexpr int64_t cache_line = 64;
  const char* const begin = static_cast<const char*>(tensor) + index * size;
  for (int64_t byte = 0; tensor && byte < count * size; byte += cache_line) {
    __builtin_prefetch(begin + byte);
  }
}

// Goes through the rows of a map, located one row ahead of their use.
template <typename T, int kChannels, bool kBackward>
class RowSource {
 public:
  explicit RowSource(const Call& call) : call_(call), points_{Points<T>(call), Points<T>(call)} {
    const int64_t padded = points_[0].padded;
    memory_.allocate(kFrames * 4 * padded);
    for (int i = 0; i < kFrames; ++i) {
      T* const arrays = memory_.get() + i * 4 * padded;
      frames_[i] = {arrays, arrays + padded, arrays + 2 * padded, arrays + 3 * padded};
      std::memset(arrays, 0, 4 * padded * sizeof(T));
    }
  }

  // Calls body(row, its points) for queries first .. last of a map, whose tokens are `stride` elements apart. `maps`
  // are those that the rows will read or write; null if not.
  template <typename Body>
  LITE_DETR_INLINE void for_each(
      int64_t map, int64_t first, int64_t last, int64_t stride, const T* const (&maps)[4], const Body& body) {
    for (int64_t query = first; query < first + 2 && query < last; ++query) {
      place(row_of(call_, map, query));
    }
    locate_row(row_of(call_, map, first), stride, maps);
    for (int64_t query = first; query < last; ++query) {
      const Row row = row_of(call_, map, query);
      // Narrow stores are long done when wide loads read them.
      if (query + 2 < last) {
        place(row_of(call_, map, query + 2));
      }
      if (query + 1 < last) {
        locate_row(row_of(call_, map, query + 1), stride, maps);
      }
      prefetch_streams(row.index + kPrefetchDistance * call_.heads);
      body(row, points_[row.query % 2]);
    }
  }

 private:
  static constexpr int kFrames = 4;  // of this row and two more, rounded up to a power of two

  LITE_DETR_INLINE void place(const Row& row) {
    const int64_t index = row.query * call_.level_count * call_.reference_size;
    place_references(call_, points_[0], static_cast<const T*>(call_.reference) + index, frames_[row.query % kFrames]);
  }

  LITE_DETR_INLINE void locate_row(const Row& row, int64_t stride, const T* const (&maps)[4]) {
    Points<T>& at = points_[row.query % 2];
    at.frame = &frames_[row.query % kFrames];
    locate<T, kBackward>(call_, static_cast<const T*>(call_.offsets) + row.index * 2 * at.samples, stride, at);
    const int64_t channels = kChannels ? kChannels : call_.channels;
    if (stride == channels || !at.any_inside) {  // a copy is in the cache, or nearly so
      return;
    }
    for (int64_t i = 0; i < at.samples; ++i) {
      for (int j = 0; j < 4; ++j) {
        for (const T* map : maps) {
          prefetch(map, sizeof(T), at.neighbour[j][i], channels);
        }
      }
    }
  }

  // What later rows will read or write: these streams are too far apart for the processor to foresee.
  LITE_DETR_INLINE void prefetch_streams(int64_t row) const {
    if (row < call_.images * call_.queries * call_.heads) {
      const int64_t samples = points_[0].samples;
      prefetch(call_.offsets, sizeof(T), row * 2 * samples, 2 * samples);
      prefetch(call_.logits, sizeof(T), row * samples, samples);
      const void* const rows[] = {call_.query, call_.grad_output, call_.output};
      for (const void* tensor : rows) {
        prefetch(tensor, is_half(call_.storage) ? 2 : sizeof(T), row * call_.channels, call_.channels);
      }
    }
  }

  const Call& call_;
  Points<T> points_[2];
  Frame<T> frames_[kFrames];
  Buffer<T> memory_;
};

// What a task keeps of the row it works on.
template <typename T>
struct Scratch {
  Buffer<T> memory;
  T *weights, *scaled[4], *grad_weights, *grad_logits, *dots[2], *slopes;  // over the points, padded
  T *query, *grad_output, *result, *samples;                               // over channels

  explicit Scratch(const Call& call) {
    const int64_t count = call.level_count * call.points, padded = round_up<T>(count);
    memory.allocate(padded * 19 + call.channels * (count + 3));
    T* next = memory.get();
    const auto take = [&](int64_t size) {
      T* const array = next;
      next += size;
      return array;
    };
    weights = take(padded);
    for (T*& array : scaled) {
      array = take(padded);
    }
    grad_weights = take(padded);
    grad_logits = take(padded);
    dots[0] = take(4 * padded);
    dots[1] = take(4 * padded);
    slopes = take(4 * padded);
    samples = take(count * call.channels);
    query = take(call.channels);
    grad_output = take(call.channels);
    result = take(call.channels);
  }
};

// --- The softmax over the points.

// `weights` has room for padding, and may be `logits`.
template <typename T>
LITE_DETR_INLINE void softmax(const Points<T>& at, const T* logits, T* weights) {
  using V = Vec<T>;
  if (at.samples != at.padded) {
    if (logits != weights) {
      std::memcpy(weights, logits, at.samples * sizeof(T));
      logits = weights;
    }
    for (int64_t i = at.samples; i < at.padded; ++i) {
      weights[i] = -static_cast<T>(__builtin_inf());
    }
  }
  V largest = load<V>(logits), sum{};
  for (int64_t i = kLanes<T>; i < at.padded; i += kLanes<T>) {
    const V vec = load<V>(logits + i);
    largest = vec > largest ? vec : largest;
  }
  largest = splat<V>(largest_lane(largest));
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    const V weight = exp_of_nonpositive(load<V>(logits + i) - largest);
    store(weights + i, weight);
    sum += weight;
  }
  const V factor = splat<V>(T(1) / sum_of_lanes(sum));
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    store(weights + i, load<V>(weights + i) * factor);
  }
}

template <typename T>
LITE_DETR_INLINE void softmax_backward(const Points<T>& at, const T* weights, const T* grad_weights, T* grad_logits) {
  using V = Vec<T>;
  V products{};
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    products += load<V>(weights + i) * load<V>(grad_weights + i);
  }
  const V mean = splat<V>(sum_of_lanes(products));
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    store(grad_logits + i, load<V>(weights + i) * (load<V>(grad_weights + i) - mean));
  }
}

// scaled[j] = factor * the weights of the points' neighbours j
template <typename T>
LITE_DETR_INLINE void scale_weights(const Points<T>& at, const T* factor, T* const* scaled) {
  using V = Vec<T>;
  for (int j = 0; j < 4; ++j) {
    for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
      store(scaled[j] + i, load<V>(factor + i) * load<V>(at.weight[j] + i));
    }
  }
}

// products[i] = scale * <vector, sample i>, from the dots of the vector with the points' neighbours.
template <typename T>
LITE_DETR_INLINE void combine_dots(const Points<T>& at, const T* dots, T scale, T* products) {
  using V = Vec<T>;
  for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
    V sum = load<V>(at.outside_value + i);
    for (int j = 0; j < 4; ++j) {
      sum += load<V>(at.weight[j] + i) * load<V>(dots + j * at.padded + i);
    }
    store(products + i, sum * scale);
  }
  for (int64_t i = at.samples; i < at.padded; ++i) {
    products[i] = 0;  // there are no dots
  }
}

// result = the sum of weights[i] * samples[i]
template <typename T, int kChannels>
LITE_DETR_INLINE void sum_samples(
    const Points<T>& at, const T* samples, const T* weights, int64_t channels, T* result) {
  for_each_block<T, kChannels>(
      channels, [&]<typename V, int kVecs>(Block<V, kVecs>, int64_t channel) __attribute__((always_inline)) {
        V sum[kVecs] = {}, odd[kVecs] = {};
        for (int64_t i = 0; i + 1 < at.samples; i += 2) {
          for (int v = 0; v < kVecs; ++v) {
            const T* sample = samples + i * channels + channel + v * kLanesOf<V, T>;
            sum[v] += weights[i] * load<V>(sample);
            odd[v] += weights[i + 1] * load<V>(sample + channels);
          }
        }
        for (int v = 0; v < kVecs; ++v) {
          if (at.samples % 2) {
            const int64_t last = at.samples - 1;
            odd[v] += weights[last] * load<V>(samples + last * channels + channel + v * kLanesOf<V, T>);
          }
          sum[v] += odd[v];
        }
        for (int v = 0; v < kVecs; ++v) {
          store(result + channel + v * kLanesOf<V, T>, sum[v]);
        }
      });
}

// --- Forward.

// Calls body(scratch, row, its points, value map, key map) for rows begin .. end of (image, head, query).
template <typename T, int kChannels, typename Body>
void for_each_row(const Call& call, int64_t begin, int64_t end, const Body& body) {
  Scratch<T> scratch(call);
  RowSource<T, kChannels, false> rows(call);
  MapReader<T, kChannels> values, keys;
  while (begin < end) {
    const int64_t map = begin / call.queries, first = begin % call.queries;
    const int64_t last = call.queries - first < end - begin ? call.queries : first + end - begin;
    begin += last - first;
    const TokenMap<const T> value = values.read_map(call, call.value, map, last - first);
    const TokenMap<const T> key = call.key ? keys.read_map(call, call.key, map, last - first) : value;
    rows.for_each(
        map, first, last, value.stride, {value.begin, call.key ? key.begin : nullptr, nullptr, nullptr},
        [&](const Row& row, const Points<T>& at)
            __attribute__((always_inline)) { body(scratch, row, at, value.begin, key.begin); });
  }
}

template <typename T, int kChannels>
void attend_rows(const Call& call, int64_t begin, int64_t end) {
  const int64_t channels = kChannels ? kChannels : call.channels;
  for_each_row<T, kChannels>(
      call, begin, end,
      [&](Scratch<T> & scratch, const Row& row, const Points<T>& at, const T* values, const T*)
          __attribute__((always_inline)) {
            softmax(at, static_cast<const T*>(call.logits) + row.index * at.samples, scratch.weights);
            scale_weights(at, scratch.weights, scratch.scaled);
            T* result = writable(call.output, call.storage, row.index * channels, scratch.result);
            gather<T, kChannels>(values, at, scratch.scaled, channels, result);
            write(result, call.output, call.storage, row.index * channels, channels);
          });
}

// Without a key, the value's samples are the keys too: the map is sampled once.
template <typename T, int kChannels>
void attend_rows_by_key(const Call& call, int64_t begin, int64_t end) {
  const int64_t channels = kChannels ? kChannels : call.channels;
  const T scale = static_cast<T>(1 / __builtin_sqrt(static_cast<double>(channels)));
  for_each_row<T, kChannels>(
      call, begin, end,
      [&](Scratch<T> & scratch, const Row& row, const Points<T>& at, const T* values, const T* keys)
          __attribute__((always_inline)) {
            T *weights = scratch.weights,
              *result = writable(call.output, call.storage, row.index * channels, scratch.result);
            const T* query = read(call.query, call.storage, row.index * channels, channels, scratch.query);
            gather_each<T, kChannels>(keys, at, query, channels, scratch.samples, weights);
            for (int64_t i = 0; i < at.padded; i += kLanes<T>) {
              store(weights + i, (load<Vec<T>>(weights + i) + load<Vec<T>>(at.outside_value + i)) * scale);
            }
            softmax(at, weights, weights);
            if (call.key) {
              scale_weights(at, weights, scratch.scaled);
              gather<T, kChannels>(values, at, scratch.scaled, channels, result);
            } else {
              sum_samples<T, kChannels>(at, scratch.samples, weights, channels, result);
            }
            write(result, call.output, call.storage, row.index * channels, channels);
          });
}

// --- Backward.

// Calls body(scratch, row, its points, value map, key map, their gradients) for all rows of maps begin .. end of
// (image, head).
template <typename T, int kChannels, typename Body>
void for_each_row_of_maps(const Call& call, int64_t begin, int64_t end, const Body& body) {
  Scratch<T> scratch(call);
  RowSource<T, kChannels, true> rows(call);
  MapReader<T, kChannels> values, keys;
  MapWriter<T, kChannels> grad_values, grad_keys;
  for (int64_t map = begin; map < end; ++map) {
    const TokenMap<const T> value = values.read_map(call, call.value, map, call.queries);
    const TokenMap<const T> key = call.key ? keys.read_map(call, call.key, map, call.queries) : value;
    const TokenMap<T> grad_value = grad_values.open_map(call, call.grad_value, map);
    const TokenMap<T> grad_key = grad_keys.open_map(call, call.grad_key, map);
    if (call.queries) {
      rows.for_each(
          map, 0, call.queries, value.stride,
          {value.begin, call.key ? key.begin : nullptr, call.grad_value ? grad_value.begin : nullptr,
           call.grad_key ? grad_key.begin : nullptr},
          [&](const Row& row, const Points<T>& at) __attribute__((always_inline)) {
            body(scratch, row, at, value.begin, key.begin, grad_value.begin, grad_key.begin);
          });
    }
    grad_values.close_map(call, call.grad_value, map);
    grad_keys.close_map(call, call.grad_key, map);
  }
}

// The gradients of offsets and reference points, where wanted.
template <typename T>
LITE_DETR_INLINE void locations_backward(
    const Call& call, const Row& row, const Points<T>& at, const T* dots, T* slopes) {
  const int64_t pairs = row.index * 2 * at.samples;
  T* grad_offsets = static_cast<T*>(call.grad_offsets);
  T* grad_reference = static_cast<T*>(call.grad_reference);
  locate_backward(
      call, at, dots, static_cast<const T*>(call.offsets) + pairs, slopes,
      grad_offsets ? grad_offsets + pairs : nullptr,
      grad_reference ? grad_reference + row.index * call.level_count * call.reference_size : nullptr);
}

template <typename T, int kChannels>
void attend_rows_backward(const Call& call, int64_t begin, int64_t end) {
  const int64_t channels = kChannels ? kChannels : call.channels;
  for_each_row_of_maps<T, kChannels>(
      call, begin, end,
      [&](Scratch<T> & scratch, const Row& row, const Points<T>& at, const T* values, const T*, T* grad_values,
          T*) __attribute__((always_inline)) {
        T *weights = scratch.weights, *dots = scratch.dots[0];
        const T* grad_output =
            read(call.grad_output, call.storage, row.index * channels, channels, scratch.grad_output);
        softmax(at, static_cast<const T*>(call.logits) + row.index * at.samples, weights);
        if (call.grad_value) {
          scale_weights(at, weights, scratch.scaled);
          spread<T, kChannels, 1>(grad_values, at, scratch.scaled, {nullptr}, {grad_output}, channels);
        }
        if (!call.grad_logits && !call.grad_offsets && !call.grad_reference) {
          return;
        }
        dot_neighbours<T, kChannels>(values, at, grad_output, channels, dots);
        if (call.grad_logits) {
          combine_dots(at, dots, T(1), scratch.grad_weights);
          softmax_backward(at, weights, scratch.grad_weights, scratch.grad_logits);
          std::memcpy(
              static_cast<T*>(call.grad_logits) + row.index * at.samples, scratch.grad_logits, at.samples * sizeof(T));
        }
        for (int j = 0; j < 4; ++j) {
          for (int64_t i = 0; i < at.padded; ++i) {
            dots[j * at.padded + i] *= weights[i];
          }
        }
        locations_backward(call, row, at, dots, scratch.slopes);
      });
}

template <typename T, int kChannels>
void attend_rows_by_key_backward(const Call& call, int64_t begin, int64_t end) {
  const int64_t channels = kChannels ? kChannels : call.channels;
  const T scale = static_cast<T>(1 / __builtin_sqrt(static_cast<double>(channels)));
  for_each_row_of_maps<T, kChannels>(
      call, begin, end,
      [&](Scratch<T> & scratch, const Row& row, const Points<T>& at, const T* values, const T* keys, T* grad_values,
          T* grad_keys) __attribute__((always_inline)) {
        T *weights = scratch.weights, *grad_products = scratch.grad_logits;
        const int64_t index = row.index * channels;
        const T* query = read(call.query, call.storage, index, channels, scratch.query);
        const T* grad_output = read(call.grad_output, call.storage, index, channels, scratch.grad_output);
        T *key_dots = scratch.dots[0], *value_dots = scratch.dots[1];
        dot_neighbours<T, kChannels>(keys, at, query, channels, key_dots);
        dot_neighbours<T, kChannels>(values, at, grad_output, channels, value_dots);
        combine_dots(at, key_dots, scale, weights);
        softmax(at, weights, weights);
        combine_dots(at, value_dots, T(1), scratch.grad_weights);
        softmax_backward(at, weights, scratch.grad_weights, grad_products);
        for (int64_t i = 0; i < at.padded; ++i) {
          grad_products[i] *= scale;
        }
        if (call.grad_query) {
          scale_weights(at, grad_products, scratch.scaled);
          T* grad_query = writable(call.grad_query, call.storage, index, scratch.result);
          gather<T, kChannels>(keys, at, scratch.scaled, channels, grad_query);
          write(grad_query, call.grad_query, call.storage, index, channels);
        }
        if (!call.key && call.grad_value) {
          spread<T, kChannels, 2>(grad_values, at, at.weight, {weights, grad_products}, {grad_output, query}, channels);
        } else if (call.grad_value) {
          scale_weights(at, weights, scratch.scaled);
          spread<T, kChannels, 1>(grad_values, at, scratch.scaled, {nullptr}, {grad_output}, channels);
        }
        if (call.grad_key) {
          scale_weights(at, grad_products, scratch.scaled);
          spread<T, kChannels, 1>(grad_keys, at, scratch.scaled, {nullptr}, {query}, channels);
        }
        if (call.grad_offsets || call.grad_reference) {
          for (int j = 0; j < 4; ++j) {
            for (int64_t i = 0; i < at.padded; ++i) {
              const int64_t k = j * at.padded + i;
              value_dots[k] = weights[i] * value_dots[k] + grad_products[i] * key_dots[k];
            }
          }
          locations_backward(call, row, at, value_dots, scratch.slopes);
        }
      });
}

// --- The kernels: for the usual head dimensions in float32, for any other, and for float64.

// Calls run<T, kChannels>().
template <typename Run>
void with_channels(const Call& call, const Run& run) {
  if (call.storage == Storage::kFloat64) {
#ifdef LITE_DETR_FLOAT64
    run.template operator()<double, 0>();
#endif
  } else if (call.channels == 16) {
    run.template operator()<float, 16>();
  } else if (call.channels == 32) {
    run.template operator()<float, 32>();
  } else if (call.channels == 64) {
    run.template operator()<float, 64>();
  } else {
    run.template operator()<float, 0>();
  }
}

inline void attend(const Call& call, int64_t begin, int64_t end) {
  with_channels(call, [&]<typename T, int kChannels>() { attend_rows<T, kChannels>(call, begin, end); });
}

inline void attend_backward(const Call& call, int64_t begin, int64_t end) {
  with_channels(call, [&]<typename T, int kChannels>() { attend_rows_backward<T, kChannels>(call, begin, end); });
}

inline void attend_by_key(const Call& call, int64_t begin, int64_t end) {
  with_channels(call, [&]<typename T, int kChannels>() { attend_rows_by_key<T, kChannels>(call, begin, end); });
}

inline void attend_by_key_backward(const Call& call, int64_t begin, int64_t end) {
  with_channels(
      call, [&]<typename T, int kChannels>() { attend_rows_by_key_backward<T, kChannels>(call, begin, end); });
}

}  // namespace lite_detr::cpu::LITE_DETR_ISA
