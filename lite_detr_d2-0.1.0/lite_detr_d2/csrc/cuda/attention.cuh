// The attention of one head of one query, and its gradients, by a group of lanes of a warp.
//
// Nothing of the size (N, Q, M, L * P, D) is stored: backward samples again. The gradients of the maps and of the
// reference points are sums over queries that run in parallel, by atomic additions: their last bits vary.

#pragma once

#include "sampling.cuh"

namespace lite_detr::cuda {

constexpr int THREADS = 128;  // of a block

// Where the weights come from: logits, keys sampled from the map of the values, or from a map of their own.
enum class Mode { LOGITS, SHARED_KEYS, SEPARATE_KEYS };

// How many blocks a multiprocessor shall hold at least, which bounds the registers of a kernel: about as many as let it
// work without spilling.
constexpr int resident_blocks(Mode mode, bool any_channels, bool backward) {
  if (any_channels) {
    return 2;
  }
  switch (mode) {
    case Mode::LOGITS:
      return backward ? 5 : 8;
    case Mode::SHARED_KEYS:
      return backward ? 4 : 5;
    default:
      return backward ? 3 : 4;
  }
}

// The gradient of the output, and gradients to compute; null for one that is not wanted. All in the compute type: the
// caller rounds sums once they are complete. Those of the query, maps and reference points are zeros to begin with.
template <typename T>
struct Gradients {
  const T* output;
  Compute<T>*query, *value, *key, *reference, *offsets, *logits;
};

// exp(logit - shift), where all may be -inf
template <typename C>
__device__ inline C exp_shifted(C logit, C shift) {
  return exp(logit - (shift == -INFINITY ? C(0) : shift));
}

template <typename T, int CHANNELS>
__device__ void attend_by_logits(
    const Problem& problem, const Inputs<T>& in, const Row& row, const Channels<T, CHANNELS>& lanes, T* output) {
  using L = Channels<T, CHANNELS>;
  using C = typename L::C;
  const C* logits = in.logits + row.index * problem.samples;
  const T* map = map_of(lanes, in.value, row);
  C largest = -INFINITY;
  for (int point = lanes.lane; point < problem.samples; point += L::LANES) {
    largest = fmax(largest, logits[point]);
  }
  largest = lanes.max(largest);

  for (int slice = 0; slice < lanes.size(); slice += L::SLICE) {
    C sum[L::WIDTH] = {}, total = 0;
    for (int first = 0; first < problem.samples; first += L::LANES) {
      const int own = first + lanes.own_batch() * L::BATCH + lanes.own_point();
      const C own_weight = own < problem.samples ? exp_shifted(logits[own], largest) : C(0);
      const Shares<C> own_shares(locate(problem, in, row, own), own_weight);
      total += own_weight;
#pragma unroll 1
      for (int batch = 0; batch < L::SHARE && first + batch * L::BATCH < problem.samples; ++batch) {
#pragma unroll 2
        for (int point = 0; point < L::BATCH; ++point) {
          add_sample(lanes, map, from_lane(lanes, own_shares, L::owner(batch, point)), slice, sum);
        }
      }
    }
    C mean[L::WIDTH] = {};
    add_scaled(sum, 1 / lanes.sum(total), mean);
    if (row.real) {
      lanes.store(lanes.own(output + row.index * lanes.size()), slice, mean);
    }
  }
}

// The softmax is built up batch by batch: when a larger logit comes, what is already summed shrinks. So a sample is
// used while it is in registers, however many there are.
template <Mode MODE, typename T, int CHANNELS>
__device__ void attend_by_keys(
    const Problem& problem, const Inputs<T>& in, const Row& row, const Channels<T, CHANNELS>& lanes, T* output) {
  using L = Channels<T, CHANNELS>;
  using C = typename L::C;
  constexpr bool REUSED = MODE == Mode::SHARED_KEYS && L::FIXED;
  const T* query_head = lanes.own(in.query + row.index * lanes.size());
  const T* values = map_of(lanes, in.value, row);
  const T* keys = MODE == Mode::SHARED_KEYS ? values : map_of(lanes, in.key, row);
  const C scale = static_cast<C>(problem.scale);
  C query[L::WIDTH];
  lanes.load(query_head, 0, query);

  for (int slice = 0; slice < lanes.size(); slice += L::SLICE) {
    C sum[L::WIDTH] = {}, total = 0, largest = -INFINITY;
    for (int first = 0; first < problem.samples; first += L::LANES) {
      const int own_of_round = first + lanes.own_batch() * L::BATCH + lanes.own_point();
      const Shares<C> own_shares(locate(problem, in, row, own_of_round), 1);
#pragma unroll 1
      for (int batch = 0; batch < L::SHARE && first + batch * L::BATCH < problem.samples; ++batch) {
        C products[L::BATCH] = {}, samples[L::BATCH][L::WIDTH];
#pragma unroll
        for (int point = 0; point < L::BATCH; ++point) {
          const Shares<C> at = from_lane(lanes, own_shares, L::owner(batch, point));
          for (int part = 0; part < lanes.size(); part += L::SLICE) {
            if (!L::FIXED) {
              lanes.load(query_head, part, query);
            }
            take_sample(lanes, keys, at, part, samples[point]);
            products[point] += dot(query, samples[point]);
          }
          if (!REUSED) {
            take_sample(lanes, values, at, slice, samples[point]);
          }
        }
        const C product = lanes.sum_of_point(products);
        const int own = first + batch * L::BATCH + lanes.own_point();
        const C logit = own < problem.samples ? scale * product : -INFINITY;
        const C new_largest = fmax(largest, lanes.max_of_batch(logit));
        const C weight = exp_shifted(logit, new_largest), shrink = exp_shifted(largest, new_largest);
        largest = new_largest;
        total = total * shrink + weight;
#pragma unroll
        for (int i = 0; i < L::WIDTH; ++i) {
          sum[i] *= shrink;
        }
#pragma unroll
        for (int point = 0; point < L::BATCH; ++point) {
          add_scaled(samples[point], lanes.from_lane(weight, L::owner(0, point)), sum);
        }
      }
    }
    C mean[L::WIDTH] = {};
    add_scaled(sum, 1 / lanes.sum_of_batch(total), mean);
    if (row.real) {
      lanes.store(lanes.own(output + row.index * lanes.size()), slice, mean);
    }
  }
}

template <Mode MODE, typename T, int CHANNELS>
__global__ void __launch_bounds__(THREADS, resident_blocks(MODE, CHANNELS == 0, false))
    attend(const __grid_constant__ Problem problem, const __grid_constant__ Inputs<T> in, T* output) {
  using L = Channels<T, CHANNELS>;
  const L lanes(threadIdx.x % L::LANES, problem.channels);
  for (int image = blockIdx.y; image < problem.images; image += gridDim.y) {
    const Row row = find_row<L::LANES>(problem, image);
    if constexpr (MODE == Mode::LOGITS) {
      attend_by_logits(problem, in, row, lanes, output);
    } else {
      attend_by_keys<MODE>(problem, in, row, lanes, output);
    }
  }
}

// The softmax over a lane's own points, then over all points, and the mean of a gradient by its weights.
template <typename C>
struct Softmax {
  C largest = -INFINITY, total = 0, mean = 0;

