// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Operands of a kernel under test: host memory when it is emulated, device memory where it runs on a GPU (DSX_NATIVE_CUDA).
///
///     DeviceBuffer<float> x{cast<float>(numbers)}, y{x.size(), 1};   // y begins one element behind a 256-byte boundary
///     launched([&](void* stream) { cuda::gelu(x.view(shape), y.view(shape), Gelu::tanh, stream); });
///     std::vector<float> result = y.read();                          // CHECKs that nothing beyond y was written
///
/// Under ASan the allocation ends with the last element; else marks stand on both sides.
#pragma once

#include <dsx/tensor/view.hpp>

#ifdef DSX_NATIVE_CUDA
#include <dsx/place/memory_resource.hpp>
#endif

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <random>
#include <vector>

namespace dsx::test {

#ifdef DSX_EMULATION_ASAN
inline constexpr Extent marked = 0;
#else
inline constexpr Extent marked = 64;  // bytes behind, and 256 before
#endif
inline constexpr std::byte mark{0xA5};

#ifdef DSX_NATIVE_CUDA
inline constexpr Place tested_place = Place::cuda;
inline Stream& tested_stream() {
  static Stream stream{Place::cuda};
  return stream;
}
#else
inline constexpr Place tested_place = Place::cpu;
#endif

template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(const std::vector<T>& values, Extent shift = 0) : size_{values.size()}, shift_{shift} {
    std::vector<std::byte> image(whole_bytes(), mark);
    if (size_ > 0) std::memcpy(image.data() + offset(), values.data(), size_ * sizeof(T));
#ifdef DSX_NATIVE_CUDA
    memory_ = static_cast<std::byte*>(resource(Place::cuda).allocate(whole_bytes(), 256));
    copy(memory_, image.data(), whole_bytes(), tested_stream());
    tested_stream().synchronize();
#else
    memory_ = static_cast<std::byte*>(operator new(whole_bytes(), std::align_val_t{256}));
    std::copy(image.begin(), image.end(), memory_);
#endif
  }
  explicit DeviceBuffer(Extent size, Extent shift = 0) : DeviceBuffer{std::vector<T>(size), shift} {}
  ~DeviceBuffer() {
#ifdef DSX_NATIVE_CUDA
    resource(Place::cuda).deallocate(memory_, whole_bytes());
#else
    operator delete(memory_, std::align_val_t{256});
#endif
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  Extent size() const { return size_; }
  T* data() const { return reinterpret_cast<T*>(memory_ + offset()); }
  View view(Shape shape) const { return {data(), shape, element_of<T>, tested_place}; }
  View column() const { return view({size_, 1}); }

  std::vector<T> read() const {
    std::vector<std::byte> image(whole_bytes());
#ifdef DSX_NATIVE_CUDA
    copy(image.data(), memory_, whole_bytes(), tested_stream());
    tested_stream().synchronize();
#else
    std::copy(memory_, memory_ + whole_bytes(), image.begin());
#endif
    const auto is_mark = [](std::byte b) { return b == mark; };
    CHECK(std::all_of(image.begin(), image.begin() + std::ptrdiff_t(offset()), is_mark));
    CHECK(std::all_of(image.end() - std::ptrdiff_t(marked), image.end(), is_mark));
    std::vector<T> values(size_);
    if (size_ > 0) std::memcpy(values.data(), image.data() + offset(), size_ * sizeof(T));
    return values;
  }

 private:
  Extent offset() const { return (marked > 0 ? 256 : 0) + shift_ * sizeof(T); }
  Extent whole_bytes() const { return offset() + size_ * sizeof(T) + marked; }
  Extent size_, shift_;
  std::byte* memory_ = nullptr;
};

/// Runs what enqueues kernels and waits for them. A rule that a kernel breaks, or a data race, is a failed CHECK.
template <class F>
void launched(F f) {
#ifdef DSX_NATIVE_CUDA
  CHECK_NOTHROW(f(tested_stream().handle()); tested_stream().synchronize());
#else
  CHECK_NOTHROW(f(nullptr));
#endif
}

/// Calls f once for each order of threads and blocks; a GPU has its own.
template <class F>
void in_each_order([[maybe_unused]] std::initializer_list<std::uint64_t> seeds, F f) {
#ifdef DSX_NATIVE_CUDA
  f();
#else
  for (const std::uint64_t seed : seeds) {
    CAPTURE(seed);
    const emulation::Order order{{.seed = seed, .independent_blocks = true}};
    f();
  }
#endif
}

inline std::vector<double> numbers(Extent count, unsigned seed, double low = -2, double high = 2) {
  std::mt19937 random{seed};
  std::uniform_real_distribution<double> uniform{low, high};
  std::vector<double> values(count);
  for (double& v : values) v = uniform(random);
  return values;
}
template <class T>
std::vector<T> cast(const std::vector<double>& values) {
  std::vector<T> result;
  for (const double v : values) result.push_back(T(v));
  return result;
}
/// The values that a kernel sees, after rounding to T.
template <class T>
std::vector<double> rounded(const std::vector<double>& values) {
  std::vector<double> result;
  for (const double v : values) result.push_back(double(T(v)));
  return result;
}

/// Of results in T against a reference in double, relative to the largest reference value or 1.
template <class T>
inline constexpr double tolerance = std::is_same_v<T, double> ? 1e-12 : std::is_same_v<T, bf16> ? 6e-3 : 1e-5;

template <class T>
double distance(const std::vector<T>& result, const std::vector<double>& wanted) {
  REQUIRE(result.size() == wanted.size());
  double scale = 1, worst = 0;
  for (const double w : wanted) scale = std::max(scale, std::abs(w));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double d = std::abs(double(result[i]) - wanted[i]);
    if (!(d <= worst)) worst = d;  // a NaN stays
  }
  return worst / scale;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace dsx::test
