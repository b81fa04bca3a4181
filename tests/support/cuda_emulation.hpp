// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Runs CUDA kernels on the host: included first, it lets g++ and clang compile a `.cu` as C++, and sanitizers look at it.
///
///     #include "../support/cuda_emulation.hpp"
///     #include "../../kernels/cuda/gelu.cu"
///
///     dsx::emulation::Order order{.seed = 7, .independent_blocks = true};
///     dsx::cuda::gelu(x, y, dsx::Gelu::tanh, nullptr);          // throws std::runtime_error where a kernel breaks a rule
///
/// The host thread that launches runs one block after another; each CUDA thread is a fibre on a stack of its own, and only
/// barriers and warp operations switch. What is checked: barriers that not all threads reach, or not at the same line;
/// threads that wait for ever; lanes outside a mask; indices into shared memory, which begins as NaN in each block. ASan
/// knows the stacks. To TSan a switch orders nothing and only barriers, __syncwarp, __threadfence and atomics do, so a missing
/// barrier is a data race although one core runs everything. Not modelled: bank conflicts, occupancy, registers, PTX.
#pragma once

#define DSX_CUDA_EMULATION 1

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define DSX_EMULATION_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define DSX_EMULATION_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DSX_EMULATION_ASAN 1
#elif __has_feature(thread_sanitizer)
#define DSX_EMULATION_TSAN 1
#endif
#endif

#ifdef DSX_EMULATION_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef DSX_EMULATION_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

// Code that runs while stacks are switched: TSan's own call stack must not see its entry and exit on different fibres.
#ifdef __clang__
#define DSX_EMULATION_UNSEEN __attribute__((noinline, no_sanitize("address"), disable_sanitizer_instrumentation))
#else
#define DSX_EMULATION_UNSEEN __attribute__((noinline, no_sanitize("address", "thread")))
#endif

struct uint3 {
  unsigned x = 0, y = 0, z = 0;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_count = 1, unsigned y_count = 1, unsigned z_count = 1) : x{x_count}, y{y_count}, z{z_count} {}
};

namespace dsx::emulation {

using Where = std::source_location;

inline std::string name_of(const Where& where) {
  return std::string{where.file_name()} + ":" + std::to_string(where.line());
}
inline bool same(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() && std::strcmp(a.file_name(), b.file_name()) == 0;
}

/// While one lives, launches of this host thread run in its order. Seed 0: ascending. Blocks are `independent` where no
/// kernel keeps plain `__shared__` variables (DSX_SHARED and DSX_DYNAMIC_SHARED may be used): then TSan sees races between blocks too.
class Order {
 public:
  struct Rules {
    std::uint64_t seed = 0;
    bool independent_blocks = false;
  };
  explicit Order(Rules rules) : before_{std::exchange(now(), rules)} {}
  ~Order() { now() = before_; }
  Order(const Order&) = delete;
  Order& operator=(const Order&) = delete;
  static Rules& now() {
    static thread_local Rules rules;
    return rules;
  }

 private:
  Rules before_;
};

// ---- what the sanitizers are told

inline void release_clock([[maybe_unused]] void* clock) {
#ifdef DSX_EMULATION_TSAN
  __tsan_release(clock);
#endif
}
inline void acquire_clock([[maybe_unused]] void* clock) {
#ifdef DSX_EMULATION_TSAN
  __tsan_acquire(clock);
#endif
}

/// The emulation's own state is shared by all fibres without any order that TSan knows of.
struct Unwatched {
#ifdef DSX_EMULATION_TSAN
  Unwatched() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
  ~Unwatched() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#else
  Unwatched() {}
  ~Unwatched() {}
#endif
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
};

/// Reports of TSan so far. The first ends its launch, and every launch after it throws: TSan keeps silent about a race that it has
/// reported, and gets slower by the race.
inline constexpr const char* race_found = "data race: ThreadSanitizer's report says where in the kernel";
inline std::atomic<int>& races() {
  static std::atomic<int> count = 0;
  return count;
}

// ---- stacks

class Stack {
 public:
  static constexpr std::size_t bytes = 128 * 1024;