  __device__ void add(C logit, C grad) {
    const C before = largest;
    largest = fmax(before, logit);
    const C shrink = exp_shifted(before, largest), weight = exp_shifted(logit, largest);
    total = total * shrink + weight;
    mean = mean * shrink + weight * grad;
  }

  template <typename L>
  __device__ void complete(const L& lanes) {
    const C own = largest;
    largest = lanes.max(own);
    const C shrink = exp_shifted(own, largest);
    total = lanes.sum(total * shrink);
    mean = lanes.sum(mean * shrink) / total;
  }

  __device__ C weight(C logit) const {
    return exp_shifted(logit, largest) / total;
  }
};

// What the lanes keep of their own points until the softmax is complete. Each reads what it wrote itself.
template <typename C>
struct Kept {
  enum What { LOGIT, VALUE_DOT, VALUE_BY_X, VALUE_BY_Y, KEY_BY_X, KEY_BY_Y };
  C* memory;
  int rounds;

  __host__ __device__ static constexpr int count(Mode mode) {
    return mode == Mode::LOGITS ? KEY_BY_X : KEY_BY_Y + 1;
  }

  __device__ C& at(What what, int round) const {
    return memory[(what * rounds + round) * THREADS + threadIdx.x];
  }
};

// What backward knows of a row.
template <Mode MODE, typename T, int CHANNELS>
struct Backward {
  using L = AddingChannels<T, CHANNELS>;
  using C = typename L::C;
  static constexpr bool BY_KEYS = MODE != Mode::LOGITS;

