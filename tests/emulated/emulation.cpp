// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// The emulation itself: what it must compute, and each fault of a kernel that it must name.
///
///     CHECK_THROWS_WITH_AS(run(32, meets_half_a_warp), Contains("deadlock"), std::runtime_error);
#include "../support/cuda_emulation.hpp"

#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <set>
#include <thread>

#include <sys/syscall.h>
#include <sys/wait.h>

using dsx::cuda::launch;
using dsx::emulation::Order;
using doctest::Contains;

namespace {

template <class... Parameters, class... Arguments>
void run(unsigned threads, void (*kernel)(Parameters...), Arguments... arguments) {
  launch(kernel, dim3(1), dim3(threads), 0, nullptr, arguments...);
}
/// A launch in each of several orders.
template <class F>
void in_orders(F f) {
  for (const std::uint64_t seed : {0, 1, 2, 3}) {
    const Order order{{.seed = seed}};
    f();
  }
}

__global__ void block_sum(const int* x, int* sum) {
  __shared__ int partial[32];
  int value = x[threadIdx.x];
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_down_sync(0xFFFFFFFFU, value, unsigned(distance));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) {
    *sum = 0;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) *sum += partial[w];
  }
}

/// All places of a three-dimensional grid of three-dimensional blocks, by their number in memory.
__global__ void mark_places(int* visits) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  ++visits[block * blockDim.x * blockDim.y * blockDim.z + thread];
}

__global__ void shuffles(int* out, int width) {
  const int lane = int(threadIdx.x);
  out[lane] = __shfl_sync(0xFFFFFFFFU, 100 + lane, 1, width);
  out[32 + lane] = __shfl_xor_sync(0xFFFFFFFFU, 100 + lane, 5, width);
  out[64 + lane] = __shfl_down_sync(0xFFFFFFFFU, 100 + lane, 3U, width);
  out[96 + lane] = __shfl_up_sync(0xFFFFFFFFU, 100 + lane, 3U, width);
}
__global__ void votes(unsigned* out) {
  const unsigned lane = threadIdx.x, odd = 0xAAAAAAAAU;
  const unsigned all = __ballot_sync(0xFFFFFFFFU, lane < 5);
  if (lane % 2 == 1) {
    const unsigned some = __ballot_sync(odd, lane < 5);
    const bool any = __any_sync(odd, lane == 0), every = __all_sync(odd, lane > 0);
    if (lane == 7) out[1] = some, out[2] = any, out[3] = every;
  }
  if (lane == 0) out[0] = all;
}

__global__ void different_barriers() {
  if (threadIdx.x % 2 == 0) __syncthreads();
  else __syncthreads();
}
__global__ void early_leaver() {
  if (threadIdx.x == 5) return;
  __syncthreads();
}
__global__ void warp_against_block() {
  if (threadIdx.x < 16) __syncwarp();
  else __syncthreads();
}
__global__ void leaver_of_a_warp() {
  if (threadIdx.x == 9) return;
  __syncwarp();
}
__global__ void not_in_its_mask() { __shfl_sync(0x0000FFFFU, 1, 0); }
__global__ void reads_outside_the_mask() {
  if (threadIdx.x < 16) __shfl_sync(0x0000FFFFU, 1, 20);
}
__global__ void whole_warp_of_half() { __syncwarp(); }
__global__ void different_exchanges() {
  if (threadIdx.x < 16) __any_sync(0xFFFFFFFFU, 1);
  else __all_sync(0xFFFFFFFFU, 1);
}
__global__ void odd_width() { __shfl_sync(0xFFFFFFFFU, 1, 0, 12); }

