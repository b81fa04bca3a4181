// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// What the host kernels share: checks of places and shapes, loops over OpenMP threads, the choice of an instruction set.
///
///     on_host("gelu", x, y);
///     in_blocks(x.size(), [&](Range r) { pick<GeluBody<T>>().forward(x + r.begin, y + r.begin, r.size(), form); });
///
/// A body `B` is a table of function pointers with two constants: B::v3 and, from a second compile, B::v4.
#pragma once

#include <dsx/core/error.hpp>
#include <dsx/place/stream.hpp>
#include <dsx/tensor/view.hpp>

#if DSX_HAS_OPENMP
#include <omp.h>
#endif

#include <cstdlib>
#include <cstring>
#include <string_view>

namespace dsx::kernels {

/// Whether this process runs the bodies compiled for x86-64-v4. DSX_ISA=v3 in the environment forbids it.
inline bool runs_v4() {
#if DSX_HAS_V4
  static const bool chosen = [] {
    const char* wish = std::getenv("DSX_ISA");
    if (wish && std::strcmp(wish, "v3") == 0) return false;
    return bool(__builtin_cpu_supports("avx512f")) && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }();
  return chosen;
#else
  return false;
#endif
}

template <class Body>
const Body& pick() {
#if DSX_HAS_V4
  return runs_v4() ? Body::v4 : Body::v3;
#else
  return Body::v3;
#endif
}

/// Threads that a parallel region opened here would get.
inline Extent threads() {
#if DSX_HAS_OPENMP
  return omp_in_parallel() ? 1 : Extent(omp_get_max_threads());
#else
  return 1;
#endif
}

/// Which of them calls: less than threads() said where the region was opened.
inline Extent this_thread() {
#if DSX_HAS_OPENMP
  return Extent(omp_get_thread_num());
#else
  return 0;
#endif
}

/// Elements of work below which opening a parallel region costs more than it saves.
inline constexpr Extent worth_threads = 1 << 15;

/// f(i) for i in [0, count), each once, on several threads if `work` elements are worth it. f must not throw.
template <class F>
void in_parallel(Extent count, Extent work, const F& f) {
#if DSX_HAS_OPENMP
  if (count > 1 && work >= worth_threads && threads() > 1) {
#pragma omp parallel for schedule(dynamic, 1)
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(count); ++i) f(Extent(i));
    return;
  }
#endif
  (void)work;
  for (Extent i = 0; i < count; ++i) f(i);
}

/// f(range) over contiguous ranges that cover [0, count), one a thread; `each` elements of work an index.
/// Ranges begin at multiples of 64, so that threads don't share cache lines of a vector.
template <class F>
void in_ranges(Extent count, Extent each, const F& f) {
#if DSX_HAS_OPENMP
  const Extent parts = threads(), grain = each >= 64 ? 1 : 64;
  if (parts > 1 && count > grain && count * each >= worth_threads) {
    const Extent grains = (count + grain - 1) / grain;
#pragma omp parallel for schedule(static, 1)
    for (std::ptrdiff_t i = 0; i < std::ptrdiff_t(parts); ++i) {
      const Range r = share({0, grains}, parts, Extent(i));
      const Extent end = std::min(count, r.end * grain);
      if (r.begin * grain < end) f(Range{r.begin * grain, end});
    }
    return;
  }
#endif
  (void)each;
  if (count) f(Range{0, count});
}

inline void on_host(std::string_view kernel, std::initializer_list<View> views) {
  for (const View& v : views)
    if (v.place != Place::cpu && v.size()) fail<405>("kernels::", kernel, " has no body for values on a GPU; move them to the host");
}

/// The GPU's stream that a kernel with these operands is enqueued in; null where they lie on the host. dsx-E809 for operands at two places.
inline const Stream* gpu_stream(std::string_view kernel, std::initializer_list<View> views) {
  Extent on_gpu = 0, all = 0;
  for (const View& v : views) all += v.size() > 0, on_gpu += v.size() > 0 && v.place == Place::cuda;
  if (on_gpu != 0 && on_gpu != all) fail<809>("kernels::", kernel, " got ", on_gpu, " operands on a GPU and ", all - on_gpu, " on the host");
  return on_gpu != 0 ? &gpu_launch_stream() : nullptr;
}

template <class... Views>
void same_shape(std::string_view kernel, const View& first, const Views&... rest) {
  const auto check = [&](const View& v) {
    if (v.size() != first.size())
      fail<301>("kernels::", kernel, " got ", first.shape.rows, " x ", first.shape.columns, " and ", v.shape.rows, " x ", v.shape.columns,
                " elements");
  };
  (check(rest), ...);
}

template <class... Views>
void same_element(std::string_view kernel, const View& first, const Views&... rest) {
  const auto check = [&](const View& v) {
    if (v.element != first.element)
      fail<405>("kernels::", kernel, " computes with one element type, but got ", name_of(first.element), " and ", name_of(v.element));
  };
  (check(rest), ...);
}

/// f(T{}, G{}) for a gradient that holds either T or Wide<T>.
template <class F>
void dispatch_grad(std::string_view kernel, Element element, Element gradient, F&& f) {
  dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    if (gradient == element_of<T>) return f(T{}, T{});
    if constexpr (!std::is_same_v<T, Wide<T>>)
      if (gradient == element_of<Wide<T>>) return f(T{}, Wide<T>{});
    fail<405>("kernels::", kernel, " writes gradients of ", name_of(element), " values as ", name_of(element), " or ", name_of(wide(element)),
              ", not as ", name_of(gradient));
  });
}

}  // namespace dsx::kernels