  const Problem& problem;
  const Inputs<T>& in;
  const Gradients<T>& grad;
  const L& lanes;
  const Row& row;
  const Kept<C>& kept;
  const T *values, *keys, *query_head, *grad_output_head;
  C query[L::WIDTH], grad_output[L::WIDTH], grad_query[L::WIDTH];

  __device__ Backward(
      const Problem& problem_,
      const Inputs<T>& in_,
      const Gradients<T>& grad_,
      const L& lanes_,
      const Row& row_,
      const Kept<C>& kept_)
      : problem(problem_),
        in(in_),
        grad(grad_),
        lanes(lanes_),
        row(row_),
        kept(kept_),
        values(map_of(lanes, in.value, row)),
        keys(MODE == Mode::SEPARATE_KEYS ? map_of(lanes, in.key, row) : values),
        query_head(lanes.own(in.query + row.index * lanes.size())),
        grad_output_head(lanes.own(grad.output + row.index * lanes.size())),
        grad_query{} {
    load(0);
  }

  __device__ void load(int slice) {
    lanes.load(grad_output_head, slice, grad_output);
    if (BY_KEYS) {
      lanes.load(query_head, slice, query);
    }
  }

  __device__ int own(int first) const {
    return first + lanes.own_batch() * L::BATCH + lanes.own_point();
  }

  // Samples the maps at the points of a round, and keeps logits, and gradients with respect to weights and locations.
  __device__ void sample(int first, int round) {
    const int own_index = own(first);
    C logit = 0;
    if (!BY_KEYS && own_index < problem.samples) {
      logit = in.logits[row.index * problem.samples + own_index];
    }
    if (!BY_KEYS && !grad.offsets && !grad.reference && !grad.logits) {
      kept.at(Kept<C>::LOGIT, round) = logit;
      kept.at(Kept<C>::VALUE_DOT, round) = 0;
      return;
    }
    const Neighbours<C> own_at = locate(problem, in, row, own_index);
#pragma unroll 1
    for (int batch = 0; batch < L::SHARE && first + batch * L::BATCH < problem.samples; ++batch) {
      C value_dot[L::BATCH], value_by_x[L::BATCH], value_by_y[L::BATCH];
      C key_dot[L::BATCH], key_by_x[L::BATCH], key_by_y[L::BATCH];
#pragma unroll
      for (int point = 0; point < L::BATCH; ++point) {
        const Neighbours<C> at = from_lane(lanes, own_at, L::owner(batch, point));
        C value_dots[4] = {}, key_dots[4] = {};
        for (int slice = 0; slice < lanes.size(); slice += L::SLICE) {
          if (!L::FIXED) {
            load(slice);
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            C neighbour[L::WIDTH];
            lanes.load(neighbour_of(values, at.offset[i]), slice, neighbour, at.offset[i] >= 0);
            value_dots[i] += dot(grad_output, neighbour);
            if (MODE == Mode::SEPARATE_KEYS) {
              lanes.load(neighbour_of(keys, at.offset[i]), slice, neighbour, at.offset[i] >= 0);
            }
            if (BY_KEYS) {
              key_dots[i] += dot(query, neighbour);
            }
          }
        }
        value_dot[point] = at.interpolate(value_dots);
        value_by_x[point] = at.by_x(value_dots);
        value_by_y[point] = at.by_y(value_dots);
        key_dot[point] = at.interpolate(key_dots);
        key_by_x[point] = at.by_x(key_dots);
        key_by_y[point] = at.by_y(key_dots);
      }
      keep(Kept<C>::VALUE_DOT, round, batch, value_dot, C(1));
      keep(Kept<C>::VALUE_BY_X, round, batch, value_by_x, C(1));
      keep(Kept<C>::VALUE_BY_Y, round, batch, value_by_y, C(1));
      if (BY_KEYS) {
        const C scale = static_cast<C>(problem.scale);
        keep(Kept<C>::LOGIT, round, batch, key_dot, scale);
        keep(Kept<C>::KEY_BY_X, round, batch, key_by_x, scale);
        keep(Kept<C>::KEY_BY_Y, round, batch, key_by_y, scale);
      }
    }
    if (!BY_KEYS) {
      kept.at(Kept<C>::LOGIT, round) = logit;
    }
  }

