// SPDX-FileCopyrightText: dsx contributors
// SPDX-License-Identifier: Apache-2.0
/// Loops of normalisation by the root mean square, compiled once for each instruction set.
///
///     pick<RmsNormBody<T>>().forward(x, gain, epsilon, y, scales, rows, columns);
///     pick<RmsNormGrad<T, G>>().inputs(x, gain, scales, dy, dx, rows, columns, accumulate);
#pragma once

#include "simd.hpp"

namespace dsx::kernels {

template <class T>
struct RmsNormBody {
  void (*forward)(const T* x, const T* gain, double epsilon, T* y, Wide<T>* scales, std::size_t rows, std::size_t columns);
  static const RmsNormBody v3, v4;
};

template <class T, class G>
struct RmsNormGrad {
  void (*inputs)(const T* x, const T* gain, const Wide<T>* scales, const T* dy, G* dx, std::size_t rows, std::size_t columns, bool accumulate);
  /// Columns [begin, end).
  void (*weights)(const T* x, const Wide<T>* scales, const T* dy, G* dgain, std::size_t rows, std::size_t columns, std::size_t begin, std::size_t end,
                  bool accumulate);
  static const RmsNormGrad v3, v4;
};

namespace DSX_ISA {

template <class T>
void rms_norm(const T* x, const T* gain, double epsilon, T* y, Wide<T>* scales, size_t rows, size_t columns) {
  using W = Wide<T>;
  const W share = W(1) / W(columns);
  for (size_t r = 0; r < rows; ++r, x += columns, y += columns) {
    Pack<W> squares{};
    lanes<W>(columns, [&](size_t i, auto some) {
      const Pack<W> v = load<W>(x + i, some);
      squares += v * v;
    });
    const W scale = W(1) / root_of(sum<W>(squares) * share + W(epsilon));
    lanes<W>(columns, [&](size_t i, auto some) { store(y + i, load<W>(x + i, some) * scale * load<W>(gain + i, some), some); });
    scales[r] = scale;
  }
}

template <class T, class G>
void rms_norm_inputs(const T* x, const T* gain, const Wide<T>* scales, const T* dy, G* dx, size_t rows, size_t columns, bool accumulate) {
  using W = Wide<T>;
  const W share = W(1) / W(columns);
  for (size_t r = 0; r < rows; ++r, x += columns, dy += columns, dx += columns) {
    const W scale = scales[r];
    Pack<W> products{};
    lanes<W>(columns, [&](size_t i, auto some) { products += load<W>(dy + i, some) * load<W>(gain + i, some) * load<W>(x + i, some); });
    const W slope = sum<W>(products) * share * scale * scale;
    lanes<W>(columns, [&](size_t i, auto some) {
      const Pack<W> g = load<W>(dy + i, some) * load<W>(gain + i, some);
      put(dx + i, (g - load<W>(x + i, some) * slope) * scale, accumulate, some);
    });
  }
}

template <class T, class G>
void rms_norm_weights(const T* x, const Wide<T>* scales, const T* dy, G* dgain, size_t rows, size_t columns, size_t begin, size_t end,
                      bool accumulate) {
  using W = Wide<T>;
  stripes<W>(begin, end, [&]<size_t Packs>(size_t column, auto some, Count<Packs>) {
    Pack<W> gains[Packs]{};
    in_short_chains(rows, [&](size_t first, size_t last) {
      Pack<W> part[Packs]{};
      for (size_t r = first; r < last; ++r)
        for (size_t p = 0; p < Packs; ++p) {
          const size_t at = r * columns + column + p * count_of<W>;
          part[p] += load<W>(dy + at, some) * (load<W>(x + at, some) * scales[r]);
        }
      for (size_t p = 0; p < Packs; ++p) gains[p] += part[p];
    });
    for (size_t p = 0; p < Packs; ++p) put(dgain + column + p * count_of<W>, gains[p], accumulate, some);
  });
}

}  // namespace DSX_ISA

#define DSX_BODY(T)                        \
  template <>                              \
  const RmsNormBody<T> RmsNormBody<T>::v3; \
  template <>                              \
  const RmsNormBody<T> RmsNormBody<T>::v4; \
  template <>                              \
  const RmsNormBody<T> RmsNormBody<T>::DSX_ISA{DSX_ISA::rms_norm<T>};
DSX_BODY(float)
DSX_BODY(double)
DSX_BODY(bf16)
#undef DSX_BODY

#define DSX_BODY(T, G)                           \
  template <>                                    \
  const RmsNormGrad<T, G> RmsNormGrad<T, G>::v3; \
  template <>                                    \
  const RmsNormGrad<T, G> RmsNormGrad<T, G>::v4; \
  template <>                                    \
  const RmsNormGrad<T, G> RmsNormGrad<T, G>::DSX_ISA{DSX_ISA::rms_norm_inputs<T, G>, DSX_ISA::rms_norm_weights<T, G>};
DSX_BODY(float, float)
DSX_BODY(double, double)
DSX_BODY(bf16, bf16)
DSX_BODY(bf16, float)
#undef DSX_BODY

}  // namespace dsx::kernels