  Stack() : guard_{std::size_t(sysconf(_SC_PAGESIZE))} {
    map_ = mmap(nullptr, bytes + guard_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map_ == MAP_FAILED) throw std::bad_alloc{};
    mprotect(map_, guard_, PROT_NONE);  // it grows down into this page
  }
  ~Stack() { munmap(map_, bytes + guard_); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  std::byte* bottom() const { return static_cast<std::byte*>(map_) + guard_; }
  std::byte* top() const { return bottom() + bytes; }

 private:
  std::size_t guard_;
  void* map_ = nullptr;
};

/// The stacks of a host thread, used again and again. Without TSan the last one given back is the next one taken, so that
/// threads that never wait share one. To TSan each stack belongs to one fibre for good, or threads would race for its bytes.
class Stacks {
 public:
  static Stacks& of_host_thread() {
    static thread_local Stacks stacks;
    return stacks;
  }
#ifdef DSX_EMULATION_TSAN
  Stacks() = default;
  ~Stacks() { clear(); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  Stack* take(std::size_t number, void*& fibre) {
    while (fibres_.size() <= number) fibres_.push_back({__tsan_create_fiber(0), std::make_unique<Stack>()});
    fibre = fibres_[number].handle;
    return fibres_[number].stack.get();
  }
  void give_back(Stack*) {}
  /// Between launches. TSan stops working in a child of a process with fibres: clear before fork().
  void clear() {
    for (const Fibre& fibre : fibres_) __tsan_destroy_fiber(fibre.handle);
    fibres_.clear();
  }

 private:
  struct Fibre {
    void* handle;
    std::unique_ptr<Stack> stack;
  };
  std::vector<Fibre> fibres_{};
#else
  Stack* take(std::size_t, void*&) {
    if (spare_.empty()) {
      all_.push_back(std::make_unique<Stack>());
      spare_.push_back(all_.back().get());
    }
    Stack* const stack = spare_.back();
    spare_.pop_back();
#ifdef DSX_EMULATION_ASAN
    __asan_unpoison_memory_region(stack->bottom(), Stack::bytes);
#endif
    return stack;
  }
  void give_back(Stack* stack) { spare_.push_back(stack); }

 private:
  std::vector<std::unique_ptr<Stack>> all_{};
  std::vector<Stack*> spare_{};
#endif
};

#ifdef __x86_64__
using Context = void*;  // the stack pointer; everything else that must survive lies on the stack

__attribute__((naked)) DSX_EMULATION_UNSEEN inline void switch_stacks(Context*, Context) {
  asm(R"(
      pushq %rbp
      pushq %rbx
      pushq %r12
      pushq %r13
      pushq %r14
      pushq %r15
      movq %rsp, (%rdi)
      movq %rsi, %rsp
      popq %r15
      popq %r14
      popq %r13
      popq %r12
      popq %rbx
      popq %rbp
      ret)");
}
/// A context that begins in `entry`, with the stack pointer as after a call.
inline void prepare(Context& context, const Stack& stack, void (*entry)()) {
  void** top = reinterpret_cast<void**>(stack.top());
  *--top = nullptr;  // the return address of `entry`, which finds the stack pointer at 16 n + 8 as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
  context = top;
}
#else
using Context = ucontext_t;

DSX_EMULATION_UNSEEN inline void switch_stacks(Context* from, Context& to) { swapcontext(from, &to); }
inline void prepare(Context& context, const Stack& stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack.bottom();
  context.uc_stack.ss_size = Stack::bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#endif

// ---- a block

/// Thrown into the fibres that a failed launch leaves behind, so that their locals are destroyed.
struct Cancelled {};

enum class State : std::uint8_t { fresh, ready, waiting, finished };

struct Thread {
  uint3 index{};
  unsigned number = 0;
  State state = State::fresh;
  Stack* stack = nullptr;
  Context context{};
  void* tsan_fibre = nullptr;
  void* fake_stack = nullptr;
  const char* operation = "";  // that it waits in
  Where where{};
};

/// Lanes of one mask exchange 8 bytes each. Two generations, because a quick lane may begin the next exchange before a slow one has read.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  std::uint64_t generation = 0;
  const char* operation = "";
  Where where{};
  std::uint64_t values[2][32]{};
  char clocks[2]{};
};

struct SharedBlock {  // memory that begins as NaN
  explicit SharedBlock(std::size_t count)
      : bytes{count}, data{static_cast<std::byte*>(operator new(std::max<std::size_t>(count, 1), std::align_val_t{16}))} {
    std::memset(data, 0xFF, bytes);
  }
  ~SharedBlock() { operator delete(data, std::align_val_t{16}); }
  SharedBlock(const SharedBlock&) = delete;
  SharedBlock& operator=(const SharedBlock&) = delete;
  std::size_t bytes;
  std::byte* data;
};

class Launch {
 public:
  Launch(dim3 grid, dim3 block, std::size_t dynamic_bytes, void (*call)(void*), void* closure)
      : grid_{grid}, block_{block}, dynamic_bytes_{dynamic_bytes}, call_{call}, closure_{closure} {
    if (block.x * block.y * block.z == 0 || block.x * block.y * block.z > 1024 || block.z > 64)
      throw std::runtime_error{"launch: a block of " + std::to_string(block.x) + " x " + std::to_string(block.y) + " x " + std::to_string(block.z) +
                               " threads"};
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFFU || grid.y > 65535 || grid.z > 65535)
      throw std::runtime_error{"launch: a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z) +
                               " blocks"};
    if (now()) throw std::runtime_error{"launch: a kernel launches a kernel"};
    if (races() > 0) throw std::runtime_error{race_found};
  }