__global__ void reads_shared(unsigned index, float* out) {
  DSX_SHARED(float, 4, small);
  DSX_DYNAMIC_SHARED(double, large);
  if (threadIdx.x == 0) {
    out[0] = small[index];
    out[1] = float(large[index]);
  }
}
__global__ void much_shared() {
  DSX_SHARED(double, 6'200, numbers);
  numbers[0] = 1;
}

__global__ void counts_arrivals(int* counter, int* order_of) {
  const int number = int(blockIdx.x * blockDim.x + threadIdx.x);
  order_of[atomicAdd(counter, 1)] = number;
}

template <class T>
__global__ void add_up(T* sum, T* largest, T* token) {
  atomicAdd(sum, T(threadIdx.x));
  atomicMax(largest, T(threadIdx.x));
  atomicCAS(token, T(threadIdx.x), T(threadIdx.x + 1));
}

struct Counted {
  explicit Counted(int* alive) : alive_{alive} { atomicAdd(alive_, 1); }
  ~Counted() { atomicAdd(alive_, -1); }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  int* alive_;
};
__global__ void one_throws(int* alive) {
  const Counted counted{alive};
  __syncthreads();
  if (threadIdx.x == 21) throw std::out_of_range{"thread 21"};
  __syncwarp();
  __syncthreads();
}
__global__ void launches_another(int* alive) { run(1, one_throws, alive); }

__global__ void left_neighbour(const int* x, int* y, bool with_barrier) {
  DSX_SHARED(int, 64, row);
  row[threadIdx.x] = x[threadIdx.x];
  if (with_barrier) __syncthreads();
  y[threadIdx.x] = row[(threadIdx.x + 63) % 64];
}
__global__ void neighbour_of_a_warp(const int* x, int* y, bool with_order) {
  DSX_SHARED(int, 32, row);
  row[threadIdx.x] = x[threadIdx.x];
  if (with_order) __syncwarp();
  else __any_sync(0xFFFFFFFFU, 1);  // lanes meet, but memory is not ordered
  y[threadIdx.x] = row[(threadIdx.x + 1) % 32];
}
__global__ void one_place_for_all_blocks(int* place, bool atomic) {
  if (threadIdx.x != 0) return;
  if (atomic) atomicAdd(place, 1);
  else ++*place;
}

#ifdef DSX_EMULATION_TSAN
/// Whether f throws for a data race, found out in a process of its own: TSan lets one that reported any end in failure.
template <class F>
bool races(F f) {
  dsx::emulation::Stacks::of_host_thread().clear();
  const pid_t child = fork();
  if (child == 0) {
    long found = 0;
    if (freopen("/dev/null", "w", stderr) == nullptr) found = 2;
    try {
      f();
    } catch (const std::runtime_error& error) {
      found = std::strstr(error.what(), "data race") != nullptr ? 1 : 2;
    }
    syscall(SYS_exit_group, found);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  REQUIRE(WEXITSTATUS(status) < 2);
  return WEXITSTATUS(status) == 1;
}
#endif

}  // namespace

TEST_CASE("an emulated block sums through shuffles, shared memory and a barrier") {
  std::array<int, 256> x{};
  std::iota(x.begin(), x.end(), 1);
  in_orders([&] {
    int sum = 0;
    run(256, block_sum, x.data(), &sum);
    CHECK(sum == 256 * 257 / 2);
  });
}

TEST_CASE("emulated threads and blocks of three dimensions are each visited once") {
  std::vector<int> visits(2 * 3 * 2 * 4 * 2 * 3);
  in_orders([&] {
    std::fill(visits.begin(), visits.end(), 0);
    launch(mark_places, dim3(2, 3, 2), dim3(4, 2, 3), 0, nullptr, visits.data());
    CHECK(visits == std::vector<int>(visits.size(), 1));
  });
}

TEST_CASE("emulated shuffles move values within their width") {
  in_orders([&] {
    for (const int width : {8, 32}) {
      std::array<int, 128> out{};
      run(32, shuffles, out.data(), width);
      for (int lane = 0; lane < 32; ++lane) {
        const int first = lane / width * width, last = first + width - 1;
        CHECK(out[lane] == 100 + first + 1);
        CHECK(out[32 + lane] == 100 + (lane ^ 5));
        CHECK(out[64 + lane] == 100 + (lane + 3 <= last ? lane + 3 : lane));
        CHECK(out[96 + lane] == 100 + (lane - 3 >= first ? lane - 3 : lane));
      }
    }
  });
}

TEST_CASE("emulated votes count the lanes of their mask") {
  in_orders([&] {
    std::array<unsigned, 4> out{};
    run(32, votes, out.data());
    CHECK(out == std::array<unsigned, 4>{0b11111, 0b01010, 0, 1});
  });
}

TEST_CASE("an emulated barrier that threads reach at different lines or not at all is named") {
  in_orders([&] {
    CHECK_THROWS_WITH_AS(run(64, different_barriers), Contains("divergent __syncthreads"), std::runtime_error);
    CHECK_THROWS_WITH_AS(run(64, early_leaver), Contains("t5"), std::runtime_error);
    CHECK_THROWS_WITH_AS(run(64, early_leaver), Contains("emulation.cpp:"), std::runtime_error);
  });
}

TEST_CASE("emulated threads that wait for each other for ever are named") {
  in_orders([&] {
    CHECK_THROWS_WITH_AS(run(32, warp_against_block), Contains("deadlock: 32 threads"), std::runtime_error);
    CHECK_THROWS_WITH_AS(run(32, warp_against_block), Contains("__syncwarp at "), std::runtime_error);
  });
}

TEST_CASE("emulated warp operations refuse wrong masks") {
  in_orders([&] {
    CHECK_THROWS_WITH_AS(run(32, not_in_its_mask), Contains("is not in its own mask 65535"), std::runtime_error);
    CHECK_THROWS_WITH_AS(run(32, reads_outside_the_mask), Contains("reads lane 20, which is not in the mask"), std::runtime_error);
    CHECK_THROWS_WITH_AS(run(16, whole_warp_of_half), Contains("names lane 16"), std::runtime_error);
    CHECK_THROWS_WITH_AS(run(32, different_exchanges), Contains("meets lanes in"), std::runtime_error);
    CHECK_THROWS_WITH_AS(run(32, odd_width), Contains("a width of 12"), std::runtime_error);
    CHECK_THROWS_AS(run(32, leaver_of_a_warp), std::runtime_error);
  });
}

TEST_CASE("emulated shared memory begins as NaN and knows its bounds and its limit") {
  std::array<float, 2> out{};
  launch(reads_shared, dim3(2), dim3(32), 4 * sizeof(double), nullptr, 3U, out.data());
  CHECK(std::isnan(out[0]));
  CHECK(std::isnan(out[1]));
  CHECK_THROWS_WITH_AS(launch(reads_shared, dim3(1), dim3(32), 64, nullptr, 4U, out.data()), Contains("index 4 of 4 in small ("), std::runtime_error);
  CHECK_THROWS_WITH_AS(launch(reads_shared, dim3(1), dim3(32), 16, nullptr, 2U, out.data()), Contains("index 2 of 2 in large ("), std::runtime_error);
  CHECK_THROWS_WITH_AS(launch(reads_shared, dim3(1), dim3(32), 60'000, nullptr, 0U, out.data()), Contains("bytes of shared memory"),
                       std::runtime_error);
  CHECK_THROWS_WITH_AS(run(1, much_shared), Contains("49600 bytes"), std::runtime_error);
}

TEST_CASE("the seed decides the order of emulated threads and blocks") {
  const auto order_for = [](std::uint64_t seed) {
    const Order order{{.seed = seed}};
    int counter = 0;
    std::vector<int> numbers(8 * 64);
    launch(counts_arrivals, dim3(8), dim3(64), 0, nullptr, &counter, numbers.data());
    CHECK(std::set<int>(numbers.begin(), numbers.end()).size() == numbers.size());
    return numbers;
  };
  const std::vector<int> ascending = order_for(0), one = order_for(1), two = order_for(2);
  CHECK(std::is_sorted(ascending.begin(), ascending.end()));
  CHECK(one == order_for(1));
  CHECK(one != two);
  CHECK(one != ascending);
  CHECK(one[0] / 64 != two[0] / 64);  // blocks too
}

TEST_CASE("emulated atomics of floats, doubles and integers lose nothing") {
  const auto check = [](auto zero) {
    using T = decltype(zero);
    T sum{}, largest{}, token{};
    launch(add_up<T>, dim3(3), dim3(100), 0, nullptr, &sum, &largest, &token);
    CHECK(sum == T(3 * 4950));
    CHECK(largest == 99);
    CHECK(token == 100);
  };
  check(float{}), check(double{}), check(int{});
}

TEST_CASE("an emulated kernel that throws leaves no thread behind") {
  in_orders([&] {
    int alive = 0;
    CHECK_THROWS_WITH_AS(launch(one_throws, dim3(3), dim3(64), 0, nullptr, &alive), "thread 21", std::out_of_range);
    CHECK(alive == 0);
    CHECK_THROWS_WITH_AS(run(1, launches_another, &alive), Contains("a kernel launches a kernel"), std::runtime_error);
    std::array<int, 64> x{};
    int sum = 1;
    run(64, block_sum, x.data(), &sum);
    CHECK(sum == 0);
  });
}

TEST_CASE("an emulated launch refuses grids and blocks that no device takes") {
  CHECK_THROWS_WITH_AS(run(1025, early_leaver), Contains("a block of 1025 x 1 x 1 threads"), std::runtime_error);
  CHECK_THROWS_WITH_AS(run(0, early_leaver), Contains("a block of 0"), std::runtime_error);
  CHECK_THROWS_WITH_AS(launch(early_leaver, dim3(0), dim3(1), 0, nullptr), Contains("a grid of 0"), std::runtime_error);
  CHECK_THROWS_WITH_AS(launch(early_leaver, dim3(1, 65'536), dim3(1), 0, nullptr), Contains("a grid of 1 x 65536"), std::runtime_error);
}

TEST_CASE("several host threads emulate kernels at the same time") {
  std::array<int, 128> x{};
  std::iota(x.begin(), x.end(), 0);
  std::array<int, 4> sums{};
  std::vector<std::thread> hosts;
  for (int& sum : sums)
    hosts.emplace_back([&] {
      for (int round = 0; round < 20; ++round) run(128, block_sum, x.data(), &sum);
    });
  for (std::thread& host : hosts) host.join();
  CHECK(sums == std::array<int, 4>{8128, 8128, 8128, 8128});
}

TEST_CASE("emulated neighbours exchange through shared memory behind barriers") {
  std::array<int, 64> x{}, y{};
  std::iota(x.begin(), x.end(), 0);
  in_orders([&] {
    run(64, left_neighbour, x.data(), y.data(), true);
    CHECK(y[0] == 63);
    CHECK(y[40] == 39);
    run(32, neighbour_of_a_warp, x.data(), y.data(), true);
    CHECK(y[31] == 0);
    CHECK(y[3] == 4);
    const Order unordered{{.seed = 5, .independent_blocks = true}};
    int place = 0;
    launch(one_place_for_all_blocks, dim3(9), dim3(32), 0, nullptr, &place, true);
    CHECK(place == 9);
  });
}

#ifdef DSX_EMULATION_TSAN
TEST_CASE("TSan finds the missing barrier, the shuffle taken for one, and blocks that share a place") {
  std::array<int, 64> x{}, y{};
  in_orders([&] {
    CHECK(races([&] { run(64, left_neighbour, x.data(), y.data(), false); }));
    CHECK_FALSE(races([&] { run(64, left_neighbour, x.data(), y.data(), true); }));
    CHECK(races([&] { run(32, neighbour_of_a_warp, x.data(), y.data(), false); }));
    CHECK_FALSE(races([&] { run(32, neighbour_of_a_warp, x.data(), y.data(), true); }));
    const Order unordered{{.seed = Order::now().seed, .independent_blocks = true}};
    int place = 0;
    CHECK(races([&] { launch(one_place_for_all_blocks, dim3(3), dim3(32), 0, nullptr, &place, false); }));
    CHECK_FALSE(races([&] { launch(one_place_for_all_blocks, dim3(3), dim3(32), 0, nullptr, &place, true); }));
  });
}
#endif