  __device__ void keep(typename Kept<C>::What what, int round, int batch, const C (&addends)[L::BATCH], C factor) {
    const C sum = lanes.sum_of_point(addends);
    if (lanes.own_batch() == batch) {
      kept.at(what, round) = factor * sum;
    }
  }

  // The gradients at the points of a round.
  __device__ void finish(int first, int round, const Softmax<C>& softmax) {
    const int own_index = own(first);
    C weight = 0, grad_logit = 0;  // by the interpolated products with keys: grad_logit / sqrt(D)
    if (own_index < problem.samples) {
      weight = softmax.weight(kept.at(Kept<C>::LOGIT, round));
      grad_logit = weight * (kept.at(Kept<C>::VALUE_DOT, round) - softmax.mean);
      if (row.real) {
        finish_point(own_index, round, weight, grad_logit);
      }
    }
    if (!grad.value && !(BY_KEYS && (grad.key || grad.query))) {
      return;
    }
    const C grad_product = static_cast<C>(problem.scale) * grad_logit;
    const Neighbours<C> own_at = locate(problem, in, row, own_index);
#pragma unroll 1
    for (int batch = 0; batch < L::SHARE && first + batch * L::BATCH < problem.samples; ++batch) {
      for (int slice = 0; slice < lanes.size(); slice += L::SLICE) {
        if (!L::FIXED) {
          load(slice);
        }
#pragma unroll
        for (int point = 0; point < L::BATCH; ++point) {
          const int owner = L::owner(batch, point);
          const Neighbours<C> at = from_lane(lanes, own_at, owner);
          finish_maps(at, slice, lanes.from_lane(weight, owner), lanes.from_lane(grad_product, owner));
        }
        if (!L::FIXED) {
          finish_query(slice);
        }
      }
    }
  }

  __device__ void finish_point(int point, int round, C weight, C grad_logit) const {
    C by_x = weight * kept.at(Kept<C>::VALUE_BY_X, round), by_y = weight * kept.at(Kept<C>::VALUE_BY_Y, round);
    if (BY_KEYS) {
      by_x += grad_logit * kept.at(Kept<C>::KEY_BY_X, round);
      by_y += grad_logit * kept.at(Kept<C>::KEY_BY_Y, round);
    }
    if (!BY_KEYS && grad.logits) {
      grad.logits[row.index * problem.samples + point] = grad_logit;
    }
    const int level_index = point / problem.points;
    const Level& level = problem.levels[level_index];
    if (grad.offsets) {
      const Frame<C> frame = frame_of(problem, level, reference_of(problem, in, row, level_index));
      C* grad_offset = grad.offsets + (row.index * problem.samples + point) * 2;
      grad_offset[0] = by_x * frame.step_x;
      grad_offset[1] = by_y * frame.step_y;
    }
    if (grad.reference) {
      C* grad_reference = grad.reference + (row.query * problem.level_count + level_index) * problem.reference_size;
      atomicAdd(grad_reference, by_x * level.width);
      atomicAdd(grad_reference + 1, by_y * level.height);
      if (problem.reference_size == 4) {
        const C* offset = offset_of(problem, in, row, point);
        atomicAdd(grad_reference + 2, by_x * offset[0] * level.width / (2 * problem.points));
        atomicAdd(grad_reference + 3, by_y * offset[1] * level.height / (2 * problem.points));
      }
    }
  }

