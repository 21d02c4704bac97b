// The attention of one head of one query, and its gradients, for all of them.
//
// Forward is parallel over (image, query). Backward is parallel over (image, head): each task owns its part of every
// gradient, so there are no atomics, and the result does not depend on the number of threads. Nothing of the size
// (N, Q, M, L * P, D) is stored: backward samples again.

#pragma once

#include <cmath>
#include <limits>

#include "sampling.h"

namespace lite_detr::cpu {

// Addresses of the contiguous tensors of a call; null where there is no such tensor.
template <typename T>
struct Inputs {
  const T *query, *value, *key, *reference, *offsets, *logits;
};

template <typename T>
struct Gradients {
  T *query, *value, *key, *reference, *offsets, *logits;  // reference: (N, Q, M, L, 2 or 4), each head's share
};

// One head of one query.
struct Row {
  int64_t index;  // among all (image, query, head)
  int64_t query;  // among all (image, query)
  int64_t map;    // element offset of the map of its image and head
};

inline Row row_of(const Sizes& sizes, int64_t query, int64_t head) {
  const int64_t image = query / sizes.queries;
  return {query * sizes.heads + head, query, (image * sizes.tokens * sizes.heads + head) * sizes.channels};
}

// What a task keeps of the row it works on.
template <typename T>
struct Scratch {
  SamplingPoints<T> at;
  std::vector<T> weights, keys;

  explicit Scratch(const Sizes& sizes)
      : at(sizes), weights(sizes.samples()), keys(sizes.samples() * sizes.channels) {}
};

template <typename T>
struct BackwardScratch {
  SamplingPoints<T> at;
  std::vector<T> weights, grad_weights, grad_logits, key_dots, value_dots, grad_sample;
  std::vector<Slope<T>> slopes;

  explicit BackwardScratch(const Sizes& sizes)
      : at(sizes),
        weights(sizes.samples()),
        grad_weights(sizes.samples()),
        grad_logits(sizes.samples()),
        key_dots(sizes.samples() * 4),
        value_dots(sizes.samples() * 4),
        grad_sample(sizes.channels),
        slopes(sizes.samples()) {}
};

// Calls body(scratch, row) for all rows, in parallel over (image, query).
template <typename RowScratch, typename Body>
void for_each_query(const Sizes& sizes, const Body& body) {
  const int64_t work = sizes.heads * sizes.samples() * sizes.channels;
  const int64_t grain = std::max<int64_t>(1, (1 << 17) / std::max<int64_t>(1, work));  // outweighs a task's start
  torch::stable::parallel_for(0, sizes.images * sizes.queries, grain, [&](int64_t begin, int64_t end) {
    RowScratch scratch(sizes);
    for (int64_t query = begin; query < end; ++query) {
      for (int64_t head = 0; head < sizes.heads; ++head) {
        body(scratch, row_of(sizes, query, head));
      }
    }
  });
}

// Calls body(scratch, row) for all rows, in parallel over (image, head): one task has all rows of a map.
template <typename RowScratch, typename Body>
void for_each_map(const Sizes& sizes, const Body& body) {
  torch::stable::parallel_for(0, sizes.images * sizes.heads, 1, [&](int64_t begin, int64_t end) {
    RowScratch scratch(sizes);
    for (int64_t map = begin; map < end; ++map) {
      const int64_t image = map / sizes.heads, head = map % sizes.heads;
      for (int64_t query = image * sizes.queries; query < (image + 1) * sizes.queries; ++query) {
        body(scratch, row_of(sizes, query, head));
      }
    }
  });
}

template <typename T>
void softmax(int64_t count, T* logits) {
  T largest = -std::numeric_limits<T>::infinity(), sum = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) {
    largest = logits[i] > largest ? logits[i] : largest;
  }
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    logits[i] = std::exp(logits[i] - largest);
    sum += logits[i];
  }
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    logits[i] /= sum;
  }
}

template <typename T>
void softmax_backward(int64_t count, const T* weights, const T* grad_weights, T* grad_logits) {
  T mean = 0;
  for (int64_t i = 0; i < count; ++i) {
    mean += weights[i] * grad_weights[i];
  }
  for (int64_t i = 0; i < count; ++i) {
    grad_logits[i] = weights[i] * (grad_weights[i] - mean);
  }
}

template <typename T, typename Channels>
void attend(const Sizes& sizes, Channels channels, const Inputs<T>& in, T* output) {
  const int64_t samples = sizes.samples();
  for_each_query<Scratch<T>>(sizes, [&](Scratch<T>& scratch, const Row& row) {
    T* weights = scratch.weights.data();
    T* attended = output + row.index * channels;
    locate(sizes, in.reference, in.offsets, row.query, row.index, scratch.at);
    std::copy_n(in.logits + row.index * samples, samples, weights);
    softmax(samples, weights);
    std::fill_n(attended, sizes.channels, T(0));
    for (int64_t i = 0; i < samples; ++i) {
      add_sample(in.value + row.map, scratch.at, i, weights[i], channels, attended);
    }
  });
}