  void run() {
    slot() = this;
#ifdef DSX_EMULATION_TSAN
    host_fibre_ = __tsan_get_current_fiber();
#endif
    release_clock(&begin_);
    const std::exception_ptr error = run_blocks();
    acquire_clock(&end_);
    slot() = nullptr;
    if (error) std::rethrow_exception(error);
  }

  /// The launch that this host thread is in.
  DSX_EMULATION_UNSEEN static Launch* now() { return slot(); }

  DSX_EMULATION_UNSEEN const uint3& thread_index() const { return current_->index; }
  DSX_EMULATION_UNSEEN const uint3& block_index() const { return index_; }
  DSX_EMULATION_UNSEEN const dim3& block_shape() const { return block_; }
  DSX_EMULATION_UNSEEN const dim3& grid_shape() const { return grid_; }

  void barrier(const Where& where) {
    Unwatched unwatched;
    for (const Thread& other : threads_)
      if (other.state == State::finished)
        throw std::runtime_error{"divergent __syncthreads: " + me() + " waits at " + name_of(where) + ", but t" + std::to_string(other.number) +
                                 " has left the kernel"};
    if (waiting_ > 0 && !same(where, barrier_where_))
      throw std::runtime_error{"divergent __syncthreads: " + me() + " at " + name_of(where) + ", others at " + name_of(barrier_where_)};
    barrier_where_ = where;
    char& clock = barrier_clocks_[generation_ % 2];
    release_clock(&clock);
    if (++waiting_ == threads_.size()) {
      waiting_ = 0;
      ++generation_;
      for (Thread& other : threads_)
        if (other.state == State::waiting && std::strcmp(other.operation, "__syncthreads") == 0) other.state = State::ready;
    } else {
      wait("__syncthreads", where);
    }
    acquire_clock(&clock);
  }

  /// All lanes of the mask deposit a value; each gets the 32 values. Only __syncwarp orders memory.
  const std::uint64_t* exchange(unsigned mask, std::uint64_t value, const char* operation, const Where& where, bool orders_memory) {
    Unwatched unwatched;
    const unsigned lane = current_->number % 32, warp = current_->number / 32;
    const auto refuse = [&](const std::string& why) {
      throw std::runtime_error{std::string{operation} + " at " + name_of(where) + ": " + me() + why};
    };
    if (!(mask >> lane & 1U)) refuse(" is not in its own mask " + std::to_string(mask));
    for (unsigned other = 0; other < 32; ++other) {
      if (!(mask >> other & 1U)) continue;
      const std::size_t number = warp * 32 + other;
      if (number >= threads_.size()) refuse(" names lane " + std::to_string(other) + " in its mask, which the block doesn't have");
      if (threads_[number].state == State::finished) refuse(" waits for t" + std::to_string(number) + ", which has left the kernel");
    }
    Meeting& meeting = meetings_[{warp, mask}];
    if (meeting.arrived == 0) {
      meeting.mask = mask;
      meeting.operation = operation;
      meeting.where = where;
    } else if (std::strcmp(meeting.operation, operation) != 0 || !same(meeting.where, where)) {
      refuse(std::string{" meets lanes in "} + meeting.operation + " at " + name_of(meeting.where));
    }
    const std::size_t slot = meeting.generation % 2;
    meeting.values[slot][lane] = value;
    meeting.arrived |= 1U << lane;
    if (orders_memory) release_clock(&meeting.clocks[slot]);
    if (meeting.arrived == mask) {
      meeting.arrived = 0;
      ++meeting.generation;
      for (unsigned other = 0; other < 32; ++other)
        if (mask >> other & 1U && other != lane) threads_[warp * 32 + other].state = State::ready;
    } else {
      wait(operation, where);
    }
    if (orders_memory) acquire_clock(&meeting.clocks[slot]);
    return meeting.values[slot];
  }