  __device__ void finish_maps(const Neighbours<C>& at, int slice, C weight, C grad_product) {
    if (BY_KEYS && grad.query) {
      add_sample(lanes, keys, Shares<C>(at, grad_product), slice, grad_query);
    }
    C grad_sample[L::WIDTH] = {};
    if (MODE == Mode::SEPARATE_KEYS && grad.key && row.real) {
      add_scaled(query, grad_product, grad_sample);
      spread(lanes, map_of(lanes, grad.key, row), at, slice, grad_sample);
    }
    if (grad.value && row.real) {
#pragma unroll
      for (int i = 0; i < L::WIDTH; ++i) {
        grad_sample[i] = weight * grad_output[i] + (MODE == Mode::SHARED_KEYS ? grad_product * query[i] : C(0));
      }
      spread(lanes, map_of(lanes, grad.value, row), at, slice, grad_sample);
    }
  }

  // Adds what has been summed of a slice of the gradient of the query.
  __device__ void finish_query(int slice) {
    if (BY_KEYS && grad.query && row.real) {
      lanes.add(lanes.own(grad.query + row.index * lanes.size()), slice, grad_query);
    }
#pragma unroll
    for (int i = 0; i < L::WIDTH; ++i) {
      grad_query[i] = 0;
    }
  }
};

// There is room to keep `rounds` rounds of points. If there are more, all are sampled twice: for the softmax, then for
// the gradients.
template <Mode MODE, typename T, int CHANNELS>
__global__ void __launch_bounds__(THREADS, resident_blocks(MODE, CHANNELS == 0, true)) attend_backward(
    const __grid_constant__ Problem problem,
    const __grid_constant__ Inputs<T> in,
    const __grid_constant__ Gradients<T> grad,
    int rounds) {
  using L = AddingChannels<T, CHANNELS>;
  using C = typename L::C;
  extern __shared__ double shared_memory[];
  const Kept<C> kept{reinterpret_cast<C*>(shared_memory), rounds};
  const L lanes(threadIdx.x % L::LANES, problem.channels);
  const int room = rounds * L::LANES;
  const bool at_once = problem.samples <= room;
  for (int image = blockIdx.y; image < problem.images; image += gridDim.y) {
    const Row row = find_row<L::LANES>(problem, image);
    Backward<MODE, T, CHANNELS> backward(problem, in, grad, lanes, row, kept);
    Softmax<C> softmax;
    for (int pass = at_once ? 1 : 0; pass < 2; ++pass) {
      for (int start = 0; start < problem.samples; start += room) {
        for (int round = 0; round < rounds && start + round * L::LANES < problem.samples; ++round) {
          const int first = start + round * L::LANES;
          backward.sample(first, round);
          if ((pass == 0 || at_once) && backward.own(first) < problem.samples) {
            softmax.add(kept.at(Kept<C>::LOGIT, round), kept.at(Kept<C>::VALUE_DOT, round));
          }
        }
        if (at_once) {
          softmax.complete(lanes);
        }
        for (int round = 0; pass == 1 && round < rounds && start + round * L::LANES < problem.samples; ++round) {
          backward.finish(start + round * L::LANES, round, softmax);
        }
      }
      if (pass == 0) {
        softmax.complete(lanes);
      }
    }
    if (L::FIXED) {
      backward.finish_query(0);
    }
  }
}

}  // namespace lite_detr::cuda