template <typename T, typename Channels>
void attend_backward(
    const Sizes& sizes, Channels channels, const Inputs<T>& in, const T* grad_output, const Gradients<T>& grad) {
  const int64_t samples = sizes.samples();
  for_each_map<BackwardScratch<T>>(sizes, [&](BackwardScratch<T>& scratch, const Row& row) {
    T* weights = scratch.weights.data();
    const T* grad_attended = grad_output + row.index * channels;
    locate(sizes, in.reference, in.offsets, row.query, row.index, scratch.at);
    std::copy_n(in.logits + row.index * samples, samples, weights);
    softmax(samples, weights);
    for (int64_t i = 0; i < samples; ++i) {
      T dots[4];
      scratch.grad_weights[i] = dot_neighbours(in.value + row.map, scratch.at, i, grad_attended, channels, dots);
      const Slope<T> slope = slope_at(scratch.at, i, dots);
      scratch.slopes[i] = {weights[i] * slope.x, weights[i] * slope.y};
      spread(grad.value + row.map, scratch.at, i, weights[i], grad_attended, channels);
    }
    softmax_backward(samples, weights, scratch.grad_weights.data(), grad.logits + row.index * samples);
    locate_backward(
        sizes, in.reference, in.offsets, row.query, row.index, scratch.slopes.data(), grad.offsets, grad.reference);
  });
}

// Without a key, the value's samples are the keys too: the map is sampled once.
template <typename T, typename Channels>
void attend_by_key(const Sizes& sizes, Channels channels, const Inputs<T>& in, T* output) {
  const int64_t samples = sizes.samples();
  const T scale = 1 / std::sqrt(static_cast<T>(sizes.channels));
  const T* key_maps = in.key ? in.key : in.value;
  for_each_query<Scratch<T>>(sizes, [&](Scratch<T>& scratch, const Row& row) {
    T* weights = scratch.weights.data();
    T* attended = output + row.index * channels;
    locate(sizes, in.reference, in.offsets, row.query, row.index, scratch.at);
    std::fill(scratch.keys.begin(), scratch.keys.end(), T(0));
    for (int64_t i = 0; i < samples; ++i) {
      T* key = scratch.keys.data() + i * channels;
      add_sample(key_maps + row.map, scratch.at, i, T(1), channels, key);
      weights[i] = scale * dot(in.query + row.index * channels, key, channels);
    }
    softmax(samples, weights);
    std::fill_n(attended, sizes.channels, T(0));
    for (int64_t i = 0; i < samples; ++i) {
      if (in.key) {
        add_sample(in.value + row.map, scratch.at, i, weights[i], channels, attended);
      } else {
        add_scaled(scratch.keys.data() + i * channels, weights[i], channels, attended);
      }
    }
  });
}

template <typename T, typename Channels>
void attend_by_key_backward(
    const Sizes& sizes, Channels channels, const Inputs<T>& in, const T* grad_output, const Gradients<T>& grad) {
  const int64_t samples = sizes.samples();
  const T scale = 1 / std::sqrt(static_cast<T>(sizes.channels));
  const T* key_maps = in.key ? in.key : in.value;
  for_each_map<BackwardScratch<T>>(sizes, [&](BackwardScratch<T>& scratch, const Row& row) {
    T* weights = scratch.weights.data();
    const T* query = in.query + row.index * channels;
    const T* grad_attended = grad_output + row.index * channels;
    T* grad_query = grad.query + row.index * channels;
    locate(sizes, in.reference, in.offsets, row.query, row.index, scratch.at);
    for (int64_t i = 0; i < samples; ++i) {
      weights[i] = scale * dot_neighbours(key_maps + row.map, scratch.at, i, query, channels, &scratch.key_dots[i * 4]);
      scratch.grad_weights[i] =
          dot_neighbours(in.value + row.map, scratch.at, i, grad_attended, channels, &scratch.value_dots[i * 4]);
    }
    softmax(samples, weights);
    softmax_backward(samples, weights, scratch.grad_weights.data(), scratch.grad_logits.data());
    std::fill_n(grad_query, sizes.channels, T(0));
    for (int64_t i = 0; i < samples; ++i) {
      const T grad_product = scale * scratch.grad_logits[i];
      T dots[4];
      for (int64_t j = 0; j < 4; ++j) {
        dots[j] = weights[i] * scratch.value_dots[i * 4 + j] + grad_product * scratch.key_dots[i * 4 + j];
      }
      scratch.slopes[i] = slope_at(scratch.at, i, dots);
      add_sample(key_maps + row.map, scratch.at, i, grad_product, channels, grad_query);
      if (in.key) {
        spread(grad.value + row.map, scratch.at, i, weights[i], grad_attended, channels);
        spread(grad.key + row.map, scratch.at, i, grad_product, query, channels);
      } else {
        T* grad_sample = scratch.grad_sample.data();
        std::fill_n(grad_sample, sizes.channels, T(0));
        add_scaled(grad_attended, weights[i], channels, grad_sample);
        add_scaled(query, grad_product, channels, grad_sample);
        spread(grad.value + row.map, scratch.at, i, T(1), grad_sample, channels);
      }
    }
    locate_backward(
        sizes, in.reference, in.offsets, row.query, row.index, scratch.slopes.data(), grad.offsets, grad.reference);
  });
}

}  // namespace lite_detr::cpu