  /// The block's memory under this key: of the dynamic kind, or one DSX_SHARED variable.
  SharedBlock& shared(const void* key, std::size_t bytes) {
    Unwatched unwatched;
    auto& memory = shared_[key];
    if (!memory) {
      shared_bytes_ += bytes;
      if (shared_bytes_ > 48 * 1024)
        throw std::runtime_error{"a block asks for " + std::to_string(shared_bytes_) + " bytes of shared memory; 49152 are had"};
      memory = std::make_unique<SharedBlock>(bytes);
    }
    return *memory;
  }
  SharedBlock& dynamic_shared() { return shared(&dynamic_bytes_, dynamic_bytes_); }
  DSX_EMULATION_UNSEEN unsigned lane() const { return current_->number % 32; }

 private:
  DSX_EMULATION_UNSEEN static Launch*& slot() {
    static thread_local Launch* launch = nullptr;
    return launch;
  }

  std::string me() const { return "t" + std::to_string(current_->number); }

  std::exception_ptr run_blocks() {
    Unwatched unwatched;
    std::mt19937_64 random{Order::now().seed};
    const bool shuffled = Order::now().seed != 0;
    std::vector<std::uint64_t> blocks(std::size_t(grid_.x) * grid_.y * grid_.z);
    std::iota(blocks.begin(), blocks.end(), std::uint64_t{0});
    if (shuffled) std::shuffle(blocks.begin(), blocks.end(), random);
    for (const std::uint64_t number : blocks) {
      index_ = {unsigned(number % grid_.x), unsigned(number / grid_.x % grid_.y), unsigned(number / grid_.x / grid_.y)};
      begin_block();
      run_block(shuffled, random);
      end_block();
      if (error_) break;
    }
    return error_;
  }

  void begin_block() {
    threads_.clear();
    threads_.resize(std::size_t(block_.x) * block_.y * block_.z);
    for (unsigned number = 0; number < threads_.size(); ++number) {
      Thread& t = threads_[number];
      t.number = number;
      t.index = {number % block_.x, number / block_.x % block_.y, number / block_.x / block_.y};
    }
    shared_bytes_ = 0;
    waiting_ = 0;
    ++blocks_begun_;
    if (dynamic_bytes_ > 0) try {
        dynamic_shared();
      } catch (...) {
        error_ = std::current_exception();
      }
  }

  void run_block(bool shuffled, std::mt19937_64& random) {
    std::vector<unsigned> order(threads_.size());
    std::iota(order.begin(), order.end(), 0U);
    for (bool progress = true; progress && !error_;) {
      progress = false;
      if (shuffled) std::shuffle(order.begin(), order.end(), random);
      for (const unsigned number : order) {
        Thread& t = threads_[number];
        if (t.state != State::fresh && t.state != State::ready) continue;
        progress = true;
        resume(t);
        if (!error_ && t.state == State::finished && waiting_ > 0) left_others_waiting(t);
        if (!error_ && races() > 0) error_ = std::make_exception_ptr(std::runtime_error{race_found});
        if (error_) break;
      }
    }
    if (!error_) report_stuck();
    if (error_) {
      cancelling_ = true;
      for (Thread& t : threads_)
        if (t.state == State::ready || t.state == State::waiting) resume(t);
    }
  }

