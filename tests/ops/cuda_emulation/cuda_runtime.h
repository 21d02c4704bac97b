// What the kernels use of CUDA, on the CPU, one thread at a time: for tests of their arithmetic where there is no GPU.
//
// Each thread of a block is a fiber, which runs until it meets others at a shuffle. All lanes of a warp must meet at
// the same kind of shuffle, or all end: else run_block throws, as it does for a load that is not aligned. Atomic
// additions are plain, where loads point to is not checked (build with -fsanitize=address for that), and data races go
// unseen.

#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__

struct alignas(8) uint2 {
  unsigned x, y;
};

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

struct Dimensions {
  unsigned x = 1, y = 1;
};

inline Dimensions threadIdx, blockIdx, blockDim, gridDim;

template <typename T>
T __ldg(const T* address) {
  if (reinterpret_cast<uintptr_t>(address) % alignof(T)) {
    throw std::runtime_error("a load is not aligned");
  }
  return *address;
}

template <typename T>
void atomicAdd(T* address, T addend) {
  *address += addend;
}

inline float __uint_as_float(unsigned bits) {
  float number;
  memcpy(&number, &bits, sizeof(bits));
  return number;
}

namespace cuda_emulation {

constexpr int WARP_SIZE = 32;
constexpr size_t STACK = 64 << 10;

// A thread between two meetings of its warp.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  enum State { RUNNING, AT_SHUFFLE, ENDED } state = RUNNING;
  int operation = 0;           // which shuffle it waits at
  unsigned char given[2][16];  // to this shuffle, and to the one before, which others may still read
  int parity = 0;
};

struct Block {
  std::vector<Fiber> fibers;
  ucontext_t scheduler;
  std::function<void()> kernel;
  int current = 0;
  std::string failure;
};

inline Block* block = nullptr;

inline void run_fiber() {
  Fiber& fiber = block->fibers[block->current];
  try {
    block->kernel();
  } catch (const std::exception& error) {
    block->failure = error.what();
  }
  fiber.state = Fiber::ENDED;
  swapcontext(&fiber.context, &block->scheduler);
}

// Gives `value` to the warp, waits for the other lanes, and returns what `source` gave.
template <typename T>
T exchange(T value, int source, int operation) {
  static_assert(sizeof(T) <= sizeof(Fiber::given[0]));
  Fiber& fiber = block->fibers[block->current];
  const int parity = fiber.parity;
  memcpy(fiber.given[parity], &value, sizeof(T));
  fiber.parity = 1 - parity;
  fiber.state = Fiber::AT_SHUFFLE;
  fiber.operation = operation * 64 + static_cast<int>(sizeof(T));
  const int first = block->current / WARP_SIZE * WARP_SIZE;
  swapcontext(&fiber.context, &block->scheduler);
  T received;
  memcpy(&received, block->fibers[first + source].given[parity], sizeof(T));
  return received;
}

inline void run_warp(int first) {
  for (bool ended = false; !ended;) {
    for (int lane = 0; lane < WARP_SIZE; ++lane) {
      block->current = first + lane;
      threadIdx.x = static_cast<unsigned>(block->current);
      Fiber& fiber = block->fibers[block->current];
      fiber.state = Fiber::RUNNING;
      swapcontext(&block->scheduler, &fiber.context);
    }
    if (!block->failure.empty()) {
      throw std::runtime_error(block->failure);
    }
    const Fiber& leader = block->fibers[first];
    ended = leader.state == Fiber::ENDED;
    for (int lane = 1; lane < WARP_SIZE; ++lane) {
      const Fiber& fiber = block->fibers[first + lane];
      if (fiber.state != leader.state || (!ended && fiber.operation != leader.operation)) {
        throw std::runtime_error("the lanes of a warp diverge at a shuffle");
      }
    }
  }
}

inline void run_block(unsigned threads, const std::function<void()>& kernel) {
  if (threads % WARP_SIZE) {
    throw std::runtime_error("blocks are whole warps");
  }
  static Block reused;
  block = &reused;
  block->fibers.resize(threads);
  block->kernel = kernel;
  block->failure.clear();
  for (Fiber& fiber : block->fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
  }
  for (unsigned first = 0; first < threads; first += WARP_SIZE) {
    run_warp(static_cast<int>(first));
  }
}

inline int lane() {
  return static_cast<int>(threadIdx.x) % WARP_SIZE;
}

inline void require_whole_warp(unsigned mask) {
  if (mask != 0xffffffff) {
    throw std::runtime_error("only shuffles of whole warps are emulated");
  }
}

}  // namespace cuda_emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  namespace emulation = cuda_emulation;
  emulation::require_whole_warp(mask);
  const int lane = emulation::lane();
  return emulation::exchange(value, lane - lane % width + source % width, width);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int step, int width = 32) {
  namespace emulation = cuda_emulation;
  emulation::require_whole_warp(mask);
  if (step >= width) {
    throw std::runtime_error("a shuffle leaves its group");
  }
  return emulation::exchange(value, emulation::lane() ^ step, width * 64 + step);
}