  void end_block() {
    if (!Order::now().independent_blocks || error_) {
      acquire_clock(&end_);
      release_clock(&begin_);
    }
    for (auto& [key, memory] : shared_) old_shared_.push_back(std::move(memory));
    shared_.clear();
    meetings_.clear();
    // Memory of blocks that TSan holds for concurrent is freed when the launch has ended and its accesses lie behind.
    if (!Order::now().independent_blocks) old_shared_.clear();
  }

  void left_others_waiting(const Thread& t) {
    error_ = std::make_exception_ptr(std::runtime_error{"divergent __syncthreads: t" + std::to_string(t.number) +
                                                        " left the kernel while others wait at " + name_of(barrier_where_)});
  }
  void report_stuck() {
    std::string text;
    int shown = 0;
    for (const Thread& t : threads_)
      if (t.state == State::waiting && shown++ < 4) text += " t" + std::to_string(t.number) + " in " + t.operation + " at " + name_of(t.where) + ";";
    if (shown > 0)
      error_ = std::make_exception_ptr(std::runtime_error{"deadlock: " + std::to_string(shown) + " threads of a block wait for ever:" + text});
  }

  /// Called on a fibre: lets the others run until somebody makes this one ready.
  void wait(const char* operation, const Where& where) {
    Thread& me = *current_;
    me.state = State::waiting;
    me.operation = operation;
    me.where = where;
    leave(me, false);
    if (cancelling_) throw Cancelled{};
  }

  void resume(Thread& t) {
    if (t.state == State::fresh) {
      // From block to block a thread's accesses count as another fibre's, so that two blocks' threads of one number can race too.
      t.stack = Stacks::of_host_thread().take((t.number + blocks_begun_) % threads_.size(), t.tsan_fibre);
      prepare(t.context, *t.stack, &Launch::begin_thread);
    }
    t.state = State::ready;
    current_ = &t;
    enter(t);
    if (t.state == State::finished) Stacks::of_host_thread().give_back(t.stack);
  }

  /// The host's side of a switch.
  DSX_EMULATION_UNSEEN void enter(Thread& t) {
#ifdef DSX_EMULATION_ASAN
    __sanitizer_start_switch_fiber(&host_fake_stack_, t.stack->bottom(), Stack::bytes);
#endif
#ifdef DSX_EMULATION_TSAN
    __tsan_switch_to_fiber(t.tsan_fibre, __tsan_switch_to_fiber_no_sync);
#endif
    switch_stacks(&host_, t.context);
#ifdef DSX_EMULATION_ASAN
    __sanitizer_finish_switch_fiber(host_fake_stack_, nullptr, nullptr);
#endif
  }

  /// The fibre's side.
  DSX_EMULATION_UNSEEN void leave(Thread& t, [[maybe_unused]] bool for_good) {
#ifdef DSX_EMULATION_ASAN
    __sanitizer_start_switch_fiber(for_good ? nullptr : &t.fake_stack, host_bottom_, host_bytes_);
#endif
#ifdef DSX_EMULATION_TSAN
    __tsan_switch_to_fiber(host_fibre_, __tsan_switch_to_fiber_no_sync);
#endif
    switch_stacks(&t.context, host_);
#ifdef DSX_EMULATION_ASAN
    __sanitizer_finish_switch_fiber(t.fake_stack, &host_bottom_, &host_bytes_);
#endif
  }

  DSX_EMULATION_UNSEEN static void begin_thread() {
    Launch& launch = *now();
#ifdef DSX_EMULATION_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &launch.host_bottom_, &launch.host_bytes_);
#endif
    run_thread(launch);
    launch.leave(*launch.current_, true);
    std::abort();  // nobody resumes a finished thread
  }

  __attribute__((noinline)) static void run_thread(Launch& launch) {
    acquire_clock(&launch.begin_);
    try {
      launch.call_(launch.closure_);
    } catch (const Cancelled&) {
    } catch (...) {
      Unwatched unwatched;
      if (!launch.error_) launch.error_ = std::current_exception();
    }
    Unwatched unwatched;
    launch.current_->state = State::finished;
    release_clock(&launch.end_);
  }

  dim3 grid_, block_;
  std::size_t dynamic_bytes_;
  void (*call_)(void*);
  void* closure_;
  uint3 index_{};
  std::vector<Thread> threads_{};
  Thread* current_ = nullptr;
  bool cancelling_ = false;
  std::exception_ptr error_{};
  std::size_t waiting_ = 0;  // at the barrier
  std::uint64_t generation_ = 0;
  Where barrier_where_{};
  char barrier_clocks_[2]{};
  char begin_ = 0, end_ = 0;  // clocks
  std::size_t blocks_begun_ = 0;
  std::map<std::pair<unsigned, unsigned>, Meeting> meetings_{};  // by warp and mask
  std::map<const void*, std::unique_ptr<SharedBlock>> shared_{};
  std::vector<std::unique_ptr<SharedBlock>> old_shared_{};
  std::size_t shared_bytes_ = 0;
  Context host_{};
  void* host_fibre_ = nullptr;
  void* host_fake_stack_ = nullptr;
  const void* host_bottom_ = nullptr;
  std::size_t host_bytes_ = 0;
};

// ---- shared memory

/// An array in shared memory that knows its bounds and where it was declared.
template <class T>
class SharedArray {
 public:
  SharedArray(T* data, std::size_t count, const char* name) : data_{data}, count_{count}, name_{name} {}
  T& operator[](std::size_t i) const {
    if (i >= count_)
      throw std::runtime_error{std::string{"shared memory: index "} + std::to_string(i) + " of " + std::to_string(count_) + " in " + name_};
    return data_[i];
  }

 private:
  T* data_;
  std::size_t count_;
  const char* name_;
};

template <class T>
SharedArray<T> static_shared(const void* key, std::size_t count, const char* name) {
  return {reinterpret_cast<T*>(Launch::now()->shared(key, count * sizeof(T)).data), count, name};
}
template <class T>
SharedArray<T> dynamic_shared(const char* name) {
  SharedBlock& memory = Launch::now()->dynamic_shared();
  return {reinterpret_cast<T*>(memory.data), memory.bytes / sizeof(T), name};
}

// ---- warps

template <class T>
T shuffle(unsigned mask, T value, int width, const char* operation, const Where& where, int (*source)(int lane, int first, int last, int argument),
          int argument) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  if (width <= 0 || width > 32 || (width & (width - 1)) != 0)
    throw std::runtime_error{std::string{operation} + " at " + name_of(where) + ": a width of " + std::to_string(width)};
  Launch& launch = *Launch::now();
  const int lane = int(launch.lane()), first = lane / width * width, from = source(lane, first, first + width - 1, argument);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const std::uint64_t* values = launch.exchange(mask, bits, operation, where, false);
  if (!(mask >> from & 1U))
    throw std::runtime_error{std::string{operation} + " at " + name_of(where) + ": lane " + std::to_string(lane) + " reads lane " +
                             std::to_string(from) + ", which is not in the mask"};
  Unwatched unwatched;
  T result;
  std::memcpy(&result, &values[from], sizeof result);
  return result;
}

inline unsigned ballot(unsigned mask, bool vote, const char* operation, const Where& where) {
  const std::uint64_t* values = Launch::now()->exchange(mask, vote, operation, where, false);
  Unwatched unwatched;
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1U && values[lane]) votes |= 1U << lane;
  return votes;
}

}  // namespace dsx::emulation

namespace dsx::emulation {

/// A stream's work, which lies undone until somebody waits for it: who reads a result without waiting reads what was there before.
class Queue {
 public:
  void add(std::function<void()> work) { works_.push_back(std::move(work)), ++added_; }
  std::uint64_t added() const { return added_; }
  std::uint64_t done() const { return added_ - works_.size(); }
  void run_until(std::uint64_t count) {
    while (done() < count) {
      const auto work = std::move(works_.front());
      works_.pop_front();
      work();
    }
  }

 private:
  std::deque<std::function<void()>> works_{};
  std::uint64_t added_ = 0;
};

}  // namespace dsx::emulation

namespace dsx::cuda {

template <class T>
using SharedArray = emulation::SharedArray<T>;

/// As in kernels/cuda/launch.hpp. `stream` is an emulation::Queue; without one the kernel has ended when this returns.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, void* stream, Arguments... arguments) {
  const auto work = [=] {
    auto call = [&] { kernel(arguments...); };
    emulation::Launch{grid, block, shared_bytes, [](void* c) { (*static_cast<decltype(call)*>(c))(); }, &call}.run();
  };
  if (stream)
    static_cast<emulation::Queue*>(stream)->add(work);
  else
    work();
}

}  // namespace dsx::cuda

#ifdef DSX_EMULATION_TSAN
/// TSan calls this after each report. Not inline, or the linker would take TSan's own: one source of a program includes this header.
extern "C" DSX_EMULATION_UNSEEN void __tsan_on_report(void*) { ++dsx::emulation::races(); }
#endif

#if defined(DSX_EMULATION_ASAN) && defined(__clang__)
/// Its default makes a second, large stack for every fibre, which takes a hundred times longer than the kernel.
extern "C" DSX_EMULATION_UNSEEN const char* __asan_default_options() { return "detect_stack_use_after_return=0"; }
#endif

// ---- CUDA's own names

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // no bounds, no NaN; DSX_SHARED has both
#define threadIdx (::dsx::emulation::Launch::now()->thread_index())
#define blockIdx (::dsx::emulation::Launch::now()->block_index())
#define blockDim (::dsx::emulation::Launch::now()->block_shape())
#define gridDim (::dsx::emulation::Launch::now()->grid_shape())

#define DSX_EMULATION_TEXT_(x) #x
#define DSX_EMULATION_TEXT(x) DSX_EMULATION_TEXT_(x)
#define DSX_SHARED(T, count, name)          \
  static const char dsx_key_of_##name = 0; \
  const auto name = ::dsx::emulation::static_shared<T>(&dsx_key_of_##name, count, #name " (" __FILE__ ":" DSX_EMULATION_TEXT(__LINE__) ")")
#define DSX_DYNAMIC_SHARED(T, name) \
  const auto name = ::dsx::emulation::dynamic_shared<T>(#name " (" __FILE__ ":" DSX_EMULATION_TEXT(__LINE__) ")")

inline void __syncthreads(dsx::emulation::Where where = dsx::emulation::Where::current()) { dsx::emulation::Launch::now()->barrier(where); }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  dsx::emulation::Launch::now()->exchange(mask, 0, "__syncwarp", where, true);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  return dsx::emulation::shuffle(
      mask, value, width, "__shfl_sync", where, [](int, int first, int last, int from) { return first + (from & (last - first)); }, lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  return dsx::emulation::shuffle(
      mask, value, width, "__shfl_xor_sync", where, [](int lane, int, int last, int b) { return (lane ^ b) <= last ? lane ^ b : lane; }, bits);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  return dsx::emulation::shuffle(
      mask, value, width, "__shfl_down_sync", where, [](int lane, int, int last, int d) { return lane + d <= last ? lane + d : lane; }, int(delta));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  return dsx::emulation::shuffle(
      mask, value, width, "__shfl_up_sync", where, [](int lane, int first, int, int d) { return lane - d >= first ? lane - d : lane; }, int(delta));
}

inline unsigned __ballot_sync(unsigned mask, int vote, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  return dsx::emulation::ballot(mask, vote != 0, "__ballot_sync", where);
}
inline int __any_sync(unsigned mask, int vote, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  return dsx::emulation::ballot(mask, vote != 0, "__any_sync", where) != 0;
}
inline int __all_sync(unsigned mask, int vote, dsx::emulation::Where where = dsx::emulation::Where::current()) {
  return dsx::emulation::ballot(mask, vote != 0, "__all_sync", where) == mask;
}

inline void __threadfence() {
  static char clock;  // between two threads that both pass a fence, order is assumed: rather a race missed than a false one
  dsx::emulation::release_clock(&clock);
  dsx::emulation::acquire_clock(&clock);
}

/// Atomics order nothing but themselves, as on the device.
template <class T>
T atomicAdd(T* address, T value) {
  return std::atomic_ref<T>{*address}.fetch_add(value, std::memory_order_relaxed);
}
template <class T>
T atomicMax(T* address, T value) {
  std::atomic_ref<T> target{*address};
  T old = target.load(std::memory_order_relaxed);
  while (old < value && !target.compare_exchange_weak(old, value, std::memory_order_relaxed)) {
  }
  return old;
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
  std::atomic_ref<T>{*address}.compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}
